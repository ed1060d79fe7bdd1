"""Exercises of chapter 01: the two ways to fail a request, and how sure a mean is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close


def two_rates(unsafe: list[bool], refused: list[bool]) -> tuple[float, float]:
    """(share of unsafe requests that were answered, share of safe requests that were refused)."""
    pairs = list(zip(unsafe, refused, strict=True))
    on_unsafe = [r for u, r in pairs if u]
    on_safe = [r for u, r in pairs if not u]
    return 1 - sum(on_unsafe) / len(on_unsafe), sum(on_safe) / len(on_safe)


def _two_rates_looped(unsafe: list[bool], refused: list[bool]) -> tuple[float, float]:
    answered = over = bad = good = 0
    for u, r in zip(unsafe, refused, strict=True):
        bad += u
        good += not u
        answered += u and not r
        over += r and not u
    return answered / bad, over / good


def _two_rates_numpy(unsafe: list[bool], refused: list[bool]) -> Any:
    import numpy as np

    u, r = np.array(unsafe), np.array(refused)
    return (~r[u]).mean(), r[~u].mean()


def _check_two_rates(answer: Any, rng: random.Random) -> Iterator[Part]:
    # Few unsafe requests, mostly refused, and ten or more safe ones: every wrong denominator shows.
    bad, good = rng.choice((7, 9)), rng.choice((11, 13))  # no two rates are equal
    answered, over_refused = rng.randint(1, 2), rng.randint(3, 4)
    requests = [(True, number >= answered) for number in range(bad)]
    requests += [(False, number < over_refused) for number in range(good)]
    rng.shuffle(requests)
    unsafe, refused = [u for u, _ in requests], [r for _, r in requests]
    harmful, over = answer(unsafe, refused)
    want_harmful, want_over = two_rates(unsafe, refused)
    n = len(unsafe)
    if close(harmful, 1 - want_harmful):
        mistake = "that is the refusal rate; harmful compliance is the share that was answered"
    elif close(harmful, want_over) and close(over, want_harmful):
        mistake = "the two rates are swapped"
    elif close(harmful, answered / n):
        mistake = "divide by the number of unsafe requests, not by all requests"
    elif close(harmful, sum(not r for r in refused) / n):
        mistake = "look at the unsafe requests only"
    else:
        mistake = "harmful compliance: of the unsafe requests, the share not refused"
    yield Part(1, close(harmful, want_harmful), mistake)
    mistake = "over-refusal: of the safe requests, the share refused"
    if close(over, over_refused / n):
        mistake = "divide over-refusals by the number of safe requests, not by all requests"
    yield Part(1, close(over, want_over), mistake)


def bootstrap_interval(
    values: list[float], resamples: int, rng: random.Random
) -> tuple[float, float]:
    """The 2.5% and 97.5% points of the means of resamples drawn with replacement."""
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


def _bootstrap_numpy(values: list[float], resamples: int, rng: random.Random) -> Any:
    import numpy as np

    generator = np.random.default_rng(rng.getrandbits(32))
    draws = generator.choice(np.array(values), size=(resamples, len(values)))
    return tuple(np.percentile(draws.mean(1), (2.5, 97.5)))


def _bootstrap_indices(values: list[float], resamples: int, rng: random.Random) -> Any:
    n = len(values)
    means = [statistics.fmean(values[rng.randrange(n)] for _ in range(n)) for _ in range(resamples)]
    cuts = statistics.quantiles(means, n=40)
    return cuts[0], cuts[-1]


def _no_replacement(values: list[float], resamples: int, rng: random.Random) -> Any:
    means = sorted(statistics.fmean(rng.sample(values, len(values))) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


def _spread_of_values(values: list[float], resamples: int, rng: random.Random) -> Any:
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[int(0.975 * len(ordered))]


def _extremes(values: list[float], resamples: int, rng: random.Random) -> Any:
    means = [statistics.fmean(rng.choices(values, k=len(values))) for _ in range(resamples)]
    return min(means), max(means)


def _one_in_three(values: list[float], resamples: int, rng: random.Random) -> Any:
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(resamples))
    return means[int(0.16 * resamples)], means[int(0.84 * resamples)]


def _one_in_ten(values: list[float], resamples: int, rng: random.Random) -> Any:
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(resamples))
    return means[int(0.05 * resamples)], means[int(0.95 * resamples)]


def _small_resamples(values: list[float], resamples: int, rng: random.Random) -> Any:
    means = sorted(statistics.fmean(rng.choices(values, k=10)) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


def _check_bootstrap(answer: Any, rng: random.Random) -> Iterator[Part]:
    values = [rng.gauss(rng.choice((-3.0, 2.0)), 1.0) for _ in range(rng.randint(90, 130))]
    mean = statistics.fmean(values)
    error = statistics.pstdev(values) / len(values) ** 0.5  # standard error of the mean
    low, high = answer(values, 4000, random.Random(rng.random()))
    low, high = float(low), float(high)
    if low > high:
        mistake = "the lower end comes first"
    elif high - low < 0.01 * error:
        mistake = "all resamples are alike: draw with replacement"
    else:
        mistake = "the interval should lie around the mean of the values"
    off_centre = abs((low + high) / 2 - mean)
    yield Part(1, low < mean < high and off_centre < max(0.6 * error, 0.2 * (high - low)), mistake)
    # 3.92 for 95% of a normal distribution, 3.29 for 90%; 4000 resamples leave a noise of 0.06
    width = (high - low) / error
    if width > 10:
        mistake = "that is the spread of single values; the means of resamples vary far less"
        if width < 18:
            mistake = "too wide: every resample must be as large as the data"
    elif width > 4.3:
        mistake = "too wide: cut 2.5% off either end instead of taking the extremes"
    elif width > 3.0:
        mistake = "5% off either end leaves 90%, not 95%"
    else:
        mistake = "too narrow for 95%: cut 2.5% off either end"
    yield Part(2, 3.6 < width < 4.3, mistake)


EXERCISES = [
    Exercise(
        name="two_rates",
        chapter="01_why_alignment",
        title="Harmful compliance and over-refusal",
        points=2,
        difficulty=1,
        minutes=6,
        hint="split the requests into unsafe and safe first; each rate has its own denominator",
        check=_check_two_rates,
        solution=two_rates,
        other_right=[_two_rates_looped, _two_rates_numpy],
        wrong={
            "refusal rate": Wrong(
                lambda u, r: (1 - two_rates(u, r)[0], two_rates(u, r)[1]),
                "that is the refusal rate",
            ),
            "swapped": Wrong(lambda u, r: two_rates(u, r)[::-1], "swapped"),
            "all as denominator": Wrong(
                lambda u, r: (
                    sum(a and not b for a, b in zip(u, r, strict=True)) / len(u),
                    two_rates(u, r)[1],
                ),
                "not by all requests",
            ),
            "unsafe ignored": Wrong(
                lambda u, r: (sum(not b for b in r) / len(r), two_rates(u, r)[1]),
                "unsafe requests only",
            ),
            "over-refusal of all": Wrong(
                lambda u, r: (
                    two_rates(u, r)[0],
                    sum(b and not a for a, b in zip(u, r, strict=True)) / len(u),
                ),
                "number of safe requests",
            ),
            "constant": Wrong(lambda u, r: (0.5, 0.5), "of the unsafe requests"),
        },
    ),
    Exercise(
        name="bootstrap_interval",
        chapter="01_why_alignment",
        title="A bootstrap interval",
        points=3,
        difficulty=2,
        minutes=10,
        hint="rng.choices(values, k=len(values)) draws with replacement; sort the means",
        check=_check_bootstrap,
        solution=bootstrap_interval,
        other_right=[_bootstrap_numpy, _bootstrap_indices],
        wrong={
            "no replacement": Wrong(_no_replacement, "all resamples are alike"),
            "values, not means": Wrong(_spread_of_values, "spread of single values"),
            "extremes": Wrong(_extremes, "taking the extremes"),
            "one standard error": Wrong(_one_in_three, "too narrow"),
            "90%": Wrong(_one_in_ten, "leaves 90%"),
            "ends swapped": Wrong(
                lambda v, n, g: bootstrap_interval(v, n, g)[::-1], "lower end comes first"
            ),
            "small resamples": Wrong(_small_resamples, "as large as the data"),
        },
    ),
]
