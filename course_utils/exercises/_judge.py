"""Verdicts that name the likely mistake: the declared wrong answer that gives the same result."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

from course_utils.checks import Part, Wrong, close

NAMING = 1e-5  # closer than right answers need be: two wrong ones may be near each other by chance


def judge(
    points: float,
    got: Any,
    want: Any,
    wrong: dict[str, Wrong],
    args: tuple[Any, ...],
    otherwise: str,
    pick: Callable[[Any], Any] = lambda result: result,
) -> Part:
    """The Part for `got`; a miss is explained by the first of `wrong` that gives `got` for `args`.

    Args:
        points: what the part is worth.
        got: the learner's result, or the piece of it that this part is about.
        want: the expected value of that piece.
        wrong: the exercise's wrong answers; `says` is the explanation shown.
        args: what the learner's function was called with.
        otherwise: the explanation when none of them gives `got`.
        pick: takes that piece out of the whole result of a wrong answer.
    """
    if close(got, want):
        return Part(points, True)
    named = (w.says for w in wrong.values() if close(got, pick(w.answer(*args)), NAMING))
    return Part(points, False, next(named, otherwise))


def told_apart(draw: Callable[[], tuple[Any, ...]], wrong: dict[str, Wrong]) -> tuple[Any, ...]:
    """Inputs for which no two of the wrong answers agree, so that each gets its own message."""
    while True:
        args = draw()
        results = [w.answer(*args) for w in wrong.values()]
        if not any(close(x, y, NAMING) for x, y in combinations(results, 2)):
            return args


def gradients(loss: Any, *inputs: Any) -> list[Any]:
    """d loss / d input for each input, None where no gradient flows."""
    import torch

    if not getattr(loss, "requires_grad", False):
        return [None] * len(inputs)
    return list(torch.autograd.grad(loss, inputs, allow_unused=True))
