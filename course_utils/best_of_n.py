"""Best-of-n: sample n answers, keep the one the reward model likes best. No training at all.

The simplest way to use a reward model, and the baseline PPO has to be compared with: at the same
KL, which of them has the higher gold? (Gao et al. 2022, arXiv 2210.10760.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import CourseError

if TYPE_CHECKING:
    import numpy as np


def expected_best(proxy: np.ndarray, wanted: np.ndarray, n: int) -> np.ndarray:
    """Expected `wanted` of the answer that is best of n by `proxy`, per prompt: (P,).

    Unbiased, from all N samples: of the ways to draw n of them, the sample of rank k by proxy
    (1 = lowest) is the best in C(k-1, n-1) of C(N, n) (Nakano et al. 2021, arXiv 2112.09332).

    Args:
        proxy, wanted: (P, N), two scores of N samples for each of P prompts.
        n: from 1 to N.
    """
    import numpy as np

    samples = proxy.shape[1]
    if not 1 <= n <= samples:
        raise CourseError(f"n is {n}: give a number from 1 to {samples}, the samples per prompt.")
    ways = [math.comb(rank - 1, n - 1) / math.comb(samples, n) for rank in range(1, samples + 1)]
    ordered = np.take_along_axis(wanted, proxy.argsort(1, kind="stable"), 1)
    best: np.ndarray = ordered @ np.array(ways)
    return best


def kl(n: int) -> float:
    """KL of best-of-n from the model it samples, in nats: log n - (n - 1) / n.

    An upper bound in general, exact where no two samples are equal (Beirami et al. 2024,
    arXiv 2401.01879).
    """
    return math.log(n) - (n - 1) / n


def as_table(scores: Sequence[float], prompts: int) -> np.ndarray:
    """(P, N) from scores in the order: all prompts, all prompts again, ..."""
    import numpy as np

    return np.array(scores).reshape(-1, prompts).T
