"""The learner's own view: points add up, the best try counts, a damaged record reads as empty."""

from __future__ import annotations

import json
from pathlib import Path

import grading_course as course
import pytest

import course_utils
from course_utils import check, exercises


@pytest.fixture(autouse=True)
def book(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "progress.json"
    monkeypatch.setattr(exercises, "all_exercises", lambda: course.EXERCISES)
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    return path


def test_nothing_done() -> None:
    found = course_utils.progress()
    assert [chapter.chapter for chapter in found.chapters] == ["00_start", "03_sums"]
    assert (found.points, found.possible, found.done) == (0, 2 + 2 + 3 + 3, ())
    assert {chapter.status for chapter in found.chapters} == {"not begun"}


def test_points_add_up_and_the_best_try_counts(capsys: pytest.CaptureFixture[str]) -> None:
    check("negate", lambda x: -x)
    check("double", lambda x: 2 * x)
    check("double", lambda x: x)
    check("total", lambda values: sum(values) if values else None)  # 1 of 3
    found = course_utils.progress()
    start, sums = found.chapters
    assert (start.points, start.right, start.status) == (2, 1, "done")
    assert (sums.points, sums.possible, sums.right, sums.tried) == (2 + 1, 8, 1, 2)
    assert sums.status == "begun" and found.done == ("00_start",)
    capsys.readouterr()


def test_text_and_html_show_the_same(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check("negate", lambda x: -x)
    found = course_utils.progress()
    text, page = repr(found), found._repr_html_()
    assert text.splitlines()[0] == "2 of 10 points, 1 of 2 chapters done"
    assert "00_start      2 of 2    1 of 1 right  done" in text
    assert f"kept in {book}" in text and str(book) in page
    assert "2 of 10 points, 1 of 2 chapters done" in page and "<td>2 of 2</td>" in page
    capsys.readouterr()


def test_a_damaged_record_is_no_obstacle(book: Path) -> None:
    book.write_text("{half")
    assert course_utils.progress().points == 0
    entries = {"double": {"best": 99}, "total": {"best": "many"}, "gone": {"best": 1}}
    book.write_text(json.dumps(entries))
    assert course_utils.progress().points == 2  # no more than the exercise gives


def test_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    assert "nothing is kept" in repr(course_utils.progress())


def test_the_name_stays_the_function() -> None:
    import course_utils._progress_view

    assert callable(course_utils.progress) and course_utils._progress_view.progress
