"""``python -m course_utils build``: notebooks/source/NN_name.py -> notebooks/NN_name.ipynb.

A source is a jupytext percent file. The builder adds the links, the Colab bootstrap and the
exercise cards, turns ``exercise=``, ``test=`` and ``answer=`` into nbgrader's metadata, takes the
solutions and hidden tests out with nbgrader's own preprocessors, executes the result and records
its outputs.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from course_utils.authoring.chapters import BADGE, list_chapters, select, write_atomically
from course_utils.checks import Exercise
from course_utils.colab import bootstrap_source, repository_url
from course_utils.errors import CourseError, unknown_name
from course_utils.paths import notebooks_dir

REF = "main"
COLAB = "https://colab.research.google.com/github"
CODE_STUB, TEXT_STUB = {"python": "..."}, "*Write your answer here.*"
LEGAL_KEYS = ("tags", "exercise", "test", "answer", "points")
_JUPYTEXT_KEYS = ("lines_to_next_cell", "lines_to_end_of_cell_marker", "cell_marker")
_TITLE = re.compile(r"# (\d\d) · (\S.*)")
_MAGIC = re.compile(r"^(\s*)# (%{1,2}[a-z]|!\s*[\w./~])", re.M)
_MARKER = re.compile(r"^\s*### (BEGIN|END) (SOLUTION|HIDDEN TESTS)[ \t]*$\n?", re.M)


def build_notebook(
    source: Path, exercises: Mapping[str, Exercise] | None = None, solved: bool = False
) -> NotebookNode:
    """Build one chapter without executing it.

    Args:
        source: ``notebooks/source/NN_name.py``; its neighbours give the previous and next links.
        exercises: the registered exercises by name; default all of the course's.
        solved: keep solutions and hidden tests (without their markers).

    Raises:
        CourseError: names the file and the cell.
    """
    if exercises is None:
        from course_utils.exercises import all_exercises

        exercises = all_exercises()
    nb = _read(source)
    _Expander(source, exercises).expand(nb)
    release(nb, source.name, solved)
    return nb


def instructor_notebook(
    source: Path, exercises: Mapping[str, Exercise] | None = None
) -> NotebookNode:
    """Build one chapter as nbgrader's source version: solutions and hidden tests in their markers.

    ``release(nb, name)`` makes of it what ``build_notebook`` gives.

    Raises:
        CourseError: names the file and the cell.
    """
    if exercises is None:
        from course_utils.exercises import all_exercises

        exercises = all_exercises()
    nb = _read(source)
    _Expander(source, exercises).expand(nb)
    for cell in nb.cells:
        if cell.id.startswith("answer-"):
            cell.source = f"### BEGIN SOLUTION\n{cell.source}\n### END SOLUTION"
            _note_answer(cell)
    _sign(nb)
    return nb


def chapter_title(source: Path) -> str:
    """``02 · Supervised fine-tuning``, from the first heading of the source."""
    for line in source.read_text(encoding="utf-8").splitlines():
        if line.startswith("# # "):
            found = _TITLE.fullmatch(line[2:].strip())
            if found and source.name.startswith(f"{found[1]}_"):
                return line[4:].strip()
            break
    number = source.name[:2]
    raise CourseError(f"{source.name}: the first cell must start with '# {number} · Title'.")


def _read(source: Path) -> NotebookNode:
    try:
        import jupytext
    except ImportError:
        raise CourseError(
            "Building needs the instructor extra: run `pip install -e '.[instructor]'`."
        ) from None
    # comment_magics off: jupytext would turn a comment such as "# copy the weights" into a command
    form = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    nb = jupytext.reads(source.read_text(encoding="utf-8"), fmt=form)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.source = _MAGIC.sub(r"\1\2", cell.source)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    nb.nbformat, nb.nbformat_minor = 4, 5
    return nb


class _Expander:
    """Turns the source's short cell headers into the notebook's full cells."""

    def __init__(self, source: Path, exercises: Mapping[str, Exercise]) -> None:
        self.source, self.exercises = source, exercises
        self.chapter = source.stem
        self.grade_ids: set[str] = set()
        self.untested: list[str] = []
        self.counts: dict[str, int] = {}
        self.where = source.name

    def expand(self, nb: NotebookNode) -> None:
        title = chapter_title(self.source)
        cells: list[NotebookNode] = []
        setups = 0
        for number, cell in enumerate(nb.cells, start=1):
            first = cell.source.strip().splitlines()[0][:50] if cell.source.strip() else "empty"
            self.where = f"{self.source.name}, cell {number} ({first})"
            header = self._header(cell)
            self._markers(cell.source)
            cell.id = ""
            if number == 1:
                self._navigation(cell, title)
            elif "setup" in cell.metadata.get("tags", []):
                setups += 1
                self._setup(cell)
            for key, handle in self._handlers().items():
                if key in header:
                    cells.extend(handle(cell, header))
            cell.id = cell.id or self._content_id(cell)
            cells.append(cell)
        self.where = self.source.name
        if setups != 1:
            raise self._error(f"{setups} cells are tagged setup; there must be one")
        if self.untested:
            raise self._error(f"exercise {self.untested[0]!r} has no test cell after it")
        for exercise in self.exercises.values():
            if exercise.chapter == self.chapter and exercise.name not in self.grade_ids:
                raise self._error(f"exercise {exercise.name!r} is registered but not used")
        nb.cells = cells

    def _handlers(self) -> dict[str, Callable[..., list[NotebookNode]]]:
        return {"exercise": self._exercise, "test": self._test, "answer": self._answer}

    def _error(self, text: str) -> CourseError:
        return CourseError(f"{self.where}: {text}.")

    def _header(self, cell: NotebookNode) -> dict[str, Any]:
        header = {key: value for key, value in cell.metadata.items() if key not in _JUPYTEXT_KEYS}
        for key in header:
            if key not in LEGAL_KEYS:
                raise self._error(str(unknown_name("cell key", key, LEGAL_KEYS)).rstrip("."))
        if len(header.keys() & {"exercise", "test", "answer"}) > 1:
            raise self._error("a cell is an exercise, a test or an answer, not two of them")
        tags = header.get("tags", [])
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        return header

    def _markers(self, source: str) -> None:
        found = re.findall(r"^\s*### (BEGIN|END) (SOLUTION|HIDDEN TESTS)", source, re.M)
        pairs = zip(found[::2], found[1::2], strict=False)
        paired = all(
            a == ("BEGIN", kind) and b == ("END", kind) for a, b in pairs for kind in [a[1]]
        )
        if len(found) % 2 or not paired:
            raise self._error("each ### BEGIN needs its own ### END")

    def _grade(self, cell: NotebookNode, grade_id: str, **kind: Any) -> None:
        if grade_id in self.grade_ids:
            raise self._error(f"{grade_id!r} is used by two cells")
        self.grade_ids.add(grade_id)
        kind = {"grade": False, "solution": False, **kind}
        cell.metadata["nbgrader"] = NotebookNode(
            schema_version=3,
            grade_id=grade_id,
            locked=kind["grade"] and not kind["solution"],
            task=False,
            **kind,
        )

    def _registered(self, name: str) -> Exercise:
        if name not in self.exercises:
            known = list(self.exercises) or ["none is registered"]
            raise self._error(str(unknown_name("exercise", name, known)).rstrip("."))
        exercise = self.exercises[name]
        if exercise.chapter != self.chapter:
            raise self._error(f"exercise {name!r} is registered for {exercise.chapter}")
        return exercise

    def _exercise(self, cell: NotebookNode, header: dict[str, Any]) -> list[NotebookNode]:
        exercise = self._registered(header["exercise"])
        if cell.cell_type != "code" or "### BEGIN SOLUTION" not in cell.source:
            raise self._error("an exercise is a code cell with ### BEGIN SOLUTION in it")
        self._grade(cell, exercise.name, solution=True)
        cell.id = f"exercise-{exercise.name}"
        # hosted notebooks lose cell metadata: this comment still tells graders which cell it is
        cell.source = _insert(cell.source, f"# exercise: {exercise.name}")
        self.untested.append(exercise.name)
        card = nbformat.v4.new_markdown_cell(exercise_card(exercise), id=f"card-{exercise.name}")
        return [card]

    def _test(self, cell: NotebookNode, header: dict[str, Any]) -> list[NotebookNode]:
        exercise = self._registered(header["test"])
        if exercise.name not in self.untested:
            raise self._error(f"no exercise {exercise.name!r} stands before this test")
        self.untested.remove(exercise.name)
        for text in (cell.source, _without_hidden(cell.source)):
            if not _ends_with_check(text, exercise.name):
                raise self._error(
                    f'a test, with and without its hidden part, ends with check("{exercise.name}", '
                    "…): its value is the grade"
                )
        self._grade(cell, f"test_{exercise.name}", grade=True, points=exercise.points)
        cell.id = f"test-{exercise.name}"
        return []

    def _answer(self, cell: NotebookNode, header: dict[str, Any]) -> list[NotebookNode]:
        name, points = header["answer"], header.get("points")
        if cell.cell_type != "markdown":
            raise self._error("an answer is a markdown cell")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", str(name)):
            raise self._error(f"answer {name!r}: use a-z, 0-9 and _ for its name")
        if not isinstance(points, int | float) or points <= 0:
            raise self._error("an answer needs points, for example points=2")
        self._grade(cell, name, grade=True, solution=True, points=points)
        cell.id = f"answer-{name}"
        return []

    def _setup(self, cell: NotebookNode) -> None:
        if self.chapter not in cell.source:
            raise self._error(f'the setup cell must call setup("{self.chapter}")')
        bootstrap = bootstrap_source(repository_url(), REF).strip("\n")
        cell.source = f"{bootstrap}\n\n{cell.source}"
        cell.id = "setup"

    def _navigation(self, cell: NotebookNode, title: str) -> None:
        if cell.cell_type != "markdown" or not cell.source.startswith(f"# {title}"):
            raise self._error(f"the first cell must be markdown that starts with '# {title}'")
        head, _, rest = cell.source.partition("\n")
        links = navigation(self.source, list_chapters(self.source.parent, ".py"))
        cell.source = f"{head}\n\n{links}\n\n{rest.lstrip()}".rstrip("\n")
        cell.id = "title"

    def _content_id(self, cell: NotebookNode) -> str:
        """From the cell's content: inserting a cell leaves the ids of the others alone."""
        text = f"{self.chapter}\n{cell.cell_type}\n{cell.source}"
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.counts[key] = self.counts.get(key, 0) + 1
        return key if self.counts[key] == 1 else f"{key}-{self.counts[key]}"


def navigation(source: Path, chapters: dict[str, Path]) -> str:
    """The line below the title: the Colab badge, the previous and the next chapter."""
    slug = re.sub(r"^https?://[^/]+/", "", repository_url().rstrip("/"))
    target = f"{COLAB}/{slug}/blob/{REF}/notebooks/{source.stem}.ipynb"
    parts = [f"[![Open in Colab]({BADGE})]({target})"]
    stems = list(chapters)
    here = stems.index(source.stem)
    if here > 0:
        previous = stems[here - 1]
        parts.append(f"Previous: [{chapter_title(chapters[previous])}]({previous}.ipynb)")
    if here + 1 < len(stems):
        following = stems[here + 1]
        parts.append(f"Next: [{chapter_title(chapters[following])}]({following}.ipynb)")
    return " | ".join(parts)


def exercise_card(exercise: Exercise) -> str:
    """The markdown above an exercise cell."""
    points = f"{exercise.points:g} point{'' if exercise.points == 1 else 's'}"
    return (
        f"**Exercise: {exercise.title}** · difficulty {exercise.difficulty} of 5 · "
        f"about {exercise.minutes} min · {points}\n\n"
        f"<details><summary>Hint</summary>\n\n{exercise.hint}\n\n</details>"
    )


def _insert(source: str, line: str) -> str:
    """Put a line at the top, below a cell magic, which must stay first."""
    head, _, rest = source.partition("\n")
    return f"{head}\n{line}\n{rest}" if head.startswith("%%") else f"{line}\n{source}"


def _without_hidden(source: str) -> str:
    return re.sub(r"^.*BEGIN HIDDEN TESTS[\s\S]*?END HIDDEN TESTS.*$\n?", "", source, flags=re.M)


def _ends_with_check(source: str, name: str) -> bool:
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        last = ast.parse(TransformerManager().transform_cell(source)).body[-1]
    except (SyntaxError, IndexError):
        return False
    if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)):
        return False
    call = last.value
    first = call.args[0] if call.args else None
    return (
        isinstance(call.func, ast.Name)
        and call.func.id == "check"
        and isinstance(first, ast.Constant)
        and first.value == name
        and not re.search(r";\s*(#.*\s*)*\Z", source)  # IPython would show no value
    )


def release(nb: NotebookNode, name: str, solved: bool = False) -> None:
    """Take solutions and hidden tests out (or only their markers), lock and sign the cells.

    Raises:
        CourseError: a marker without its partner (`name` says where), or nbgrader is missing.
    """
    from course_utils.authoring.instructor import require_nbgrader

    require_nbgrader("Building")
    from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

    clear = [
        ClearSolutions(code_stub=CODE_STUB, text_stub=TEXT_STUB),
        ClearHiddenTests(),
    ]
    resources: dict[str, Any] = {}
    try:
        for step in [] if solved else clear:
            step.preprocess(nb, resources)
    except RuntimeError as error:
        raise CourseError(f"{name}: {error}.") from error
    for cell in nb.cells:
        if cell.cell_type == "code" or cell.id.startswith("answer-"):
            cell.source = _MARKER.sub("", cell.source).rstrip("\n")
        if cell.id.startswith("answer-"):
            _note_answer(cell)
    _sign(nb)


def _note_answer(cell: NotebookNode) -> None:
    """Like the comment in exercise cells; it does not show in the rendered page."""
    note = f"<!-- answer: {cell.metadata.nbgrader.grade_id} -->"
    if note not in cell.source:
        cell.source += f"\n\n{note}"


def _sign(nb: NotebookNode) -> None:
    """No outputs; cells locked and signed as nbgrader wants them; the format's rules hold."""
    from course_utils.authoring.instructor import require_nbgrader

    require_nbgrader("Building")
    from nbgrader.nbgraderformat import MetadataValidator
    from nbgrader.preprocessors import ComputeChecksums, LockCells

    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    for step in (LockCells(), ComputeChecksums()):
        step.preprocess(nb, {})
    MetadataValidator().validate_nb(nb)
    nbformat.validate(nb)


# --- recording and checking -----------------------------------------------------------------------


def record(nb: NotebookNode, chapter: str, profile: str = "tiny", timeout: int = 900) -> None:
    """Execute a built notebook in place and keep cleaned outputs; a failing cell is an error."""
    from tqdm import tqdm

    from course_utils.authoring.execute import execute, kernel_env
    from course_utils.authoring.outputs import clean

    with tqdm(total=len(nb.cells), desc=chapter, unit="cell", file=sys.stderr) as bar:
        outcome = execute(nb, kernel_env(profile=profile), timeout, on_cell=bar.update)
    if outcome.error:
        raise CourseError(f"{chapter}, {outcome.cell}: {outcome.error}")
    clean(nb)


def dumps(nb: NotebookNode) -> str:
    """The notebook file's text: sorted keys, one space of indent, one newline at the end."""
    return str(nbformat.writes(nb)).rstrip("\n") + "\n"


def drift(built: NotebookNode, path: Path) -> str | None:
    """How a committed notebook differs from what its source builds; None when it does not."""
    if not path.exists():
        return f"{path.name} is missing"
    try:
        found = nbformat.read(path, as_version=4)
    except Exception as error:
        return f"{path.name} cannot be read ({' '.join(str(error).split())[:100]})"
    if "widgets" in found.metadata:
        return "the notebook carries widget state (metadata.widgets)"
    if found.metadata != built.metadata:
        return "the notebook's metadata differ"
    from course_utils.authoring.execute import describe

    for index, (want, have) in enumerate(zip(built.cells, found.cells, strict=False)):
        for part in ("cell_type", "source", "id", "metadata"):
            if want[part] != have[part]:
                return f"{describe(built, index)}: its {part.replace('_', ' ')} differs"
        if problem := _recorded(have):
            return f"{describe(built, index)}: {problem}"
    if len(built.cells) != len(found.cells):
        return f"it has {len(found.cells)} cells, the source gives {len(built.cells)}"
    return None


def _recorded(cell: NotebookNode) -> str | None:
    if cell.cell_type != "code":
        return None
    if cell.execution_count is not None:
        return "it carries an execution count"
    speaks = cell.id == "setup" or cell.id.startswith("test-")  # these always print
    if speaks and not cell.outputs:
        return "it was never executed"
    if any(output.output_type == "error" for output in cell.outputs):
        return "its recorded output is an error"
    return None


def check(
    sources: dict[str, Path], notebooks: Path, exercises: Mapping[str, Exercise] | None = None
) -> list[str]:
    """Compare committed notebooks with their sources; a sentence for each that drifted."""
    problems = []
    for stem, source in sources.items():
        difference = drift(build_notebook(source, exercises), notebooks / f"{stem}.ipynb")
        if difference:
            problems.append(f"{stem}: {difference}. Run `python -m course_utils build {stem}`.")
    return problems


def orphans(sources: dict[str, Path], notebooks: Path) -> list[str]:
    """Notebooks that no source builds."""
    strays = [stem for stem in list_chapters(notebooks, ".ipynb") if stem not in sources]
    return [f"{stem}: notebooks/{stem}.ipynb has no source, delete it." for stem in strays]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("chapters", nargs="*", help="such as 2 or 02_sft; default: all")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 on drift")
    parser.add_argument("--no-execute", action="store_true", help="write without outputs")
    parser.add_argument("--solved", type=Path, metavar="DIR", help="only write solved ones there")
    parser.add_argument("--profile", default="tiny", help="what to execute with (default tiny)")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one cell")
    parser.add_argument("--source", type=Path, help="folder of sources")
    parser.add_argument("--notebooks", type=Path, help="folder of built notebooks")


def main(args: argparse.Namespace) -> int:
    """Build, or with --check compare; returns the exit code."""
    from course_utils.profiles import named_profile

    named_profile(args.profile)
    notebooks = args.notebooks or notebooks_dir()
    everything = list_chapters(args.source or notebooks / "source", ".py")
    sources = select(args.chapters, everything)
    if args.check:
        problems = check(sources, notebooks)
        problems += [] if args.chapters else orphans(everything, notebooks)
        print("\n".join(problems) if problems else f"{len(sources)} notebooks match their sources.")
        return 1 if problems else 0
    for stem, source in sources.items():
        nb = build_notebook(source, solved=args.solved is not None)
        target = (args.solved or notebooks) / f"{stem}.ipynb"
        if args.solved is None and not args.no_execute:
            record(nb, stem, args.profile, args.timeout)
        write_atomically(target, dumps(nb))
        print(f"wrote {target}")
    return 0
