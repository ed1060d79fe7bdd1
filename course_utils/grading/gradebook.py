"""The nbgrader course directory: what it holds, entering results, reading grades, feedback.

Notebooks are run elsewhere (``pool``); here the finished runs pass through nbgrader's own
autograding, so that its gradebook, its feedback and its formgrader all work on them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from course_utils.authoring.build import CODE_STUB, TEXT_STUB
from course_utils.errors import CourseError
from course_utils.grading.assignments import Assignment
from course_utils.paths import runs_dir

COURSE_ID = "rlhf-course"
EXECUTE = "course_utils.grading.execute.Execute"

CONFIG = '''"""nbgrader's settings for this folder: start jupyter lab here, open Formgrader."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "{course_id}"
c.CourseDirectory.root = {root!r}
c.ClearSolutions.code_stub = {code_stub!r}
c.ClearSolutions.text_stub = {text_stub!r}
# Warnings and progress bars on stderr cost nothing.
c.Execute.runs = {runs!r}
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"[\\s\\S]*"
# The formgrader's autograde button runs submissions as `python -m course_utils grade` does:
# without the environment's secrets, with limits, without a network where the machine permits it.
c.Autograde.autograde_preprocessors = [
    "{execute}",
    "nbgrader.preprocessors.IgnorePattern",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
'''


@dataclass
class Grade:
    """What the gradebook says of one graded cell."""

    points: float
    max_points: float
    needs_manual: bool
    manual: bool


class Book:
    """An nbgrader course directory."""

    def __init__(self, root: Path) -> None:
        from nbgrader.apps.api import NbGraderAPI
        from nbgrader.coursedir import CourseDirectory

        self.root = root.resolve()
        if any(sign in str(self.root) for sign in "*?["):
            raise CourseError(f"{self.root}: nbgrader takes no folder with *, ? or [ in its name.")
        self.root.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(
            course_id=COURSE_ID,
            root=str(self.root),
            code_stub=CODE_STUB,
            text_stub=TEXT_STUB,
            execute=EXECUTE,
            runs=str(runs_dir()),
        )
        (self.root / "nbgrader_config.py").write_text(text, encoding="utf-8")
        self._executed = nbformat.v4.new_notebook()
        config = self._config()
        with _quiet():
            course = CourseDirectory(config=config)
            self.api = NbGraderAPI(coursedir=course, config=config, log_level=logging.CRITICAL)
        self.url = course.db_url

    def _config(self) -> Any:
        from traitlets.config import Config

        config = Config()
        config.CourseDirectory.root = str(self.root)
        config.CourseDirectory.course_id = COURSE_ID
        config.ClearSolutions.code_stub = CODE_STUB
        config.ClearSolutions.text_stub = TEXT_STUB
        config.IgnorePattern.enabled = True
        config.IgnorePattern.pattern = r"[\s\S]*"
        names = ("IgnorePattern", "LimitOutput", "SaveAutoGrades", "CheckCellMetadata")
        rest = [f"nbgrader.preprocessors.{name}" for name in names]
        config.Autograde.autograde_preprocessors = [self._put_outputs, *rest]
        return config

    def _put_outputs(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Stands where nbgrader would execute: the run has been made already."""
        for cell, ran in zip(nb.cells, self._executed.cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        return nb, resources

    def register(self, assignment: Assignment) -> None:
        """Write the assignment's source version and let nbgrader make its release version."""
        folder = self.root / "source" / assignment.id
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(assignment.source, folder / f"{assignment.id}.ipynb")
        with _quiet():
            result = self.api.generate_assignment(assignment.id, force=True, create=True)
        if not result["success"]:
            raise CourseError(
                f"{self.root}: the exercises of {assignment.id} are not those that this folder was "
                "begun with; grade into a new one with --course DIR."
                if "Cannot add or remove" in str(result)
                else f"nbgrader could not make {assignment.id}: {_last_line(result)}"
            )

    def record(
        self, student_id: str, name: str, assignment: Assignment,
        submitted: NotebookNode, executed: NotebookNode,
    ) -> None:  # fmt: skip
        """Enter a finished run: nbgrader restores the tests, reads the points, keeps the file."""
        folder = self.root / "submitted" / student_id / assignment.id
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(submitted, folder / f"{assignment.id}.ipynb")
        self._executed = executed
        with _quiet():
            result = self.api.autograde(assignment.id, student_id, force=True, create=True)
        if not result["success"]:
            raise CourseError(f"nbgrader could not enter {name}: {_last_line(result)}")
        with self.open() as book:
            book.update_or_create_student(student_id, first_name=name, last_name="")

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """The gradebook."""
        from nbgrader.api import Gradebook

        with Gradebook(self.url, COURSE_ID) as book:
            yield book

    def grades(self, student_id: str, assignment: Assignment) -> dict[str, Grade]:
        """Grades by item name; empty when nothing was entered."""
        from nbgrader.api import MissingEntry

        names = {item.grade_id: item.name for item in assignment.items.values()}
        with self.open() as book:
            try:
                found = book.find_submission_notebook(assignment.id, assignment.id, student_id)
            except MissingEntry:
                return {}
            return {
                names[grade.name]: Grade(
                    float(grade.score or 0.0),
                    float(grade.max_score),
                    bool(grade.needs_manual_grade),
                    grade.manual_score is not None,
                )
                for grade in found.grades
                if grade.name in names
            }

    def mark(self, student_id: str, assignment: Assignment, name: str, points: float) -> None:
        """Enter an instructor's points for one item."""
        grade_id = assignment.items[name].grade_id
        with self.open() as book:
            grade = book.find_grade(grade_id, assignment.id, assignment.id, student_id)
            grade.manual_score, grade.needs_manual_grade = points, False
            book.db.commit()

    def autograded(self, student_id: str, assignment: Assignment) -> Path:
        """The executed notebook."""
        folder = self.root / "autograded" / student_id / assignment.id
        return folder / f"{assignment.id}.ipynb"

    def feedback(self, student_id: str, assignment: Assignment, target: Path) -> None:
        """One HTML page with the outputs, the points and the instructor's comments."""
        with _quiet():
            result = self.api.generate_feedback(assignment.id, student_id, force=True)
        page = self.root / "feedback" / student_id / assignment.id / f"{assignment.id}.html"
        if not result["success"] or not page.is_file():
            raise CourseError(f"nbgrader could not write feedback: {_last_line(result)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)


def _last_line(result: dict[str, Any]) -> str:
    if "KeyboardInterrupt" in str(result.get("error")):  # nbgrader catches that one too
        raise KeyboardInterrupt
    text = str(result.get("error") or result.get("log") or "no reason given").strip()
    log = [line for line in str(result.get("log", "")).splitlines() if "Error" in line]
    return (log or text.splitlines())[-1][:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """nbgrader logs every step, and what goes wrong comes back in its result.

    It also calls the program alembic, which stands beside our Python and not always on the PATH.
    """
    previous, path = logging.root.manager.disable, os.environ.get("PATH", "")
    logging.disable(logging.CRITICAL)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ["PATH"] = path
        logging.disable(previous)
