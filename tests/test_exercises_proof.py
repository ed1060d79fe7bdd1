"""Every registered check, proven: right answers pass, the stub scores 0, wrong ones are caught."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from course_utils._proof import prove
from course_utils.authoring.build import build_notebook
from course_utils.authoring.chapters import list_chapters
from course_utils.authoring.exercise_table import reason
from course_utils.checks import Exercise
from course_utils.exercises import all_exercises, get_exercise
from course_utils.paths import notebooks_dir

EXERCISES = list(all_exercises().values())
NAMES = [exercise.name for exercise in EXERCISES]
SOURCES = list_chapters(notebooks_dir() / "source", ".py")


@pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)
def test_proof(exercise: Exercise) -> None:
    rows = prove(exercise)
    failed = [f"{row.kind} {row.label!r}: {row.message}" for row in rows if not row.ok]
    assert not failed, "\n".join(failed)
    assert len(exercise.wrong) >= 5 and len(exercise.other_right) >= 2, "declare more answers"
    says = [reason(row.message) for row in rows if row.kind == "wrong"]
    twice = [text for text, count in Counter(says).items() if count > 1]
    assert not twice, "each wrong answer has a message of its own"
    # what only the hint says would be said to every wrong answer
    assert not [wrong.says for wrong in exercise.wrong.values() if wrong.says in exercise.hint]


def test_enough_is_proven() -> None:
    assert sum(len(exercise.wrong) for exercise in EXERCISES) >= 200
    assert len(EXERCISES) >= 40


@pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)
def test_belongs_to_a_chapter(exercise: Exercise) -> None:
    assert exercise.chapter in SOURCES
    assert exercise.hint and exercise.title
    assert get_exercise(exercise.name) is exercise


@pytest.mark.parametrize("chapter", SOURCES)
def test_a_chapter_has_exercises_with_typed_stubs_and_a_free_text_answer(chapter: str) -> None:
    nb = build_notebook(SOURCES[chapter])
    cells = {cell.id: cell.source for cell in nb.cells}
    names = [exercise.name for exercise in EXERCISES if exercise.chapter == chapter]
    assert len(names) >= 2
    given = {cell.removeprefix("exercise-") for cell in cells if cell.startswith("exercise-")}
    assert given == set(names)
    assert any(cell.startswith("answer-") for cell in cells)
    for name in names:
        stub = next(
            node
            for node in ast.parse(cells[f"exercise-{name}"]).body
            if isinstance(node, ast.FunctionDef)
        )
        untyped = [arg.arg for arg in stub.args.args + stub.args.kwonlyargs if not arg.annotation]
        assert stub.name == name and stub.returns is not None and not untyped
        assert ast.unparse(stub.body[-1]) == "..."
