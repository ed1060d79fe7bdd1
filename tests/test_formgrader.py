"""The course folder opens in nbgrader's formgrader: a real Jupyter server, asked page by page."""

from __future__ import annotations

import json
import os
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grading_course as course
import pytest
from grading_course import CHAPTER, EXERCISES, RIGHT, answer, released, write
from lab_pages import PATIENCE, TOKEN, jupyter

from course_utils.__main__ import main
from course_utils.paths import PACKAGE

pytest.importorskip("jupyter_server")
pytestmark = pytest.mark.slow

TESTS = str(Path(__file__).parent)
STUDENT = "Ada Ñandú"
TOTAL = "def total(values):\n    return 0"  # right of nothing only: 2 of its 3 points

Page = Callable[[str], str]


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `grades-course/`, as an instructor has it after grading one submission."""
    folder = tmp_path_factory.mktemp("class")
    source = course.write_sources(folder)
    write(
        folder / "in" / STUDENT / f"{CHAPTER}.ipynb",
        answer(released(source), **{**RIGHT, "total": TOTAL}),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)
        patch.setenv("COURSE_RUNS", str(folder / "runs"))
        patch.setattr("course_utils.exercises.all_exercises", lambda: EXERCISES)
        line = ["grade", str(folder / "in"), "--out", str(folder / "grades.csv")]
        assert main([*line, "--source", str(source), "--chapter", "3"]) == 0
    return folder / "grades-course"


def _page(port: int, path: str) -> str:
    address = f"http://127.0.0.1:{port}/formgrader{path}"
    request = urllib.request.Request(address, headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return str(reply.read().decode())


@pytest.fixture(scope="module")
def page(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """`page("/api/assignments")` from a server that was started in the course folder."""
    home = tmp_path_factory.mktemp("home")
    env = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{TESTS}",
    }
    with jupyter("jupyter_server", graded, home, **env) as port:
        yield lambda path: _page(port, path)


def _found(page: Page, path: str) -> Any:
    return json.loads(page(path))


def test_the_pages_an_instructor_begins_with(page: Page) -> None:
    for path in ("/manage_assignments", f"/manage_submissions/{CHAPTER}", "/manage_students"):
        text = page(path)
        assert "<title>nbgrader" in text
        assert "Sorry, the formgrader encountered an error" not in text
    assert "rlhf-course" in page("/manage_assignments")  # the folder's own settings were read


def test_the_chapter_and_its_points_are_listed(page: Page) -> None:
    (listed,) = _found(page, "/api/assignments")
    assert listed["name"] == CHAPTER and listed["num_submissions"] == 1
    assert (listed["max_score"], listed["average_score"]) == (10, 7)
    (student,) = _found(page, "/api/students")
    assert student["first_name"] == STUDENT and student["score"] == 7


def test_a_submission_shows_with_points_and_with_its_answer_to_mark(page: Page) -> None:
    (listed,) = _found(page, f"/api/submissions/{CHAPTER}")
    assert listed["autograded"] and listed["needs_manual_grade"]
    where = urllib.parse.quote(f"/api/submitted_notebooks/{CHAPTER}/{CHAPTER}")
    (notebook,) = _found(page, where)
    text = page(f"/submissions/{notebook['id']}/")
    assert "Padding carries no meaning." in text
    assert "total: 2 of 3 points" in text
    grades = _found(page, f"/api/grades?submission_id={notebook['id']}")
    by_name = {grade["name"]: (grade["auto_score"], grade["max_score"]) for grade in grades}
    assert by_name["test_double"] == (2, 2) and by_name["test_total"] == (2, 3)
    assert [g["name"] for g in grades if g["needs_manual_grade"]] == ["why_keep"]
