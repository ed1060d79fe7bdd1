"""Several annotators, one verdict per pair: by majority, or weighted by how reliable each is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from course_utils.errors import unknown_name
from course_utils.labeling.log import Event

METHODS = ("majority", "reliability")
ROUNDS = 200  # of EM at most; it converges in a few dozen
TOLERANCE = 1e-9
PRIOR_RIGHT, PRIOR_WRONG = 3, 1  # what everybody is credited with: Beta(4, 2)


@dataclass(frozen=True)
class Verdict:
    """What several annotators together say about one pair.

    Attributes:
        choice: a or b; tie or both_bad where no answer was preferred and that was said most often;
            empty where they are evenly split.
        margin: how clearly, 0 to 1: the mean of the signed strengths as shares of the scale, as far
            as it points towards `choice`. One annotator gives 1/3, 2/3 or 1 on a seven-point scale,
            the margins of Touvron et al. 2023 (arXiv 2307.09288, table 27).
        probability: that a is the better one, by the model of `reliability`; None by majority.
        labels: the labels behind it, skips left out.
    """

    choice: str
    margin: float
    labels: Sequence[Event]
    probability: float | None = None


def signed_strength(label: Event) -> float:
    """From -1 (b, as strongly as can be) to 1 (a); 0 for a tie and for both bad."""
    sign = {"a": 1.0, "b": -1.0}.get(label["choice"], 0.0)
    return sign * (label.get("strength") or 1) / label.get("levels", 1)


def by_pair(labels: Iterable[Event]) -> dict[str, list[Event]]:
    """Labels by pair, skips left out."""
    grouped: dict[str, list[Event]] = defaultdict(list)
    for label in labels:
        if label["choice"] != "skip":
            grouped[label["pair_id"]].append(label)
    return dict(grouped)


def aggregate_labels(labels: Iterable[Event], method: str = "majority") -> dict[str, Verdict]:
    """One verdict per pair.

    Args:
        labels: of any number of annotators, as `PreferenceLog.labels` gives them.
        method: ``majority`` counts annotators; ``reliability`` weighs votes for a and b, see
            `reliability`, unless most annotators said tie, or both bad.
    """
    if method not in METHODS:
        raise unknown_name("way to aggregate", method, METHODS)
    pairs = by_pair(labels)
    if method == "majority":
        return {pair_id: _verdict(group, _majority(group)) for pair_id, group in pairs.items()}
    chances = reliability(label for group in pairs.values() for label in group).probability
    return {
        pair_id: _verdict(group, _likelier(group, chances.get(pair_id)), chances.get(pair_id))
        for pair_id, group in pairs.items()
    }


def _majority(group: Sequence[Event]) -> str:
    """The choice named most often, of all; empty when two share the first place."""
    counts: dict[str, int] = defaultdict(int)
    for label in group:
        counts[label["choice"]] += 1
    best = max(counts.values())
    first = [choice for choice, count in counts.items() if count == best]
    return first[0] if len(first) == 1 else ""


def _likelier(group: Sequence[Event], probability: float | None) -> str:
    most = _majority(group)
    if probability is None or most in ("tie", "both_bad"):
        return most
    if math.isclose(probability, 0.5, abs_tol=1e-6):
        return ""
    return "a" if probability > 0.5 else "b"


def _verdict(group: Sequence[Event], choice: str, probability: float | None = None) -> Verdict:
    mean = sum(map(signed_strength, group)) / len(group)
    towards = {"a": mean, "b": -mean}.get(choice, 0.0)
    return Verdict(choice, max(0.0, towards), group, probability)


@dataclass(frozen=True)
class Reliability:
    """What `reliability` estimates.

    Attributes:
        accuracy: per annotator, the chance of choosing the better answer.
        probability: per pair, the chance that a is the better one.
    """

    accuracy: dict[str, float]
    probability: dict[str, float]


def reliability(labels: Iterable[Event]) -> Reliability:
    """How often each annotator is right, estimated without knowing what is right.

    Dawid & Skene 1979 ("Maximum likelihood estimation of observer error-rates using the EM
    algorithm", Applied Statistics 28) with one error rate per annotator: which answer is called a
    is arbitrary, so mistaking a for b is as likely as b for a, and both are right equally often.
    EM starts from the shares of votes. A Beta(4, 2) prior on each accuracy (as if everybody had
    been right three times and wrong once before) says that annotators are better than chance, and
    keeps one with few labels from counting as infallible. Ties, both bad and skips say nothing
    here. With a lone annotator, or two, there is little to estimate from: accuracies then follow
    from the prior and from who agrees with whom.
    """
    votes: dict[str, dict[str, bool]] = defaultdict(dict)
    for label in labels:
        if label["choice"] in ("a", "b"):
            votes[label["pair_id"]][label["annotator"]] = label["choice"] == "a"
    chance = {pair: sum(given.values()) / len(given) for pair, given in votes.items()}
    accuracy: dict[str, float] = {}
    for _ in range(ROUNDS):
        accuracy = _accuracies(votes, chance)
        before, chance = chance, {pair: _posterior(votes[pair], accuracy) for pair in votes}
        if all(abs(chance[pair] - before[pair]) < TOLERANCE for pair in chance):
            break
    return Reliability(accuracy, chance)


def _accuracies(votes: dict[str, dict[str, bool]], chance: dict[str, float]) -> dict[str, float]:
    """M step: the expected share of right votes, with the prior's votes added."""
    right: dict[str, list[float]] = defaultdict(list)
    for pair, given in votes.items():
        for annotator, for_a in given.items():
            right[annotator].append(chance[pair] if for_a else 1 - chance[pair])
    return {
        name: (sum(found) + PRIOR_RIGHT) / (len(found) + PRIOR_RIGHT + PRIOR_WRONG)
        for name, found in right.items()
    }


def _posterior(given: dict[str, bool], accuracy: dict[str, float]) -> float:
    """E step: the chance that a is better, after these votes."""
    log_odds = sum(
        (1 if for_a else -1) * math.log(accuracy[name] / (1 - accuracy[name]))
        for name, for_a in given.items()
    )
    return 1 / (1 + math.exp(min(-log_odds, 700.0)))  # exp(710) is more than a float holds
