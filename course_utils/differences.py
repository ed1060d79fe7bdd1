"""How sure a difference between two policies is: other prompts, and training again.

A difference on the same prompts is a mean over prompts and training seeds. Both were drawn, so an
interval has to answer for both:

- **Prompts** are many and are resampled: the paired bootstrap of Efron & Tibshirani 1993, chapter
  8. A prompt is drawn with all its answers, by both methods and by every seed, because answers to
  one prompt resemble each other. A seed enters as a part of its prompt's mean.
- **Seeds** are three. Resampling three things finds too little variance (two thirds of it), so
  their part comes from a variance estimate and Student's t: the variance of a method's seed means,
  less what sampling answers alone would give (the residual of the two-way table over the number
  of prompts), never below zero. Welch's degrees of freedom, as the methods' seeds are independent.

The two parts are added draw by draw. By simulation (the course's tests) such 95% intervals contain
the truth in 94 to 97 of 100 cases, with or without a seed effect. Prompts alone fall to 70 and
lower with one; resampling seeds and prompts alike goes from 99 to 80.

A method with a single seed gets no seed part: its interval is about that one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .errors import CourseError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RESAMPLES = 10_000  # so that a p-value can be small enough for Holm's correction of 55 pairs
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A - B with its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``inconclusive`` (the interval holds zero)."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "inconclusive"

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] {self.verdict}"


def paired_difference(a: ArrayLike, b: ArrayLike, seed: int = 0) -> Difference:
    """mean(a) - mean(b) with its 95% interval, where both score the same N prompts.

    Args:
        a, b: (N,) for one run, or (S, N) for S training seeds; the number of seeds may differ.

    Raises:
        CourseError: another shape, fewer than two prompts, or not the same number on both sides.
    """
    return resample([(as_table(a), as_table(b))], seed=seed).differences()[0]


@dataclass(frozen=True)
class Draws:
    """What resampling gave for K pairs of methods.

    Attributes:
        mean: (K,), a minus b.
        draws: (R, K), the mean as it might have been.
    """

    mean: np.ndarray
    draws: np.ndarray

    def intervals(self, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), (K,) each: the middle 1 - `level` of the draws."""
        low, high = np.percentile(self.draws, (50 * level, 100 - 50 * level), axis=0)
        return low, high

    def differences(self) -> list[Difference]:
        """Each pair's mean with its 95% interval."""
        return [
            Difference(float(mean), float(low), float(high))
            for mean, low, high in zip(self.mean, *self.intervals(), strict=True)
        ]

    def p_values(self) -> np.ndarray:
        """(K,): two-sided, from the share of draws beyond zero; at least 2 / (R + 1)."""
        count = len(self.draws) + 1
        below = ((self.draws <= 0).sum(0) + 1) / count
        above = ((self.draws >= 0).sum(0) + 1) / count
        return np.asarray(np.minimum(1.0, 2 * np.minimum(below, above)))


Spread = tuple[float, float]  # a standard error, and its degrees of freedom


def resample(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    spreads: Sequence[Spread] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Draws:
    """Draws of mean(a) - mean(b) for each of K pairs of methods.

    Args:
        pairs: of (S, N): scores with S training seeds on N prompts, the same for all. Seeds are
            not paired, and their number may differ.

    Raises:
        CourseError: fewer than two prompts, or not the same number everywhere.
    """
    counts = {side.shape[1] for pair in pairs for side in pair}
    if len(counts) != 1 or min(counts) < 2:
        raise CourseError(
            f"Compare scores of the same prompts, at least two: found {sorted(counts)}."
        )
    prompts = counts.pop()
    rng = np.random.default_rng(seed)
    weights = _weights(prompts, resamples, seed)
    per_prompt = np.stack([a.mean(0) - b.mean(0) for a, b in pairs])
    spread, freedom = np.array(spreads or [_seed_spread(a, b) for a, b in pairs]).T
    by_seeds = spread * rng.standard_t(freedom, size=(resamples, len(pairs)))
    return Draws(per_prompt.mean(1), weights @ per_prompt.T + by_seeds)


@lru_cache(maxsize=4)
def _weights(prompts: int, resamples: int, seed: int) -> np.ndarray:
    """(R, N): how often each prompt is drawn, over N. The same draws serve all pairs."""
    rng = np.random.default_rng((seed, 1))
    drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    return np.asarray(drawn / prompts)


def _seed_spread(*sides: np.ndarray) -> Spread:
    """Standard error of a difference that is due to seeds, with Welch's degrees of freedom."""
    variance, total, squares = 0.0, 0.0, 0.0
    for side in sides:
        seeds, prompts = side.shape
        if seeds < 2:
            continue
        of_means = side.mean(1).var(ddof=1) / seeds  # seeds, and the luck of sampling answers
        variance += of_means - residual(side) / (prompts * seeds)
        total += of_means
        squares += of_means**2 / (seeds - 1)
    return max(0.0, variance) ** 0.5, total**2 / squares if squares else 1.0


def residual(side: np.ndarray) -> float:
    """Variance of an answer's score once its prompt's and its seed's means are known."""
    seeds, prompts = side.shape
    rest = side - side.mean(0) - side.mean(1, keepdims=True) + side.mean()
    return float((rest**2).sum() / ((seeds - 1) * (prompts - 1)))


def as_table(scores: ArrayLike) -> np.ndarray:
    """(S, N); one run's (N,) is a table of one row."""
    table = np.atleast_2d(np.asarray(scores, dtype=float))
    if table.ndim != 2:
        raise CourseError(f"Give scores as (N,) or (seeds, N), not {table.shape}.")
    return table
