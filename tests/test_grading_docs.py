"""The instructor's pages are current: every wrong answer is in the table, every option exists."""

from __future__ import annotations

import re

import pytest

from course_utils.__main__ import build_parser
from course_utils.authoring.exercise_table import page, reason, target
from course_utils.exercises import all_exercises
from course_utils.paths import repo_root

ROOT = repo_root()
assert ROOT


def sections() -> dict[str, list[list[str]]]:
    """The table's rows by exercise."""
    found: dict[str, list[list[str]]] = {}
    for line in target().read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            rows = found.setdefault(line[4:], [])
        elif line.startswith("| ") and not line.startswith("| wrong answer"):
            rows.append([part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def test_the_table_holds_every_wrong_answer_and_no_other() -> None:
    table = sections()
    exercises = all_exercises()
    assert list(table) == list(exercises), "run `python -m course_utils exercises --table`"
    for name, exercise in exercises.items():
        plain = [re.sub(r"\\([|*])", r"\1", row[0]).replace("&lt;", "<") for row in table[name]]
        assert plain == [" ".join(label.split()) for label in exercise.wrong], name
        for row in table[name]:
            assert float(row[1]) < exercise.points and row[2]


def test_a_page_is_made_by_running_the_checks() -> None:
    exercise = all_exercises()["two_rates"]
    text = page([exercise])
    assert "1 exercises, 6 wrong answers." in text
    assert "| swapped | 0 | the two rates are swapped. |" in text
    assert text[text.index("### two_rates") :].strip() in target().read_text(encoding="utf-8")


def test_the_reason_stands_between_verdict_and_hint() -> None:
    message = "x: 1 of 2 points. Wrong: no (line 3 of your cell: return y(1)). Hint: look."
    assert reason(message) == "no."


@pytest.mark.slow
def test_the_table_is_current() -> None:
    from course_utils.__main__ import main

    assert main(["exercises", "--check"]) == 0


def test_the_guide_names_options_that_exist() -> None:
    guide = (ROOT / "docs" / "instructor-guide.md").read_text(encoding="utf-8")
    helps = []
    for name in ("grade", "exercises"):
        parser = build_parser(name)
        choices = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
        helps.append(choices[name].format_help())
    known = " ".join(helps)
    used = set(re.findall(r"`(--[a-z-]+)", guide)) | {"--table", "--export-nbgrader", "--out"}
    assert used <= set(re.findall(r"--[a-z-]+", known)), used
    for name in re.findall(r"`((?:course_utils|notebooks|tests)/[\w/.]+)`", guide):
        if "NN" not in name:
            assert (ROOT / name).exists(), name
