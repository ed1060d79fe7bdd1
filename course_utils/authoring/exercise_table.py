"""``python -m course_utils exercises``: each exercise, its wrong answers, and what is said to them.

The table is made by putting every wrong answer to its check, so it shows what learners read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from course_utils._proof import ProofRow, prove
from course_utils.authoring.chapters import write_atomically
from course_utils.checks import Exercise
from course_utils.errors import CourseError
from course_utils.paths import repo_root

HEAD = """# What the checks say to wrong answers

Written by `python -m course_utils exercises --table`; do not edit. Each answer below was put to
its check on three seeds. Points are the most that the answer earned. The message is what a learner
reads, without the hint. The same answers are run as tests (`tests/test_exercises_proof.py`): the
solution and other right ways of writing it score full, the stub scores nothing, and each wrong
answer is caught with a message of its own.
"""


def page(exercises: Iterable[Exercise]) -> str:
    """The whole page, chapter by chapter."""
    parts, wrong = [], 0
    chapter = ""
    chosen = list(exercises)
    for exercise in chosen:
        if exercise.chapter != chapter:
            chapter = exercise.chapter
            parts.append(f"## {chapter}\n")
        rows = [row for row in prove(exercise) if row.kind == "wrong"]
        wrong += len(rows)
        parts.append(section(exercise, rows))
    count = f"{len(chosen)} exercises, {wrong} wrong answers.\n"
    return "\n".join([HEAD, count, *parts])


def section(exercise: Exercise, rows: list[ProofRow]) -> str:
    """One exercise."""
    missed = [row.label for row in rows if not row.ok]
    if missed:
        raise CourseError(f"{exercise.name}: the wrong answer {missed[0]!r} is not caught.")
    lines = [
        f"### {exercise.name}",
        "",
        f"{exercise.title} · {exercise.points:g} points · difficulty {exercise.difficulty} of 5 · "
        f"{len(exercise.other_right) + 1} right answers accepted",
        "",
        "| wrong answer | points | message |",
        "|---|---|---|",
    ]
    lines += [f"| {_plain(r.label)} | {r.score:g} | {_plain(reason(r.message))} |" for r in rows]
    return "\n".join([*lines, ""])


def reason(message: str) -> str:
    """The message between the verdict and the hint; the line of the answer's own file left out."""
    text = message.partition(" Wrong: ")[2].partition(" Hint: ")[0] or message
    return re.sub(r" \(line \d+ of your cell: .*?\)(?=\.|$)", "", text)


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def target() -> Path:
    """``docs/exercise-checks.md`` of the clone."""
    root = repo_root()
    if root is None:
        raise CourseError("The table stands in the repository: run this from a clone.")
    return root / "docs" / "exercise-checks.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--table", action="store_true", help="write docs/exercise-checks.md")
    parser.add_argument("--check", action="store_true", help="exit 1 when that page is not current")


def main(args: argparse.Namespace) -> int:
    """List the exercises, or write or compare the table."""
    from course_utils.exercises import all_exercises

    exercises = all_exercises().values()
    if args.check:
        have = target().read_text(encoding="utf-8") if target().exists() else ""
        current = have == page(exercises)
        if not current:
            print("docs/exercise-checks.md is not current: run `python -m course_utils exercises "
                  "--table`.", file=sys.stderr)  # fmt: skip
        return 0 if current else 1
    if args.table:
        write_atomically(target(), page(exercises))
        print(f"wrote {target()}")
        return 0
    for exercise in exercises:
        print(f"{exercise.chapter:24} {exercise.name:24} {exercise.points:g} points")
    return 0
