"""What is graded: a chapter in one version of the course, with its hidden tests."""

from __future__ import annotations

import copy
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_utils.authoring.build import instructor_notebook, release
from course_utils.authoring.chapters import list_chapters
from course_utils.checks import Exercise
from course_utils.errors import CourseError


@dataclass
class Item:
    """One graded thing of a chapter: an exercise with its test, or a free-text answer.

    Attributes:
        name: of the exercise or the answer.
        points: the most it can earn.
        grade_id: of the cell that nbgrader grades.
        free_text: an instructor marks it.
    """

    name: str
    points: float
    grade_id: str
    free_text: bool = False


@dataclass
class Assignment:
    """A chapter in one version of the course.

    Attributes:
        chapter: such as ``"02_sft"``.
        source: nbgrader's source version: solutions and hidden tests between their markers.
        version: a label; empty for the version that grades.
        root: folder of the course of that version; None for the one that grades.
    """

    chapter: str
    source: NotebookNode
    version: str = ""
    root: Path | None = None

    @property
    def id(self) -> str:
        """The name of nbgrader's assignment."""
        return f"{self.chapter}-{self.version}" if self.version else self.chapter

    @cached_property
    def release(self) -> NotebookNode:
        """What learners get."""
        nb = copy.deepcopy(self.source)
        release(nb, self.chapter)
        return nb

    @cached_property
    def solved(self) -> NotebookNode:
        """The solution, with the hidden tests."""
        nb = copy.deepcopy(self.source)
        release(nb, self.chapter, solved=True)
        return nb

    @cached_property
    def items(self) -> dict[str, Item]:
        """Everything graded, by name, in the chapter's order."""
        found = {}
        for cell in self.source.cells:
            meta = cell.metadata.get("nbgrader", {})
            if meta.get("grade"):
                free = bool(meta["solution"])
                name = meta["grade_id"] if free else meta["grade_id"].removeprefix("test_")
                found[name] = Item(name, float(meta["points"]), meta["grade_id"], free)
        return found

    @cached_property
    def digest(self) -> str:
        """Changes when anything in the chapter's source version does."""
        text = "\0".join(f"{cell.id}\0{cell.source}" for cell in self.source.cells)
        points = "".join(f"{item.name}={item.points};" for item in self.items.values())
        return hashlib.sha256(f"{text}\0{points}".encode()).hexdigest()[:16]


def own_assignments(
    sources: Mapping[str, Path], exercises: Mapping[str, Exercise] | None = None
) -> dict[str, Assignment]:
    """The chapters of this course, by stem."""
    return {
        stem: Assignment(stem, instructor_notebook(path, exercises))
        for stem, path in sources.items()
    }


def other_assignments(root: Path) -> dict[str, Assignment]:
    """The chapters of another version, whose clone stands in `root`.

    That version's own code writes them, and grades with its own checks.
    """
    if not (root / "course_utils" / "__main__.py").is_file():
        raise CourseError(f"{root} holds no course: give the folder of another version's clone.")
    with tempfile.TemporaryDirectory(prefix="course-version-") as folder:
        env = {**os.environ, "PYTHONPATH": python_path(root)}
        line = [sys.executable, "-m", "course_utils", "grade", "--export-sources", folder]
        done = subprocess.run(line, cwd=root, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CourseError(f"The course in {root} cannot be read: {reason}")
        label = re.sub(r"[^\w.-]", "_", root.name) or "other"
        return {
            stem: Assignment(stem, nbformat.read(path, as_version=4), label, root)
            for stem, path in list_chapters(Path(folder), ".ipynb").items()
        }


def python_path(root: Path) -> str:
    """PYTHONPATH for the course in `root`, before what we were given."""
    parts = [str(root), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(part for part in parts if part)
