"""Agreement and aggregation against published examples and values worked by hand."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest

from course_utils.errors import CourseError
from course_utils.labeling.aggregate import aggregate_labels, reliability, signed_strength
from course_utils.labeling.agreement import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)

STRENGTHS = {  # a compact way of writing labels down
    "A": ("a", 3),
    "a": ("a", 1),
    "t": ("tie", None),
    "b": ("b", 1),
    "B": ("b", 3),
    "x": ("both_bad", None),
    "s": ("skip", None),
}


def labels(**by_annotator: str) -> list[dict[str, Any]]:
    """One character per pair; a dot is a missing label."""
    return [
        {
            "type": "label",
            "pair_id": str(pair),
            "annotator": name,
            "choice": STRENGTHS[mark][0],
            "strength": STRENGTHS[mark][1],
            "levels": 3,
        }
        for name, marks in by_annotator.items()
        for pair, mark in enumerate(marks)
        if mark != "."
    ]


# Agreement


def test_krippendorffs_own_nominal_example() -> None:
    # Krippendorff 2011, section B: two observers, ten units, 0/1 data, alpha = 0.095
    found = krippendorff_alpha(labels(ana="babbbbbbab", bo="aaabbabbbb"), "nominal")
    assert found.value == pytest.approx(0.095, abs=5e-4)
    assert (found.pairs, found.annotators, found.reason) == (10, 2, "")
    assert str(found) == "0.095 (2 annotators, 10 pairs)" and float(found) == found.value


def test_nominal_alpha_with_missing_data_from_its_definition() -> None:
    marks = {"1": "a", "2": "b", "3": "t", "4": "x", ".": "."}
    observers = {
        "o1": "1233212412..",
        "o2": "1233224412.3",
        "o3": ".333234422..",
        "o4": "1233224412..",
    }
    data = labels(**{n: "".join(marks[m] for m in given) for n, given in observers.items()})
    found = krippendorff_alpha(data, "nominal")
    assert found.value == pytest.approx(nominal_alpha(observers), abs=1e-9)
    assert found.pairs == 10  # units with one label say nothing


def nominal_alpha(observers: dict[str, str]) -> float:
    """Alpha from its definition: 1 - observed over expected disagreement, in exact fractions."""
    units = [[m for m in column if m != "."] for column in zip(*observers.values(), strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    everything = [mark for unit in units for mark in unit]
    n = len(everything)
    observed = sum(
        Fraction(sum(x != y for x, y in itertools.permutations(unit, 2)), len(unit) - 1)
        for unit in units
    ) / Fraction(n)
    expected = Fraction(sum(x != y for x, y in itertools.permutations(everything, 2)), n * (n - 1))
    return float(1 - observed / expected)


def test_ordinal_alpha_from_its_definition() -> None:
    # Values -1 < -1/3 < 0 < 1/3 < 1; the ordinal distance of c and k is the square of the number
    # of labels from c to k less half of those at the two ends (Krippendorff 2011, section E).
    marks = {"ana": "AAatbBAb", "bo": "AatbbBb.", "cy": "Aat.BBtb"}
    order = "BbtaA"
    units = [[m for m in column if m != "."] for column in zip(*marks.values(), strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    everything = [mark for unit in units for mark in unit]
    count = {mark: everything.count(mark) for mark in order}

    def distance(x: str, y: str) -> float:
        low, high = sorted((order.index(x), order.index(y)))
        between = sum(count[mark] for mark in order[low : high + 1])
        return (between - (count[x] + count[y]) / 2) ** 2 if x != y else 0.0

    n = len(everything)
    observed = sum(
        sum(distance(x, y) for x, y in itertools.permutations(unit, 2)) / (len(unit) - 1)
        for unit in units
    )
    expected = sum(distance(x, y) for x, y in itertools.permutations(everything, 2)) / (n - 1)
    assert krippendorff_alpha(labels(**marks)).value == pytest.approx(1 - observed / expected)


def test_the_ordinal_scale_forgives_what_is_near_and_leaves_both_bad_out() -> None:
    near = krippendorff_alpha(labels(ana="AAaaBBbb", bo="aaAAbbBB")).value
    far = krippendorff_alpha(labels(ana="AAaaBBbb", bo="BBbbAAaa")).value
    assert near > 0.3 > 0 > far
    without = krippendorff_alpha(labels(ana="AAB", bo="AaB"))
    with_bad = krippendorff_alpha(labels(ana="AABxsA", bo="AaBx.x"))
    assert with_bad.value == without.value and with_bad.pairs == 3


def test_cohens_kappa_by_hand() -> None:
    # 20 x both a, 5 x a/b, 10 x b/a, 15 x both b: po = 0.7, pe = 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    data = labels(ana="a" * 25 + "b" * 25, bo="a" * 20 + "b" * 5 + "a" * 10 + "b" * 15)
    found = cohen_kappa(data, "ana", "bo")
    assert found.value == pytest.approx(0.4)
    assert (found.pairs, found.annotators) == (50, 2)
    assert percent_agreement(data).value == pytest.approx(0.7)


def test_weighted_kappa_by_hand() -> None:
    # grades b < tie < a as 0, 1, 2; linear weights |i - j|. Observed: (0 + 1 + 0 + 2) / 4.
    # Margins: ana b 1/4, t 1/4, a 1/2; bo b 1/2, t 0, a 1/2. Expected:
    # 1/4*(1/2*2) + 1/4*(1/2 + 1/2) + 1/2*(1/2*2) = 1. kappa = 1 - 0.75 / 1.
    data = labels(ana="btaa", bo="baab")
    assert cohen_kappa(data, "ana", "bo", weights="linear").value == pytest.approx(0.25)
    # strong and weak are different grades
    graded = cohen_kappa(labels(ana="AaBb", bo="aABb"), "ana", "bo", weights="quadratic").value
    assert cohen_kappa(labels(ana="AaBb", bo="aABb"), "ana", "bo").value == 1.0
    assert 0.5 < graded < 1.0


def test_fleiss_kappa_from_its_definition() -> None:
    by_pair = ["aaaa", "aaab", "abbb", "ttbb", "xxxa", "xxxx", "tttt"]
    data = labels(**{f"r{i}": "".join(given[i] for given in by_pair) for i in range(4)})
    n, size = 4, len(by_pair)
    agree = sum(
        Fraction(sum(g.count(c) * (g.count(c) - 1) for c in "abtx"), n * (n - 1)) for g in by_pair
    ) / Fraction(size)
    chance = sum(Fraction(sum(g.count(c) for g in by_pair), n * size) ** 2 for c in "abtx")
    found = fleiss_kappa(data)
    assert found.value == pytest.approx(float((agree - chance) / (1 - chance)))
    assert (found.pairs, found.annotators) == (7, 4)


def test_fleiss_looks_at_pairs_that_everybody_labelled() -> None:
    found = fleiss_kappa(labels(ana="abab.", bo="abbas", cy="abab."))
    assert found.pairs == 4
    assert found.value == fleiss_kappa(labels(ana="abab", bo="abba", cy="abab")).value


MEASURES = {
    "ordinal": krippendorff_alpha,
    "nominal": lambda data: krippendorff_alpha(data, "nominal"),
    "cohen": lambda data: cohen_kappa(data, "ana", "bo"),
    "fleiss": fleiss_kappa,
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ana": "aab.", "bo": "...b"}, "no pair was labelled by two annotators"),
        ({"ana": "aa", "bo": "aa"}, "every label is the same"),
        ({"ana": "ss", "bo": "ab"}, "two annotators"),
    ],
)
def test_what_is_not_defined_is_nan_with_the_reason(
    measure: str, given: dict[str, str], reason: str
) -> None:
    found = MEASURES[measure](labels(**given))
    assert math.isnan(found.value)
    assert reason in found.reason and str(found) == f"undefined: {found.reason}"


def test_perfect_agreement_is_one_and_wrong_names_are_named() -> None:
    data = labels(ana="abtxa", bo="abtxa")
    for measure in MEASURES.values():
        assert measure(data).value == pytest.approx(1.0)
    with pytest.raises(CourseError, match="Unknown annotator 'cy'"):
        cohen_kappa(data, "ana", "cy")
    with pytest.raises(CourseError, match="Unknown scale"):
        krippendorff_alpha(data, "interval")  # type: ignore[arg-type]
    with pytest.raises(CourseError, match="Unknown weights"):
        cohen_kappa(data, "ana", "bo", weights="cubic")
    with pytest.raises(CourseError, match="labels of pairs"):
        fleiss_kappa([{**data[0], "type": "rating"}])
    assert math.isnan(percent_agreement([]).value)


# Aggregation


def test_signed_strength() -> None:
    values = [signed_strength(label) for label in labels(ana="AatbBx")]
    assert values == pytest.approx([1, 1 / 3, 0, -1 / 3, -1, 0])
    assert signed_strength({"choice": "b", "strength": 1, "levels": 1}) == -1


@pytest.mark.parametrize(
    ("votes", "choice", "margin"),
    [
        ("AAA", "a", 1.0),
        ("AAB", "a", 1 / 3),  # (1 + 1 - 1) / 3: as the margins of the shipped pairs
        ("aaB", "a", 0.0),  # the majority is for a, the mean is not
        ("bbt", "b", 2 / 9),
        ("AB", "", 0.0),
        ("tta", "tie", 0.0),
        ("xxa", "both_bad", 0.0),
        ("As", "a", 1.0),  # who skips does not vote
    ],
)
def test_the_majority_by_hand(votes: str, choice: str, margin: float) -> None:
    given = {f"n{i}": vote for i, vote in enumerate(votes)}
    verdict = aggregate_labels(labels(**given))["0"]
    assert verdict.choice == choice
    assert verdict.margin == pytest.approx(margin)


def test_pairs_that_everybody_skipped_have_no_verdict() -> None:
    assert set(aggregate_labels(labels(ana="sa", bo="s."))) == {"1"}
    with pytest.raises(CourseError, match="Unknown way to aggregate"):
        aggregate_labels([], "mean")


def test_reliability_maximises_the_posterior() -> None:
    """Against a search over a grid of accuracies, with the likelihood written out."""
    votes = {"ana": "aabbaabbab", "bo": "aabbaabbba", "cy": "abababbbab"}

    def log_posterior(accuracy: dict[str, float]) -> float:
        total = sum(3 * math.log(p) + math.log(1 - p) for p in accuracy.values())  # Beta(4, 2)
        for pair in range(10):
            total += math.log(
                sum(
                    0.5
                    * math.prod(
                        p if votes[name][pair] == truth else 1 - p for name, p in accuracy.items()
                    )
                    for truth in "ab"
                )
            )
        return total

    found = reliability(labels(**votes))
    best = log_posterior(found.accuracy)
    grid = [i / 50 for i in range(25, 50)]
    for values in itertools.product(grid, repeat=3):
        assert log_posterior(dict(zip(votes, values, strict=True))) <= best + 1e-6
    assert found.accuracy["cy"] < min(found.accuracy["ana"], found.accuracy["bo"])


def test_the_reliable_outvote_the_many() -> None:
    """Two good annotators against three who guess: recovered where the majority is wrong."""
    import random

    rng = random.Random(0)
    truth = [rng.choice("ab") for _ in range(300)]
    chances = {"good1": 0.97, "good2": 0.95, "bad1": 0.55, "bad2": 0.55, "bad3": 0.55}
    flip = {"a": "b", "b": "a"}
    data = labels(
        **{
            name: "".join(t if rng.random() < p else flip[t] for t in truth)
            for name, p in chances.items()
        }
    )
    found = reliability(data)
    for name, p in chances.items():
        assert abs(found.accuracy[name] - p) < 0.1

    def right(method: str) -> float:
        verdicts = aggregate_labels(data, method)
        return sum(verdicts[str(i)].choice == t for i, t in enumerate(truth)) / len(truth)

    assert right("reliability") > 0.93 > 0.9 > right("majority")


def test_reliability_leaves_ties_to_the_majority_and_splits_undecided() -> None:
    verdicts = aggregate_labels(labels(ana="aatx", bo="abtx", cy="..ab"), "reliability")
    assert [verdicts[str(i)].choice for i in range(4)] == ["a", "", "tie", "both_bad"]
    assert verdicts["0"].probability > 0.5
    assert verdicts["1"].probability == pytest.approx(0.5)
    lone = reliability(labels(ana="aaaa"))
    assert 0.5 < lone.accuracy["ana"] < 1 and reliability([]).accuracy == {}
