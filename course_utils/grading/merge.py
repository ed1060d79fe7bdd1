"""A learner's answers and helper cells, put into a fresh copy of the chapter.

Nothing of what comes back is trusted but the learner's own code and text: tests, course cells,
metadata and points come from the course. Cells are known by the comment that the build puts into
them, so that a notebook whose metadata a hosted service has dropped is graded like any other.
"""

from __future__ import annotations

import ast
import copy
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4

from course_utils.grading.assignments import Assignment

LARGEST_MB = 50
MOST_CELLS = 2000
MOST_CHARACTERS = 500_000  # of one cell
MOST_TEST_CHARACTERS = 10_000  # a longer cell is no copy of a test cell

# Blanks only, not \s: with line ends among them, a cell of empty lines would take minutes.
EXERCISE = re.compile(r"^[ \t]*#[ \t]*exercise:[ \t]*([a-z][a-z0-9_]*)[ \t]*$", re.M)
ANSWER = re.compile(r"<!--\s*answer:\s*([a-z][a-z0-9_]*)\s*-->")
CHECK = re.compile(r"""\bcheck\(\s*["']([a-z][a-z0-9_]*)["']""")
CHAPTER = re.compile(r"""\b(?:setup|set_chapter)\(\s*["'](\d\d_[a-z0-9_]+)["']""")
TITLE = re.compile(r"^# (\d\d) · ", re.M)


class UnreadableError(Exception):
    """The file is no notebook that can be graded; the text says why."""


@dataclass
class Cell:
    """One submitted cell, reduced to what is used of it."""

    kind: str
    source: str
    id: str = ""
    grade_id: str = ""


@dataclass
class Merged:
    """A submission ready to run.

    Attributes:
        nb: a fresh notebook with the learner's answers, tests without their hidden part.
        flags: what was unusual, by exercise; under "" what concerns the whole submission.
    """

    nb: NotebookNode
    flags: dict[str, list[str]] = field(default_factory=dict)

    def flag(self, name: str, text: str) -> None:
        """Note something once."""
        texts = self.flags.setdefault(name, [])
        if text not in texts:
            texts.append(text)


def read(path: Path, largest_mb: float = LARGEST_MB) -> list[Cell]:
    """The cells of a submitted file, whatever state it is in.

    Raises:
        UnreadableError: too large, or not a notebook.
    """
    megabytes = path.stat().st_size / 2**20
    if megabytes > largest_mb:
        raise UnreadableError(
            f"the file has {megabytes:.0f} MB, more than the {largest_mb:g} MB that are read: "
            "clear its outputs and submit it again"
        )
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
        cells = found["cells"] if "cells" in found else found["worksheets"][0]["cells"]
        parsed = [_cell(cell) for cell in cells]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())[:80]
        raise UnreadableError(f"not a notebook ({type(error).__name__}: {text})") from None
    if len(parsed) > MOST_CELLS:
        raise UnreadableError(f"{len(parsed)} cells, more than the {MOST_CELLS} that are read")
    return [cell for cell in parsed if cell.kind in ("code", "markdown")]


def _cell(cell: Any) -> Cell:
    source = cell.get("source", cell.get("input", ""))
    text = source if isinstance(source, str) else "".join(source)
    # what UTF-8 cannot hold cannot be sent to a kernel
    text = text.encode("utf-8", "replace").decode("utf-8")[:MOST_CHARACTERS]
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    given = cell.get("id") or (metadata or {}).get("id")
    return Cell(
        str(cell["cell_type"]),
        text.replace("\r\n", "\n"),
        given if isinstance(given, str) else "",
        grade_id if isinstance(grade_id, str) else "",
    )


def chapter_of(cells: list[Cell], assignments: dict[str, Assignment]) -> str | None:
    """The chapter a notebook is, by its exercises, its setup cell or its title."""
    votes: dict[str, int] = {}
    owner = {name: a.chapter for a in assignments.values() for name in a.items}
    numbers = {stem[:2]: stem for stem in assignments}
    for cell in cells:
        for found in (*EXERCISE.findall(cell.source), *ANSWER.findall(cell.source)):
            if found in owner:
                votes[owner[found]] = votes.get(owner[found], 0) + 1
        for stem in CHAPTER.findall(cell.source):
            if stem in assignments:
                votes[stem] = votes.get(stem, 0) + 1
        for number in TITLE.findall(cell.source) if cell.kind == "markdown" else ():
            if number in numbers:
                votes[numbers[number]] = votes.get(numbers[number], 0) + 1
    return max(votes, key=lambda stem: votes[stem]) if votes else None


def likeness(cells: list[Cell], assignment: Assignment) -> float:
    """The share of the chapter's own cells that a submission holds unchanged."""
    have = {_normal(cell.source) for cell in cells}
    given = [_normal(cell.source) for cell in assignment.release.cells if not _solution(cell)]
    return sum(text in have for text in given) / len(given) if given else 0.0


def _normal(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _solution(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def merge(cells: list[Cell], assignment: Assignment) -> Merged:
    """Put the learner's cells into a fresh copy of the chapter."""
    merger = _Merger(assignment)
    for cell in cells:
        merger.take(cell)
    return merger.finish()


class _Merger:
    """Sorts submitted cells into the places of the fresh notebook."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.result = Merged(copy.deepcopy(assignment.release))
        self.fresh = self.result.nb.cells
        self.by_id = {cell.id: index for index, cell in enumerate(self.fresh)}
        self.by_grade = {
            cell.metadata.nbgrader.grade_id: index
            for index, cell in enumerate(self.fresh)
            if "nbgrader" in cell.metadata
        }
        self.by_text: dict[str, list[int]] = {}
        for index, cell in enumerate(self.fresh):
            self.by_text.setdefault(_normal(cell.source), []).append(index)
        self.by_function = {
            function: index
            for index, cell in enumerate(self.fresh)
            if _solution(cell) and (function := _first_name(cell.source))
        }
        self.stubs = {i: _normal(cell.source) for i, cell in enumerate(self.fresh)}
        self.answers: dict[int, list[Cell]] = {}
        self.helpers: dict[int, list[Cell]] = {}
        self.edited: dict[int, Cell] = {}
        self.tests_seen: set[int] = set()
        self.here = self.by_id.get("setup", 0)

    def take(self, cell: Cell) -> None:
        """Sort in one submitted cell."""
        if not cell.source.strip():
            return
        index = self._solution_index(cell)
        if index is not None:
            self.answers.setdefault(index, []).append(cell)
        elif (index := self._test_index(cell)) is not None:
            self._test(index, cell)
        elif (index := self._given_index(cell)) is not None:
            if _normal(cell.source) != self.stubs[index]:
                self.edited[index] = cell
        else:
            self.helpers.setdefault(self.here, []).append(cell)
            return
        self.here = max(index, self.by_id.get("setup", 0))

    def _solution_index(self, cell: Cell) -> int | None:
        pattern = EXERCISE if cell.kind == "code" else ANSWER
        names = pattern.findall(cell.source) or EXERCISE.findall(cell.source.split("\n", 1)[0])
        for name in (*names, cell.grade_id):
            index = self.by_grade.get(name)
            if index is not None and _solution(self.fresh[index]):
                return index
        index = self.by_id.get(cell.id)
        if index is not None and _solution(self.fresh[index]):
            return index
        return None

    def _test_index(self, cell: Cell) -> int | None:
        known = {self.by_grade.get(cell.grade_id), self.by_id.get(cell.id)}
        for index in known:
            if index is not None and self._is_test(index):
                return index
        if cell.kind != "code":
            return None
        for name in CHECK.findall(cell.source):
            index = self.by_grade.get(f"test_{name}")
            if index is not None and (
                _normal(cell.source) == self.stubs[index] or _only_checks(cell.source)
            ):
                return index
        return None

    def _is_test(self, index: int) -> bool:
        meta = self.fresh[index].metadata.get("nbgrader", {})
        return bool(meta.get("grade") and not meta.get("solution"))

    def _test(self, index: int, cell: Cell) -> None:
        self.tests_seen.add(index)
        if _normal(cell.source) != self.stubs[index] and (cell.grade_id or cell.id):
            self.result.flag(self._name(index), "its test cell was edited; the course's was used")

    def _given_index(self, cell: Cell) -> int | None:
        index = self.by_id.get(cell.id)
        if index is not None and self.fresh[index].cell_type == cell.kind:
            return index
        return next(iter(self.by_text.get(_normal(cell.source), [])), None)

    def _name(self, index: int) -> str:
        return str(self.fresh[index].metadata.nbgrader.grade_id.removeprefix("test_"))

    def finish(self) -> Merged:
        """The fresh notebook with everything in its place."""
        self._find_lost()
        before: dict[int, list[Cell]] = {}
        for index, cells in self.answers.items():
            before[index] = self._answer(index, cells)
        for index in range(len(self.fresh)):
            if self._is_test(index) and index not in self.tests_seen:
                self.result.flag(self._name(index), "its test cell was missing; the course's ran")
        for index, cell in self.edited.items():
            self._course_cell(index, cell)
        merged: list[NotebookNode] = []
        for index, fresh in enumerate(self.fresh):
            merged += _helpers(before.get(index, []), f"before-{index}")
            merged.append(fresh)
            merged += _helpers(self.helpers.get(index, []), f"helper-{index}")
        self.result.nb.cells = merged
        return self.result

    def _find_lost(self) -> None:
        """Exercises without a known cell: a cell that defines the stub's function is theirs."""
        for function, index in self.by_function.items():
            if index in self.answers:
                continue
            for place, helpers in self.helpers.items():
                found = [c for c in helpers if c.kind == "code" and _defines(c.source, function)]
                if found:
                    self.answers[index] = found
                    self.helpers[place] = [c for c in helpers if c not in found]
                    self.result.flag(
                        self._name(index), f"its cell was known only by its function {function}"
                    )
        for index, cell in enumerate(self.fresh):
            if _solution(cell) and index not in self.answers:
                self.result.flag(self._name(index), "its cell was missing")

    def _answer(self, index: int, cells: list[Cell]) -> list[Cell]:
        """Put the last answer that differs from the stub in; earlier ones run before it."""
        stub = self.stubs[index]
        tried = [cell for cell in cells if _normal(cell.source) != stub]
        if len(cells) > 1:
            says = f"{len(cells)} cells of this exercise; the last one that was changed counts"
            self.result.flag(self._name(index), says)
        if not tried:
            return []
        target = self.fresh[index]
        if target.cell_type == "code":
            target.source = tried[-1].source
            if not EXERCISE.search(target.source):
                target.source = f"# exercise: {self._name(index)}\n{target.source}"
            return [cell for cell in tried[:-1] if cell.kind == "code"]
        target.source = "\n\n".join(cell.source for cell in tried)
        return []

    def _course_cell(self, index: int, cell: Cell) -> None:
        """A cell of the course that the learner changed runs as they left it; setup does not."""
        fresh = self.fresh[index]
        if cell.kind == "markdown":
            return
        if fresh.id != "setup":
            fresh.source = cell.source
            self.result.flag("", "cells of the course were edited")
            return
        ours = set(_normal(fresh.source).splitlines())
        added = [
            line
            for line in cell.source.splitlines()
            if line.rstrip() not in ours and "setup(" not in line and line.strip()
        ]
        if added:
            self.helpers.setdefault(index, []).insert(0, Cell("code", "\n".join(added)))
        self.result.flag("", "the setup cell was edited; the course's was used")


def _helpers(cells: list[Cell], prefix: str) -> list[NotebookNode]:
    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell}
    return [
        make[cell.kind](cell.source, id=f"{prefix}-{number}") for number, cell in enumerate(cells)
    ]


def _first_name(source: str) -> str:
    """The first function or variable that a cell defines."""
    found = re.search(r"^(?:def|class)\s+(\w+)|^(\w+)\s*(?::[^=\n]+)?=(?!=)", source, re.M)
    return (found[1] or found[2]) if found else ""


def _defines(source: str, name: str) -> bool:
    pattern = rf"^(?:def|class)\s+{name}\b|^{name}\s*(?::[^=\n]+)?=(?!=)"
    return re.search(pattern, source, re.M) is not None


def _only_checks(source: str) -> bool:
    """True when a cell does nothing but import and call check: a test cell without its metadata."""
    if len(source) > MOST_TEST_CHARACTERS:
        return False
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id == "check"
        )
        for node in tree.body
    )
