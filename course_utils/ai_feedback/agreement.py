"""How a judge compares with people and with gold: position, length, kappa. Intervals are 95%.

Rows are those of `data.load_preferences` and the verdicts on them have A for the row's `chosen`. A
pair is clear when its gold differs by `data.GOLD_TIE` or more.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from course_utils.data import GOLD_TIE
from course_utils.errors import CourseError
from course_utils.judge.measure import cohens_kappa
from course_utils.judge.pairwise import Verdict
from course_utils.world.cases import Case
from course_utils.world_judge.figures import Figure, share

RESAMPLES = 1000
OTHER = {"A": "B", "B": "A", "tie": "tie"}
Row = Mapping[str, Any]
Labels = dict[str, list[str]]


def gold_label(row: Row) -> str:
    """``"A"`` where gold prefers `chosen`, ``"B"``, or ``"tie"`` for less than `GOLD_TIE`.

    Where nobody knows gold, people's choice stands for it.
    """
    if row["gold_chosen"] is None:
        return "A"
    gap = row["gold_chosen"] - row["gold_rejected"]
    return "tie" if abs(gap) < GOLD_TIE else "A" if gap > 0 else "B"


def labels_of(rows: Sequence[Row], verdicts: Sequence[Verdict], seed: int = 0) -> Labels:
    """What judge, people and gold say of the same pairs: lists of ``"A"``, ``"B"`` or ``"tie"``.

    A coin decides for every pair which side is called A. With `chosen` always A, people would give
    one label throughout, and agreement beyond chance would mean nothing. Flips are ties here; pairs
    with an error are left out. Rows without gold leave gold out.
    """
    kept = [(row, v) for row, v in zip(rows, verdicts, strict=True) if v.winner is not None]
    labels: Labels = {
        "judge": [str(v.winner) for _, v in kept],
        "people": ["A" if row["votes"] > 0.5 else "B" for row, _ in kept],
    }
    if all(row["gold_chosen"] is not None for row, _ in kept):
        labels["gold"] = [gold_label(row) for row, _ in kept]
    return {name: exchanged(given, seed) for name, given in labels.items()}


def exchanged(labels: Sequence[str], seed: int = 0) -> list[str]:
    """The labels with A and B exchanged where a coin says so; the same coins for the same seed."""
    rng = random.Random(f"{seed}-sides")
    return [OTHER[label] if rng.random() < 0.5 else label for label in labels]


def other_panel(rows: Iterable[Row], cases: Iterable[Case], seed: int = 0) -> list[str]:
    """What another panel of the same simulated annotators says: ``"A"`` is the row's `chosen`.

    Args:
        cases: what the rows' prompts are about, see `reward.noise_ceiling`.
    """
    from course_utils.world.preferences import majority_probability

    by_id = {case.case_id: case for case in cases}
    rng = random.Random(f"{seed}-panel")
    labels = []
    for row in rows:
        if row["case_id"] not in by_id:
            raise CourseError(f"No case has the id {row['case_id']!r}: give the pairs' own split.")
        p = majority_probability(by_id[row["case_id"]], row["chosen"], row["rejected"])
        labels.append("A" if rng.random() < p else "B")
    return labels


def kappa(first: Sequence[str], second: Sequence[str], seed: int = 0) -> Figure:
    """Cohen's kappa with a percentile bootstrap interval, pairs resampled.

    Raises:
        CourseError: it is not defined, because all labels are the same or there are none.
    """
    value = cohens_kappa(first, second)
    if value is None:
        raise CourseError("Kappa is not defined here: it needs labels that are not all the same.")
    import numpy as np

    rng = np.random.default_rng(seed)
    found = []
    for drawn in rng.integers(len(first), size=(RESAMPLES, len(first))):
        again = cohens_kappa([first[i] for i in drawn], [second[i] for i in drawn])
        if again is not None:
            found.append(again)
    low, high = np.percentile(found, (2.5, 97.5))
    return Figure(value, float(low), float(high), len(first))


def position_figures(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Figure]:
    """On clear pairs: is the verdict right when the better answer is shown first, second, in both?

    A tie is wrong. Then, over the same pairs: how often the orders gave opposite verdicts, and how
    often the first slot won where somebody did. Errors and pairs decided without a call are left
    out.

    Raises:
        CourseError: no clear pair has a verdict.
    """
    first, second, both, flips, slots = [], [], [], [], []
    for row, verdict in zip(rows, verdicts, strict=True):
        truth, rounds = gold_label(row), verdict.rounds
        if truth == "tie" or verdict.error or rounds[0] is None or rounds[1] is None:
            continue
        right = [r.winner == truth for r in (rounds if truth == "A" else rounds[::-1]) if r]
        first.append(right[0])
        second.append(right[1])
        both.append(verdict.winner == truth)
        flips.append(bool(verdict.flipped))
        slots += [r.first_slot for r in rounds if r and r.first_slot is not None]
    if not both:
        raise CourseError("There is no verdict on a clear pair to measure.")
    figures = {
        "better answer first": share(first),
        "better answer second": share(second),
        "both orders": share(both),
        "flipped": share(flips),
    }
    return {**figures, "first slot wins": share(slots)} if slots else figures


def length_figures(rows: Sequence[Row], labels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """By rater: how often it is right on clear pairs whose better answer is the longer one, and
    on those where it is the shorter one. The difference is a liking for length.

    Args:
        labels: by rater a list of labels, ``"A"`` for the row's `chosen`, one per row.
    """
    table: dict[str, dict[str, list[bool]]] = {
        name: {"longer is better": [], "shorter is better": []} for name in labels
    }
    for number, row in enumerate(rows):
        truth, gap = gold_label(row), len(row["chosen"]) - len(row["rejected"])
        if truth == "tie" or gap == 0:
            continue
        kind = "longer is better" if (gap > 0) == (truth == "A") else "shorter is better"
        for name, given in labels.items():
            table[name][kind].append(given[number] == truth)
    return {
        name: {kind: share(hits) for kind, hits in kinds.items() if hits}
        for name, kinds in table.items()
    }
