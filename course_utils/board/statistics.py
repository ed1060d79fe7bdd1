"""Verdicts for a whole board: every pair of methods, and what asking many times costs.

`differences` says how sure one difference is. A board adds two things: it knows more about training
seeds than one pair does (`compare_all` takes one variance for all methods, which assumes that their
trainings vary alike; print the spread of each method's seed means beside it), and it asks so many
questions that a few answers would be false by chance (Holm's correction).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from course_utils.differences import (
    LEVEL,
    RESAMPLES,
    Difference,
    Spread,
    as_table,
    resample,
    residual,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def training_spread(tables: Iterable[np.ndarray]) -> Spread:
    """How much one more training of a method moves its mean, estimated from several methods.

    The root of the mean over methods; degrees of freedom as Satterthwaite's. (0, 1) where no method
    has two seeds.
    """
    variance, total, squares, count = 0.0, 0.0, 0.0, 0
    for table in tables:
        seeds, prompts = table.shape
        if seeds < 2:
            continue
        of_means = table.mean(1).var(ddof=1)
        variance += of_means - residual(table) / prompts
        total += of_means
        squares += of_means**2 / (seeds - 1)
        count += 1
    return max(0.0, variance / max(1, count)) ** 0.5, total**2 / squares if squares else 1.0


@dataclass(frozen=True)
class Comparison:
    """Two methods.

    Attributes:
        a, b: their names.
        difference: a - b with its own 95% interval, which knows nothing of the other pairs.
        p: two-sided.
        p_holm: corrected for all the pairs that were compared (Holm 1979, Scand. J. Statist. 6).
    """

    a: str
    b: str
    difference: Difference
    p: float
    p_holm: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``inconclusive`` after the correction."""
        if self.p_holm >= LEVEL:
            return "inconclusive"
        return "better" if self.difference.mean > 0 else "worse"

    def __str__(self) -> str:
        d = self.difference
        return (
            f"{self.a} - {self.b}: {d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}], "
            f"p {self.p_holm:.3f} after Holm: {self.verdict}"
        )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values: the chance of even one false verdict among all stays below 5%.

    Written out because statsmodels' `multipletests` collects garbage in every call, which takes
    longer than everything else here once torch is loaded. The tests compare the two.
    """
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()
    rising = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, rising)
    return [float(value) for value in corrected]


def compare_all(
    scores: Mapping[str, ArrayLike],
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    fixed: Collection[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """A verdict for every pair of methods, corrected for their number.

    How much training runs vary is estimated from all methods together: one pair's three seeds a
    side leave so little certainty that hardly a difference would survive the correction.

    Args:
        scores: method -> (S, N), the same N prompts in the same order; S may differ.
        pairs: which to compare; None compares all. Fewer questions cost less correction, if they
            were chosen before looking.
        fixed: methods whose seeds sampled one and the same model: nothing to vary in training.
    """
    tables = {name: as_table(values) for name, values in scores.items()}
    asked = list(pairs) if pairs is not None else list(combinations(tables, 2))
    if not asked:
        return []
    trained = {name: table for name, table in tables.items() if name not in fixed}
    one_run, freedom = training_spread(trained.values())
    runs = {name: 1 / len(table) if len(table) > 1 else 0.0 for name, table in trained.items()}
    spreads = [(one_run * (runs.get(a, 0.0) + runs.get(b, 0.0)) ** 0.5, freedom) for a, b in asked]
    found = resample(
        [(tables[a], tables[b]) for a, b in asked],
        spreads=spreads,
        resamples=resamples,
        seed=seed,
    )
    raw = found.p_values().tolist()
    return [
        Comparison(a, b, gap, p, corrected)
        for (a, b), gap, p, corrected in zip(
            asked, found.differences(), raw, holm(raw), strict=True
        )
    ]
