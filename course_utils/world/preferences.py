"""Preference pairs labelled by simulated annotators whose habits are known.

An annotator prefers A with probability sigmoid(noise-scaled utility difference), the Bradley–Terry
choice model, where utility = gold quality as this annotator sees it + a liking for long and for
cheerful answers. Three of five annotators label each pair; the majority gives chosen and rejected.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from .answers import EVASIONS, Recipe, write_answer
from .cases import Case
from .facts import World
from .gold import Gold, score

LABELS_PER_PAIR = 3
# Shares of the answers that are compared. A reward model only knows what its pairs have shown it,
# so they hold what a policy may come to say, too.
RUDE = (0.6, 0.25, 0.15)  # with no, one and two unfriendly sentences
WRONG = 0.04  # with a false fact
EVASIVE = 0.12  # declining, whatever is asked
BROKEN = 0.03  # with words lost, or everything said twice


@dataclass(frozen=True)
class Annotator:
    """How a simulated annotator judges.

    Attributes:
        name: stands in the data.
        sharpness: how strongly a difference in utility decides; small means noisy.
        per_ten_words: liking for ten more words.
        per_cheer: liking for one more cheerful phrase.
        checks_facts: 1 notices every false fact, 0 none.
    """

    name: str
    sharpness: float
    per_ten_words: float
    per_cheer: float
    checks_facts: float

    def utility(self, gold: Gold) -> float:
        """What this annotator makes of an answer; gold's rules on length and cheer are not felt."""
        quality = gold.helpful + gold.harmless + gold.clear + self.checks_facts * gold.honest
        manners = -1.0 * min(2, gold.reading.rude)
        liking = self.per_ten_words * gold.reading.words / 10 + self.per_cheer * gold.reading.cheers
        return quality + manners + liking

    def prefers_first(self, a: Gold, b: Gold, rng: random.Random) -> tuple[bool, float]:
        """(does A win, probability that it does)."""
        logit = self.sharpness * (self.utility(a) - self.utility(b))
        p = 1.0 / (1.0 + math.exp(min(-logit, 700.0)))  # exp(710) is more than a float holds
        return rng.random() < p, p


ANNOTATORS = (
    Annotator("ana", sharpness=2.0, per_ten_words=0.1, per_cheer=0.3, checks_facts=1.0),
    Annotator("bo", sharpness=1.5, per_ten_words=0.25, per_cheer=0.5, checks_facts=0.8),
    Annotator("cy", sharpness=1.0, per_ten_words=0.4, per_cheer=0.9, checks_facts=0.6),
    Annotator("dee", sharpness=1.5, per_ten_words=0.2, per_cheer=0.7, checks_facts=0.9),
    Annotator("eli", sharpness=0.6, per_ten_words=0.3, per_cheer=0.6, checks_facts=0.5),
)
# Someone without bias or noise, for the control experiments.
CLEAN = Annotator("clean", sharpness=50.0, per_ten_words=0.0, per_cheer=0.0, checks_facts=1.0)


def answer_recipe(rng: random.Random, task: str) -> Recipe:
    """An answer as it might come from some model: anything from excellent to bad."""
    asked_only = task in ("attribute", "alarming")
    recipe = Recipe(
        facts=rng.choice((0, 0, 1, 2)) if asked_only else rng.choice((1, 1, 2, 3, 3)),
        careful=rng.random() < 0.5,
        cheers=rng.choices((0, 1, 2, 3), weights=(6, 2, 1, 1))[0],
        padding=rng.choices((0, 1, 2), weights=(8, 2, 1))[0],
        flavour=rng.random() < 0.25,
        wrong=int(rng.random() < WRONG),
    )
    rude = rng.choices((0, 1, 2), weights=RUDE)[0]
    if rude:
        recipe = replace(recipe, rude=rude, cheers=0)
    if rng.random() < EVASIVE:
        recipe = replace(recipe, evade=rng.choice(tuple(EVASIONS)))
    return recipe


def spoil(text: str, rng: random.Random) -> str:
    """`text` as a model says it that breaks up: a quarter of its words lost, or all of it twice."""
    words = text.split(" ")
    if rng.random() < 0.3:
        return f"{text} {text}"
    return " ".join(word for word in words if rng.random() < 0.75) or words[0]


def any_answer(case: Case, world: World, rng: random.Random) -> str:
    """What some model might answer, now and then in broken sentences."""
    text = write_answer(case, world, answer_recipe(rng, case.task), rng)
    return spoil(text, rng) if rng.random() < BROKEN else text


def two_answers(case: Case, world: World, rng: random.Random) -> tuple[str, str]:
    """Two different answers to the same case."""
    for _ in range(50):
        a, b = (any_answer(case, world, rng) for _ in range(2))
        if a != b:
            return a, b
    raise RuntimeError(f"no two different answers for {case.instruction!r}")


def label_pair(
    case: Case, a: str, b: str, annotators: tuple[Annotator, ...], world: World, rng: random.Random
) -> dict[str, Any]:
    """One row: the majority's chosen and rejected, every vote, and gold for measuring.

    `votes` holds, per annotator, 1 for a vote for `chosen` and 0 for `rejected`.
    """
    gold_a, gold_b = score(case, a, world), score(case, b, world)
    votes = {n.name: n.prefers_first(gold_a, gold_b, rng)[0] for n in annotators}
    first = 2 * sum(votes.values()) > len(votes)
    chosen, rejected = (a, b) if first else (b, a)
    gold_chosen, gold_rejected = (gold_a, gold_b) if first else (gold_b, gold_a)
    return {
        "case_id": case.case_id,
        "instruction": case.instruction,
        "context": case.context,
        "chosen": chosen,
        "rejected": rejected,
        "votes": {name: int(vote == first) for name, vote in votes.items()},
        "gold_chosen": round(gold_chosen.total, 3),
        "gold_rejected": round(gold_rejected.total, 3),
    }


def majority_probability(
    case: Case,
    a: str,
    b: str,
    world: World | None = None,
    annotators: tuple[Annotator, ...] = ANNOTATORS,
) -> float:
    """Probability that the majority of a fresh panel prefers `a` to `b`.

    A panel is `LABELS_PER_PAIR` of `annotators`, every choice of them equally likely as in
    `make_preferences`. Exact: all panels and all their votes are enumerated.
    """
    gold_a, gold_b = score(case, a, world), score(case, b, world)
    unused = random.Random(0)
    chances = [n.prefers_first(gold_a, gold_b, unused)[1] for n in annotators]
    panels = list(combinations(chances, min(LABELS_PER_PAIR, len(annotators))))
    return sum(map(_majority, panels)) / len(panels)


def _majority(chances: tuple[float, ...]) -> float:
    """Probability that more than half of independent votes with these chances are for."""
    total = 0.0
    for votes in product((True, False), repeat=len(chances)):
        if 2 * sum(votes) > len(votes):
            total += math.prod(c if v else 1 - c for c, v in zip(chances, votes, strict=True))
    return total


def make_preferences(
    cases: list[Case],
    world: World,
    seed: int,
    count: int,
    annotators: tuple[Annotator, ...] = ANNOTATORS,
) -> list[dict[str, Any]]:
    """`count` labelled pairs over `cases` (each used as often as needed)."""
    rng = random.Random(f"{seed}-preferences")
    rows = []
    for i in range(count):
        case = cases[i % len(cases)]
        a, b = two_answers(case, world, rng)
        chosen = tuple(rng.sample(annotators, min(LABELS_PER_PAIR, len(annotators))))
        rows.append(label_pair(case, a, b, chosen, world, rng))
    return rows
