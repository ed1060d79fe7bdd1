"""The tables that a grading run leaves: grades, a summary, and the free-text answers to mark."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from course_utils.authoring.chapters import write_atomically
from course_utils.errors import CourseError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would calculate


@dataclass
class Row:
    """One student and one exercise.

    `status` is right, partly right, wrong, not attempted, needs marking, marked, stopped or
    not graded; `flags` and `message` say why.
    """

    student: str
    chapter: str
    exercise: str
    points: float
    max_points: float
    status: str
    needs_manual: bool = False
    flags: str = ""
    message: str = ""
    file: str = ""


@dataclass
class Total:
    """One student and one chapter."""

    student: str
    chapter: str
    points: float
    max_points: float
    needs_manual: int
    status: str
    flags: str
    seconds: float
    file: str


@dataclass
class Answer:
    """One free-text answer; an instructor fills in `points`."""

    student: str
    chapter: str
    exercise: str
    max_points: float
    points: str
    answer: str


@dataclass
class Report:
    """Everything that the tables show."""

    rows: list[Row] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


def beside(out: Path, what: str) -> Path:
    """``grades.csv`` and ``"summary"`` give ``grades-summary.csv``."""
    return out.with_name(f"{out.stem}-{what}.csv")


def write(report: Report, out: Path) -> None:
    """Write the three tables."""
    write_atomically(out, table(report.rows, Row))
    write_atomically(beside(out, "summary"), table(report.totals, Total))
    write_atomically(beside(out, "answers"), table(report.answers, Answer))


def table(entries: Iterable[Any], kind: type) -> str:
    """CSV text; a text that a spreadsheet would run as a formula gets an apostrophe."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(kind.__dataclass_fields__), lineterminator="\n")  # type: ignore[attr-defined]
    writer.writeheader()
    for entry in entries:
        writer.writerow({key: _cell(value) for key, value in asdict(entry).items()})
    return sink.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        value = value.replace("\0", "")
        return f"'{value}" if value.startswith(FORMULA) else value
    return value


def read_marks(out: Path) -> dict[tuple[str, str, str], tuple[float, str]]:
    """What an instructor entered into the table of answers: by student, chapter and exercise, the
    points and the answer that they are for.

    Raises:
        CourseError: an entry is no number.
    """
    path = beside(out, "answers")
    if not path.is_file():
        return {}
    marks = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            given = (line.get("points") or "").strip().replace(",", ".")
            if not given:
                continue
            try:
                points = float(given)
            except ValueError:
                raise CourseError(
                    f"{path.name}, line {number}: points {given!r} is no number."
                ) from None
            names = [line.get(key) or "" for key in ("student", "chapter", "exercise")]
            student, chapter, exercise = (name.removeprefix("'") for name in names)
            marks[student, chapter, exercise] = (points, line.get("answer") or "")
    return marks


def shown(totals: list[Total]) -> str:
    """The summary for the screen."""
    lines = []
    for total in totals:
        marking = f", {total.needs_manual} to mark" if total.needs_manual else ""
        note = f" · {total.flags}" if total.flags else ""
        lines.append(
            f"{total.student} · {total.chapter or 'unknown chapter'} · "
            f"{total.points:g} of {total.max_points:g}{marking}{note}"
        )
    return "\n".join(lines)


def plain_page(title: str, text: str) -> str:
    """Feedback for a submission that could not be run."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n<p>{html.escape(text)}</p></body></html>\n"
    )
