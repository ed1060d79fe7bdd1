"""Proof of a check: what is right passes, the stub scores nothing, what is wrong is caught."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from course_utils.checks import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, evaluate

PROOF_SEEDS = (0, 1, 2)
PROOF_SECONDS = "300"  # an answer that imports a library may take long on a busy machine


@dataclass(frozen=True)
class ProofRow:
    """One answer put to one check: what kind it is, how it scored, whether that is as it should."""

    exercise: str
    kind: str
    label: str
    score: float
    points: float
    message: str
    ok: bool


def prove(exercise: Exercise, seeds: tuple[int, ...] = PROOF_SEEDS) -> list[ProofRow]:
    """Put every declared answer to the check, on several seeds.

    The solution and every `other_right` must score full on each seed, the stub must be "not
    attempted", and each `wrong` must score less with a message that contains its own words.
    """
    with _patience():
        return list(_rows(exercise, seeds))


def _rows(exercise: Exercise, seeds: tuple[int, ...]) -> Iterator[ProofRow]:
    yield _proof(exercise, "solution", "solution", exercise.solution, seeds)
    stub = _stub if callable(exercise.solution) else ...
    yield _proof(exercise, "stub", "...", stub, seeds)
    for index, answer in enumerate(exercise.other_right, start=1):
        label = f"{index} {getattr(answer, '__name__', 'value')}"
        yield _proof(exercise, "other right", label, answer, seeds)
    for label, wrong in exercise.wrong.items():
        yield _proof(exercise, "wrong", label, wrong.answer, seeds, wrong.says)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """The proof is about what answers return, not about how soon."""
    before = os.environ.get("COURSE_CHECK_SECONDS")
    os.environ["COURSE_CHECK_SECONDS"] = before or PROOF_SECONDS
    try:
        yield
    finally:
        if before is None:
            del os.environ["COURSE_CHECK_SECONDS"]


def _stub(*args: Any, **kwargs: Any) -> None:
    """What a learner has before writing anything."""


def _proof(
    exercise: Exercise, kind: str, label: str, answer: Any, seeds: tuple[int, ...], says: str = ""
) -> ProofRow:
    scores = [evaluate(exercise, answer, [seed]) for seed in seeds]
    if kind in ("solution", "other right"):
        ok, shown = all(score.status == RIGHT for score in scores), min(scores)
    elif kind == "stub":
        ok, shown = all(score.status == NOT_ATTEMPTED for score in scores), max(scores)
    else:
        caught = [score.status == WRONG and says in score.message for score in scores]
        ok = bool(says) and all(caught)
        shown = scores[caught.index(False)] if False in caught else max(scores)
    return ProofRow(
        exercise.name, kind, label, float(shown), float(exercise.points), shown.message, ok
    )
