"""What simulated annotators are good for: their labels can be held against the truth.

For chapter 03. A pair whose case is known has a gold score on each side (`world.gold`); nobody who
labels real answers has that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_utils.data import GOLD_TIE, prompt_of
from course_utils.errors import CourseError
from course_utils.labeling.items import Pair, read_pairs
from course_utils.labeling.log import Event
from course_utils.labeling.session import Shown
from course_utils.world.facts import make_world
from course_utils.world.gold import Gold, score

if TYPE_CHECKING:
    from course_utils.world.cases import Case
    from course_utils.world.preferences import Annotator


@dataclass(frozen=True)
class KnownPair:
    """A pair with what gold makes of answer a and of answer b."""

    pair: Pair
    gold_a: Gold
    gold_b: Gold

    @property
    def better(self) -> str:
        """The better answer, a or b; empty where they differ by less than `data.GOLD_TIE`."""
        gap = self.gold_a.total - self.gold_b.total
        if abs(gap) < GOLD_TIE:
            return ""
        return "a" if gap > 0 else "b"

    @property
    def longer(self) -> str:
        """The answer with more words, a or b; empty where they are equally long."""
        gap = self.gold_a.reading.words - self.gold_b.reading.words
        return "" if gap == 0 else "a" if gap > 0 else "b"

    def chance_of_a(self, annotator: Annotator) -> float:
        """How likely this annotator is to prefer answer a."""
        return annotator.prefers_first(self.gold_a, self.gold_b, random.Random(0))[1]


def known_pairs(
    rows: Iterable[Mapping[str, Any] | Pair], cases: Iterable[Case]
) -> dict[str, KnownPair]:
    """Pairs with their gold, by pair_id; rows that no session would show are left out.

    Raises:
        CourseError: a row of another form, or a prompt that is not of one of the cases.
    """
    by_prompt = {prompt_of(case): case for case in cases}
    world = make_world()
    found = {}
    for pair in read_pairs(rows)[0]:
        case = by_prompt.get(pair.prompt)
        if case is None:
            raise CourseError(
                f"No case has the prompt {pair.prompt[:60]!r}: pass the cases that were sampled."
            )
        golds = (score(case, text, world) for text in (pair.response_a, pair.response_b))
        found[pair.pair_id] = KnownPair(pair, *golds)
    return found


def right_and_asked(
    choices: Iterable[tuple[str, str]], known: Mapping[str, KnownPair]
) -> tuple[int, int]:
    """(choices of the better answer, choices of either), where gold knows a better one.

    Args:
        choices: (pair_id, choice); ties, both bad and skips are not counted.
    """
    decided = [(known[i].better, c) for i, c in choices if known[i].better and c in ("a", "b")]
    return sum(better == choice for better, choice in decided), len(decided)


def said(labels: Iterable[Event]) -> list[tuple[str, str]]:
    """(pair_id, choice) of each label."""
    return [(label["pair_id"], label["choice"]) for label in labels]


@dataclass(frozen=True)
class Ceiling:
    """How well labels by annotators drawn at random from a pool can be foreseen. Exact.

    Attributes:
        agreement: chance that two labels of the same pair, drawn independently, are the same.
        best: accuracy on single labels of someone who knows every annotator's chances.
    """

    agreement: float
    best: float


def label_ceiling(known: Iterable[KnownPair], annotators: Sequence[Annotator]) -> Ceiling:
    """Agreement and best accuracy for a pool of annotators, from their chances on each pair."""
    chances = [
        sum(pair.chance_of_a(annotator) for annotator in annotators) / len(annotators)
        for pair in known
    ]
    return Ceiling(
        sum(p**2 + (1 - p) ** 2 for p in chances) / len(chances),
        sum(max(p, 1 - p) for p in chances) / len(chances),
    )


def accuracy_bounds(agreement: float) -> tuple[float, float]:
    """Between which accuracies the best prediction of single labels lies, given their agreement.

    On a pair whose likelier label has the chance q, two labels agree with a = q² + (1 - q)², so
    q = (1 + √(2a - 1)) / 2. Never is q below a; and since the root is concave, the mean of q is
    at most the root's formula at the mean of a.

    Args:
        agreement: share of equal labels, at least one half (what chance gives).

    Raises:
        CourseError: a smaller agreement, or one above 1.
    """
    if not 0.5 <= agreement <= 1:
        raise CourseError(f"agreement is {agreement:.3g}: two labels agree in 0.5 to 1 of cases.")
    return agreement, (1 + math.sqrt(2 * agreement - 1)) / 2


def leaning_left(
    choose: Callable[[Pair], str], share: float, seed: int = 0
) -> Callable[[Shown], str]:
    """An annotator who in a `share` of cases takes what stands on the left, without reading.

    In the rest of the cases `choose` decides, by content. Which cases these are depends on the
    pair and the seed, not on the sides, so that designs can be compared on the same cases.
    """

    def decide(shown: Shown) -> str:
        careless = random.Random(f"{seed}-left-{shown.pair.pair_id}").random() < share
        return shown.left if careless else choose(shown.pair)

    return decide


def clicks_at_random(seed: int = 0) -> Callable[[Pair], tuple[str, int]]:
    """An annotator who does not read at all, for `label_with`."""

    def decide(pair: Pair) -> tuple[str, int]:
        rng = random.Random(f"{seed}-clicks-{pair.pair_id}")
        return rng.choice("ab"), rng.randint(1, 3)

    return decide


def likes_longer(pair: Pair) -> tuple[str, int]:
    """The longer answer, always: a stand-in where nobody knows gold."""
    return ("a" if len(pair.response_a) >= len(pair.response_b) else "b"), 1
