"""Do annotators agree, beyond what chance alone would give? By well-kept libraries.

Each function gives an `Agreement`: a number, or NaN with the reason why there is none.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from course_utils.errors import CourseError, unknown_name
from course_utils.labeling.aggregate import signed_strength
from course_utils.labeling.log import Event

Scale = Literal["nominal", "ordinal"]
SCALES = ("nominal", "ordinal")
CATEGORIES = ("a", "b", "tie", "both_bad")

Table = dict[str, dict[str, Event]]  # pair_id -> annotator -> label


@dataclass(frozen=True)
class Agreement:
    """A measure of agreement: 1 is perfect, 0 what chance gives, below 0 is worse than chance.

    Attributes:
        value: NaN where the measure is not defined.
        pairs: how many pairs it rests on.
        annotators: how many annotators it rests on.
        reason: why there is no value; empty where there is one.
    """

    value: float
    pairs: int
    annotators: int
    reason: str = ""

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        if self.reason:
            return f"undefined: {self.reason}"
        return f"{self.value:.3f} ({self.annotators} annotators, {self.pairs} pairs)"


def krippendorff_alpha(labels: Iterable[Event], scale: Scale = "ordinal") -> Agreement:
    """Krippendorff's alpha; annotators may have labelled different pairs.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". By the package `krippendorff`.

    Args:
        labels: of any number of annotators.
        scale: ``ordinal`` orders labels from strongly b over tie to strongly a, and leaves out both
            bad, which has no place there; ``nominal`` knows only whether two choices are the same.
    """
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    left_out = ("skip", "both_bad") if scale == "ordinal" else ("skip",)
    table = _table(label for label in labels if label["choice"] not in left_out)
    shared = {pair: given for pair, given in table.items() if len(given) > 1}
    problem = _too_few(shared)
    if problem:
        return problem
    values = {pair: {n: _value(e, scale) for n, e in g.items()} for pair, g in shared.items()}
    if len({value for given in values.values() for value in given.values()}) == 1:
        return _undefined(shared, "every label is the same, so there is nothing to agree on")

    import krippendorff
    import numpy as np

    annotators = _annotators(shared)
    rows = [[values[pair].get(name, math.nan) for pair in values] for name in annotators]
    found = krippendorff.alpha(reliability_data=np.array(rows), level_of_measurement=scale)
    return Agreement(float(found), len(shared), len(annotators))


def cohen_kappa(
    labels: Iterable[Event], first: str, second: str, weights: str | None = None
) -> Agreement:
    """Cohen's kappa of two annotators, over the pairs that both labelled (skips left out).

    Cohen 1960, "A coefficient of agreement for nominal scales". By scikit-learn.

    Args:
        first, second: names of two annotators.
        weights: None counts every difference alike; ``linear`` or ``quadratic`` weighs it by its
            distance on the ordinal scale, without both bad (Cohen 1968).
    """
    if weights not in (None, "linear", "quadratic"):
        raise unknown_name("weights", weights, ("linear", "quadratic"))
    left_out = ("skip", "both_bad") if weights else ("skip",)
    labels = list(labels)
    for name in (first, second):
        if name not in {label["annotator"] for label in labels}:
            raise unknown_name("annotator", name, sorted({e["annotator"] for e in labels}))
    table = _table(e for e in labels if e["choice"] not in left_out)
    shared = {
        pair: {name: given[name] for name in (first, second)}
        for pair, given in table.items()
        if first in given and second in given
    }
    problem = _too_few(shared)
    if problem:
        return problem
    scale = "ordinal" if weights else "nominal"
    sides = [[_value(given[name], scale) for given in shared.values()] for name in (first, second)]
    if len({*sides[0], *sides[1]}) == 1:
        return _undefined(shared, "every label is the same, so there is nothing to agree on")

    from sklearn.metrics import cohen_kappa_score

    # Classes, in order: strengths are fractions, which scikit-learn would not take as labels.
    grades = sorted({*sides[0], *sides[1]})
    classes = [[grades.index(value) for value in side] for side in sides]
    return Agreement(float(cohen_kappa_score(*classes, weights=weights)), len(shared), 2)


def fleiss_kappa(labels: Iterable[Event]) -> Agreement:
    """Fleiss' kappa of any number of annotators, over the pairs that all of them labelled.

    Fleiss 1971, "Measuring nominal scale agreement among many raters". By statsmodels. Strengths
    are not looked at. Where few pairs were labelled by all, use `krippendorff_alpha`.
    """
    table = _table(label for label in labels if label["choice"] != "skip")
    everybody = _annotators(table)
    shared = {pair: given for pair, given in table.items() if len(given) == len(everybody)}
    problem = _too_few(shared, everybody)
    if problem:
        return problem
    counts = [Counter(label["choice"] for label in given.values()) for given in shared.values()]
    if len({choice for count in counts for choice in count}) == 1:
        return _undefined(shared, "every label is the same, so there is nothing to agree on")

    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a division by zero must not pass as a number
        found = kappa([[count[choice] for choice in CATEGORIES] for count in counts])
    return Agreement(float(found), len(shared), len(everybody))


def percent_agreement(labels: Iterable[Event]) -> Agreement:
    """Share of equal choices among all pairs of labels for the same pair; chance included."""
    table = _table(label for label in labels if label["choice"] != "skip")
    shared = {pair: given for pair, given in table.items() if len(given) > 1}
    problem = _too_few(shared)
    if problem:
        return problem
    equal = total = 0
    for given in shared.values():
        choices = Counter(label["choice"] for label in given.values())
        equal += sum(count * (count - 1) for count in choices.values())
        total += len(given) * (len(given) - 1)
    return Agreement(equal / total, len(shared), len(_annotators(shared)))


def _table(labels: Iterable[Event]) -> Table:
    table: Table = defaultdict(dict)
    for label in labels:
        if label["type"] != "label":
            raise CourseError("Agreement is measured over labels of pairs: pass log.labels().")
        table[label["pair_id"]][label["annotator"]] = label
    return dict(table)


def _annotators(table: Table) -> list[str]:
    return sorted({name for given in table.values() for name in given})


def _value(label: Event, scale: str) -> float:
    if scale == "ordinal":
        return round(signed_strength(label), 6)
    return float(CATEGORIES.index(label["choice"]))


def _too_few(table: Table, everybody: list[str] | None = None) -> Agreement | None:
    """Why nothing can be measured, if so."""
    if everybody is not None and len(everybody) < 2:
        return _undefined(table, "it takes two annotators or more")
    if not table:
        return _undefined(table, "no pair was labelled by two annotators or more")
    return None


def _undefined(table: Table, reason: str) -> Agreement:
    return Agreement(math.nan, len(table), len(_annotators(table)), reason)
