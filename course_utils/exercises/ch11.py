"""Exercises of chapter 11: a paired interval, Holm's correction, a win rate at equal length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close
from course_utils.exercises._judge import judge

# --- paired_interval


def paired_interval(a: Any, b: Any, picks: Any) -> tuple[float, float]:
    """The middle 95% of mean(a - b) over resampled prompts.

    Args:
        a, b: (N,), scores of the same prompts.
        picks: (R, N), places of the prompts in each of R resamples.
    """
    import numpy as np

    means = (a - b)[picks].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _looped_interval(a: Any, b: Any, picks: Any) -> tuple[float, float]:
    import numpy as np

    means = [np.mean([a[i] - b[i] for i in places]) for places in picks]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _interval_of_two_means(a: Any, b: Any, picks: Any) -> Any:
    import numpy as np

    return np.percentile(a[picks].mean(-1) - b[picks].mean(-1), [2.5, 97.5])


def _percentiles(values: Any, low: float, high: float) -> tuple[float, float]:
    import numpy as np

    found = np.percentile(values, (low, high))
    return float(found[0]), float(found[1])


def _unpaired(a: Any, b: Any, picks: Any) -> tuple[float, float]:
    return _percentiles(a[picks].mean(1) - b[picks[::-1]].mean(1), 2.5, 97.5)


def _normal(a: Any, b: Any, picks: Any) -> tuple[float, float]:
    gap = a - b
    error = gap.std(ddof=1) / len(gap) ** 0.5
    return float(gap.mean() - 1.96 * error), float(gap.mean() + 1.96 * error)


INTERVAL_WRONG = {
    "90%": Wrong(
        lambda a, b, p: _percentiles((a - b)[p].mean(1), 5, 95),
        "that is the middle 90%: 2.5% are left out on each side",
    ),
    "of the prompts": Wrong(
        lambda a, b, p: _percentiles(a - b, 2.5, 97.5),
        "that is how single prompts vary: resample, and look at the means",
    ),
    "unpaired": Wrong(
        _unpaired, "the pairing is lost: the same resampled prompts serve both policies"
    ),
    "sign": Wrong(
        lambda a, b, p: _looped_interval(b, a, p), "the direction: a minus b, not b minus a"
    ),
    "only a": Wrong(
        lambda a, b, p: _looped_interval(a, 0 * b, p), "b is missing: the difference is asked for"
    ),
    "normal": Wrong(_normal, "use the resamples, not a formula for the normal distribution"),
    "wrong axis": Wrong(
        lambda a, b, p: _percentiles((a - b)[p].mean(0), 2.5, 97.5),
        "one mean per resample: average over the prompts in it, the last axis",
    ),
    "per prompt width": Wrong(
        lambda a, b, p: _percentiles((a - b)[p].sum(1), 2.5, 97.5),
        "means, not sums over the prompts",
    ),
    "swapped": Wrong(
        lambda a, b, p: _looped_interval(a, b, p)[::-1], "the low end comes first, then the high"
    ),
}


def _check_interval(answer: Any, rng: random.Random) -> Iterator[Part]:
    import numpy as np

    for _ in range(2):
        draw = np.random.default_rng(rng.randrange(2**32))
        prompts = rng.randint(12, 20)
        ease = draw.normal(0, 3, prompts)
        a, b = ease + draw.normal(0.8, 1, prompts), ease + draw.normal(0, 1, prompts)
        given = a, b, draw.integers(prompts, size=(rng.randint(150, 250), prompts))
        got = np.asarray(answer(*given), dtype=float)
        want = np.asarray(_looped_interval(*given))
        wrong = {
            label: Wrong(lambda *args, f=w.answer: np.asarray(f(*args)), w.says)
            for label, w in INTERVAL_WRONG.items()
        }
        yield judge(1, got, want, wrong, given, "compare with a loop over the resamples")


# --- holm


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number, in the order given (Holm 1979)."""
    count = len(p_values)
    order = sorted(range(count), key=lambda i: p_values[i])
    corrected, least = [0.0] * count, 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (count - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def _holm_arrays(p_values: Any) -> Any:
    import numpy as np

    p = np.asarray(p_values)
    order = np.argsort(p)
    scaled = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty(len(p))
    out[order] = np.minimum(scaled, 1)
    return out


def _holm_by_value(p_values: Any) -> Any:
    """Each corrected value from its definition: the largest product among the p up to its own."""
    products = [
        (p, min(1.0, (len(p_values) - rank) * p)) for rank, p in enumerate(sorted(p_values))
    ]
    return [max(product for q, product in products if q <= p) for p in p_values]


def _holm_without(p_values: list[float], *, rising: bool = True, capped: bool = True) -> Any:
    count = len(p_values)
    order = sorted(range(count), key=lambda i: p_values[i])
    out, least = [0.0] * count, 0.0
    for rank, i in enumerate(order):
        value = (count - rank) * p_values[i]
        value = min(1.0, value) if capped else value
        least = max(least, value) if rising else value
        out[i] = least
    return out


def _hochberg(p_values: Any) -> Any:
    from scipy.stats import false_discovery_control

    return list(false_discovery_control(p_values, method="bh"))


HOLM_WRONG = {
    "Bonferroni": Wrong(
        lambda p: [min(1.0, len(p) * x) for x in p],
        "that is Bonferroni's: only the smallest is multiplied by the whole number",
    ),
    "not rising": Wrong(
        lambda p: _holm_without(p, rising=False),
        "a corrected value is never below that of a smaller p: carry the largest so far along",
    ),
    "not capped": Wrong(lambda p: _holm_without(p, capped=False), "a p-value is at most 1"),
    "sorted": Wrong(
        lambda p: sorted(holm(p)), "give the results in the order of the input, not sorted"
    ),
    "order of the input": Wrong(
        lambda p: [min(1.0, (len(p) - i) * x) for i, x in enumerate(p)],
        "the factor goes by rank: sort first",
    ),
    "from the largest": Wrong(
        lambda p: [min(1.0, (1 + sum(y < x for y in p)) * x) for x in p],
        "the smallest p is multiplied by the most, not by 1",
    ),
    "one too few": Wrong(
        lambda p: [
            max(min(1.0, (len(p) - 1 - sum(z < y for z in p)) * y) for y in p if y <= x) for x in p
        ],
        "the smallest of m is multiplied by m, not by m - 1",
    ),
    "false discoveries": Wrong(
        _hochberg, "that is Benjamini and Hochberg's, which bounds another kind of error"
    ),
    "uncorrected": Wrong(lambda p: list(p), "nothing is corrected"),
}


def _check_holm(answer: Any, rng: random.Random) -> Iterator[Part]:
    for _ in range(2):
        tiny = [rng.uniform(0.001, 0.004), rng.uniform(0.01, 0.012), rng.uniform(0.0125, 0.0128)]
        p = [*tiny, rng.uniform(0.03, 0.05), rng.uniform(0.55, 0.7), rng.uniform(0.75, 0.95)]
        while p == sorted(p) or p == sorted(p, reverse=True):
            rng.shuffle(p)
        got = [float(x) for x in answer(p)]
        wrong = HOLM_WRONG
        yield judge(1, got, _holm_by_value(p), wrong, (p,), "compare with the three steps above")
    yield Part(0.5, close([float(x) for x in answer([0.03])], [0.03]), "a single p stays as it is")
    got = [float(x) for x in answer([0.01, 0.04, 0.02])]
    yield Part(0.5, close(got, [0.03, 0.04, 0.04]), "compare with the example worked by hand")


# --- matched_win_rate


def matched_win_rate(wins: Any, longer: Any) -> float:
    """Win rate with longer and shorter answers counting alike.

    Args:
        wins: (N,), A's share of the win: 1, 0.5 or 0.
        longer: (N,), tokens of A's answer less those of B's. Pairs with 0 are left out.
    """
    return float((wins[longer > 0].mean() + wins[longer < 0].mean()) / 2)


def _matched_loop(wins: Any, longer: Any) -> float:
    groups: dict[bool, list[float]] = {True: [], False: []}
    for win, gap in zip(wins.tolist(), longer.tolist(), strict=True):
        if gap != 0:
            groups[gap > 0].append(win)
    return sum(sum(group) / len(group) for group in groups.values()) / 2


def _matched_weights(wins: Any, longer: Any) -> Any:
    import numpy as np

    up, down = longer > 0, longer < 0
    weights = np.where(up, 0.5 / up.sum(), 0.0) + np.where(down, 0.5 / down.sum(), 0.0)
    return (weights * wins).sum()


MATCHED_WRONG = {
    "plain": Wrong(lambda w, g: w.mean(), "that is the plain win rate: length is not controlled"),
    "pooled": Wrong(
        lambda w, g: w[g != 0].mean(),
        "the larger group counts for more: take each group's mean, then the mean of the two",
    ),
    "only shorter": Wrong(
        lambda w, g: w[g < 0].mean(), "that is the group where A is shorter alone: average both"
    ),
    "only longer": Wrong(
        lambda w, g: w[g > 0].mean(), "that is the group where A is longer alone: average both"
    ),
    "ties with the shorter": Wrong(
        lambda w, g: (w[g > 0].mean() + w[g <= 0].mean()) / 2,
        "pairs of equal length belong to neither group: leave them out",
    ),
    "ties with the longer": Wrong(
        lambda w, g: (w[g >= 0].mean() + w[g < 0].mean()) / 2,
        "answers of equal length are not longer: leave them out",
    ),
    "difference": Wrong(
        lambda w, g: w[g > 0].mean() - w[g < 0].mean(),
        "that is how much length helps: the mean of the two groups is asked for",
    ),
    "sum": Wrong(lambda w, g: w[g > 0].mean() + w[g < 0].mean(), "halve it: a rate is from 0 to 1"),
    "all wins or none": Wrong(
        lambda w, g: ((w[g > 0] == 1).mean() + (w[g < 0] == 1).mean()) / 2,
        "ties count half, do not drop them",
    ),
}


def _draw_matched(rng: random.Random) -> tuple[Any, Any]:
    """Pairs on which the right answer and every wrong one differ."""
    import numpy as np

    while True:
        longer = [rng.randint(1, 9) for _ in range(rng.randint(9, 12))]
        longer += [-rng.randint(1, 9) for _ in range(rng.randint(4, 7))] + [0, 0, 0]
        rng.shuffle(longer)
        wins = np.array([rng.choice((1.0, 1.0, 0.75, 0.5, 0.25, 0.0)) for _ in longer])
        given = wins, np.array(longer)
        found = [_matched_loop(*given), *(float(w.answer(*given)) for w in MATCHED_WRONG.values())]
        if np.diff(sorted(found)).min() > 1e-3:
            return given


def _check_matched(answer: Any, rng: random.Random) -> Iterator[Part]:
    for _ in range(2):
        given = _draw_matched(rng)
        got, want = float(answer(*given)), _matched_loop(*given)
        yield judge(1, got, want, MATCHED_WRONG, given, "compare with a loop over the pairs")


EXERCISES = [
    Exercise(
        name="paired_interval",
        chapter="11_comparing_methods",
        title="The paired bootstrap interval",
        points=2,
        difficulty=2,
        minutes=10,
        hint="Index the differences with `picks`: (R, N). One mean per row, then np.percentile.",
        check=_check_interval,
        solution=paired_interval,
        other_right=[_looped_interval, _interval_of_two_means],
        wrong=INTERVAL_WRONG,
    ),
    Exercise(
        name="holm",
        chapter="11_comparing_methods",
        title="Holm's correction",
        points=3,
        difficulty=2,
        minutes=10,
        hint="Sort, multiply by m, m - 1, ..., 1, carry the largest so far along, cap at 1.",
        check=_check_holm,
        solution=holm,
        other_right=[_holm_arrays, _holm_by_value],
        wrong=HOLM_WRONG,
    ),
    Exercise(
        name="matched_win_rate",
        chapter="11_comparing_methods",
        title="A win rate at equal length",
        points=2,
        difficulty=1,
        minutes=5,
        hint="Two means, one over the pairs where A is longer, one where it is shorter.",
        check=_check_matched,
        solution=matched_win_rate,
        other_right=[_matched_loop, _matched_weights],
        wrong=MATCHED_WRONG,
    ),
]
