"""The board's intervals by simulation with a known truth, its corrections by hand."""

from __future__ import annotations

import numpy as np
import pytest

from course_utils.board import statistics
from course_utils.board.statistics import Comparison, compare_all, holm
from course_utils.differences import Difference, paired_difference, resample
from course_utils.errors import CourseError

TRUTH = 0.3
WORLDS = 1200  # simulated boards per case: the coverage is then known to 0.6 points


def simulated(
    rng: np.random.Generator, seeds: tuple[int, int], seed_sd: float, heavy: bool, prompts: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of score tables whose true means differ by `TRUTH`.

    A score is the prompt's ease, how the method takes to that prompt, the luck of the training
    run, and the luck of sampling the answer. The sizes are those of the record `preference`.
    """

    def normal(scale: float, *shape: int) -> np.ndarray:
        if heavy:  # tails of t with 4 degrees, at the same variance
            return np.asarray(rng.standard_t(4, size=shape) * scale / 2**0.5)
        return rng.normal(scale=scale, size=shape)

    ease = normal(2.0, WORLDS, 1, prompts)
    sides = [
        ease
        + normal(0.8, WORLDS, 1, prompts)
        + rng.normal(scale=seed_sd or 1e-12, size=(WORLDS, count, 1))
        + normal(1.5, WORLDS, count, prompts)
        for count in seeds
    ]
    return list(zip(sides[0] + TRUTH, sides[1], strict=True))


@pytest.mark.parametrize(
    ("seed_sd", "heavy", "prompts"),
    [(0.0, False, 300), (0.06, True, 300), (0.15, False, 300), (0.5, False, 100), (0.1, True, 100)],
)
def test_the_intervals_cover(seed_sd: float, heavy: bool, prompts: int) -> None:
    rng = np.random.default_rng(11)
    found = resample(simulated(rng, (3, 3), seed_sd, heavy, prompts), resamples=1000)
    low, high = found.intervals()
    covered = float(((low <= TRUTH) & (high >= TRUTH)).mean())
    assert 0.93 <= covered <= 0.97 + 0.006, covered  # 0.006: the simulation's own error


def test_prompts_alone_would_not_cover_a_seed_effect() -> None:
    """The part that is for seeds is needed: without it the same data are covered far too rarely."""
    rng = np.random.default_rng(12)
    pairs = simulated(rng, (3, 3), 0.3, False, 300)
    found = resample([(a.mean(0)[None], b.mean(0)[None]) for a, b in pairs], resamples=1000)
    low, high = found.intervals()
    assert ((low <= TRUTH) & (high >= TRUTH)).mean() < 0.8


@pytest.mark.parametrize("seed_sd", [0.0, 0.15])
def test_a_whole_boards_intervals_cover(seed_sd: float) -> None:
    """Four methods whose trainings vary alike, and one model that is only sampled again."""
    rng = np.random.default_rng(17)
    inside = []
    for _ in range(80):
        ease = rng.normal(0, 2, 200)
        means = {name: rng.normal() for name in "abcdg"}
        scores = {
            name: mean
            + ease
            + rng.normal(0, 0.8, 200)
            + rng.normal(0, seed_sd if name != "g" else 0, (3, 1))
            + rng.normal(0, 1.5, (3, 200))
            for name, mean in means.items()
        }
        found = compare_all(scores, fixed="g", resamples=500)
        inside += [c.difference.low <= means[c.a] - means[c.b] <= c.difference.high for c in found]
    # 80 boards of 10 pairs that share methods: the simulation's own error is over a point.
    assert 0.93 - 0.015 <= np.mean(inside) <= 0.97 + 0.015, np.mean(inside)


def test_the_spread_of_trainings_by_hand() -> None:
    """Constant scores: the variances of the seed means, 2 and 8, have the mean 5."""
    tables = [np.array([[0.0] * 9, [2.0] * 9]), np.array([[0.0] * 9, [4.0] * 9])]
    spread, freedom = statistics.training_spread(tables)
    assert spread == pytest.approx(5**0.5)
    assert freedom == pytest.approx(10**2 / (2**2 + 8**2)), "Satterthwaite"
    assert statistics.training_spread([np.zeros((1, 9))]) == (0.0, 1.0)


def test_a_false_verdict_is_as_rare_as_it_says() -> None:
    rng = np.random.default_rng(13)
    pairs = [(a - TRUTH, b) for a, b in simulated(rng, (3, 3), 0.1, False, 150)]
    share = float((resample(pairs, resamples=1000).p_values() < 0.05).mean())
    assert 0.025 <= share <= 0.07, share


def test_without_seeds_it_is_the_textbooks_interval() -> None:
    rng = np.random.default_rng(14)
    a, b = rng.normal(1, 1, 400), rng.normal(0, 1, 400)
    gap = paired_difference(a, b)
    error = (a - b).std(ddof=1) / 400**0.5
    assert gap.mean == pytest.approx((a - b).mean())
    assert gap.low == pytest.approx(gap.mean - 1.96 * error, abs=0.1 * error)
    assert gap.high == pytest.approx(gap.mean + 1.96 * error, abs=0.1 * error)


def test_two_seeds_that_disagree_widen_it() -> None:
    """By hand: constant scores leave only seeds. Means 0 and 2 against 0 and 0.

    Their variance 2 over 2 seeds is 1, the standard error 1, with one degree of freedom: t's
    2.5% point is 12.7.
    """
    a = np.array([[0.0] * 50, [2.0] * 50])
    (gap,) = resample([(a, np.zeros((2, 50)))]).differences()
    assert gap.mean == 1 and gap.low == pytest.approx(1 - 12.7, rel=0.15)


def test_a_pair_is_the_same_from_both_sides_but_for_the_sign() -> None:
    rng = np.random.default_rng(15)
    a, b = rng.normal(0.1, 1, (3, 80)), rng.normal(0, 1, (2, 80))
    one, other = resample([(a, b), (b, a)]).differences()
    assert one.mean == pytest.approx(-other.mean)
    assert one.low == pytest.approx(-other.high, abs=0.03)


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.04: times 3, 2, 1, and never below the one before."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])


def test_holm_against_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(18).uniform(size=55) ** 4
    from course_utils.exercises.ch11 import _holm_by_value  # what chapter 11 checks against

    want = list(multipletests(p, method="holm")[1])
    assert holm(list(p)) == pytest.approx(want)
    assert _holm_by_value(list(p)) == pytest.approx(want)


def test_verdicts_follow_the_corrected_p_and_not_the_interval() -> None:
    gap = Difference(0.4, 0.1, 0.7)
    assert Comparison("a", "b", gap, 0.02, 0.3).verdict == "inconclusive"
    assert Comparison("a", "b", gap, 0.001, 0.03).verdict == "better"
    assert Comparison("a", "b", Difference(-0.4, -0.7, -0.1), 0.001, 0.03).verdict == "worse"


def test_all_pairs_of_a_board() -> None:
    rng = np.random.default_rng(16)
    ease = rng.normal(0, 2, 200)
    scores = {name: ease + gain + rng.normal(0, 1, (3, 200)) for name, gain in
              (("low", 0.0), ("twin", 0.0), ("high", 2.0))}  # fmt: skip
    found = {(c.a, c.b): c for c in compare_all(scores)}
    assert set(found) == {("low", "twin"), ("low", "high"), ("twin", "high")}
    assert found["low", "high"].verdict == "worse"
    assert found["low", "twin"].verdict == "inconclusive"
    assert all(c.p_holm >= c.p for c in found.values())
    assert compare_all({"only": ease}) == []
    asked = compare_all(scores, [("high", "low")])
    assert len(asked) == 1 and asked[0].p == asked[0].p_holm and asked[0].verdict == "better"
    assert "better" in str(asked[0])


def test_eleven_methods_can_be_told_apart_after_the_correction() -> None:
    """The least p-value that the draws allow must survive Holm's factor of 55."""
    assert 55 * 2 / (statistics.RESAMPLES + 1) < statistics.LEVEL


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (np.zeros((3, 10)), np.zeros((3, 9)), r"\[9, 10\]"),
        (np.zeros((3, 1)), np.zeros((3, 1)), "at least two"),
        (np.zeros((2, 3, 4)), np.zeros((3, 4)), r"\(2, 3, 4\)"),
    ],
)
def test_scores_that_cannot_be_compared(a: np.ndarray, b: np.ndarray, says: str) -> None:
    with pytest.raises(CourseError, match=says):
        paired_difference(a, b)
