"""Best-of-n against enumeration of every draw, and its KL by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from course_utils import best_of_n
from course_utils.errors import CourseError


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_expected_best_against_every_draw(n: int) -> None:
    rng = np.random.default_rng(n)
    proxy, gold = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    for row in range(4):
        draws = list(itertools.combinations(range(5), n))
        picks = [gold[row, max(draw, key=lambda i: proxy[row, i])] for draw in draws]
        want = sum(picks) / len(draws)
        assert best_of_n.expected_best(proxy, gold, n)[row] == pytest.approx(want)


@pytest.mark.parametrize("n", [0, 6])
def test_more_than_there_are(n: int) -> None:
    with pytest.raises(CourseError, match="from 1 to 5"):
        best_of_n.expected_best(np.zeros((2, 5)), np.zeros((2, 5)), n)


def test_kl_by_hand() -> None:
    assert best_of_n.kl(1) == 0
    # Best of two of a continuous score: density 2u on [0, 1], KL = ln 2 - 1/2.
    assert best_of_n.kl(2) == pytest.approx(math.log(2) - 0.5)


def test_as_table_keeps_each_prompts_samples_together() -> None:
    table = best_of_n.as_table([1.0, 2.0, 10.0, 20.0, 100.0, 200.0], 2)
    assert table.tolist() == [[1, 10, 100], [2, 20, 200]]
