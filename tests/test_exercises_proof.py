"""Every registered check, proven: right answers pass, the stub scores 0, wrong ones are caught."""

from __future__ import annotations

import pytest

from course_utils._proof import prove
from course_utils.authoring.chapters import list_chapters
from course_utils.checks import Exercise
from course_utils.exercises import all_exercises, get_exercise
from course_utils.paths import notebooks_dir

EXERCISES = list(all_exercises().values())


@pytest.mark.parametrize("exercise", EXERCISES, ids=[exercise.name for exercise in EXERCISES])
def test_proof(exercise: Exercise) -> None:
    rows = prove(exercise)
    failed = [f"{row.kind} {row.label!r}: {row.message}" for row in rows if not row.ok]
    assert not failed, "\n".join(failed)
    assert len(exercise.wrong) >= 3 and exercise.other_right, "declare more answers"
    says = [wrong.says for wrong in exercise.wrong.values()]
    assert len(set(says)) == len(says), "each wrong answer has a message of its own"


@pytest.mark.parametrize("exercise", EXERCISES, ids=[exercise.name for exercise in EXERCISES])
def test_belongs_to_a_chapter(exercise: Exercise) -> None:
    assert exercise.chapter in list_chapters(notebooks_dir() / "source", ".py")
    assert get_exercise(exercise.name) is exercise
