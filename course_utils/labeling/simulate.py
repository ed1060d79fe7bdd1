"""Labelling without a person: a function decides, through the very session a person uses."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError
from course_utils.labeling.items import Pair
from course_utils.labeling.session import PreferenceSession, RatingSession

if TYPE_CHECKING:
    from course_utils.world.cases import Case
    from course_utils.world.facts import World
    from course_utils.world.preferences import Annotator

Decision = str | tuple[str, int | None]
SIMULATED = "simulated"  # what stands in the log as `via`
SURE, CLEAR = 0.9, 0.7  # chances that what was seen would give, from which strength is 3 and 2


def label_with(
    session: PreferenceSession | RatingSession,
    annotator: Callable[[Any], Decision],
    *,
    limit: int | None = None,
) -> int:
    """Let a function label what is left of a session; returns how many labels it made.

    Args:
        session: its log gets the labels, with ``via`` "simulated".
        annotator: `Pair` -> (choice, strength), or the choice alone where it has no strength;
            for a `RatingSession`, `Answer` -> choice. It never learns the sides.
        limit: at most so many labels.
    """
    made = 0
    while (item := session.current_item) is not None and (limit is None or made < limit):
        decision = annotator(item)
        choice, strength = (decision, None) if isinstance(decision, str) else decision
        if isinstance(session, PreferenceSession):
            session.decide(choice, strength, via=SIMULATED)
        else:
            session.rate(choice, via=SIMULATED)
        made += 1
    return made


def world_annotator(
    annotator: Annotator,
    cases: Iterable[Case],
    *,
    world: World | None = None,
    seed: int = 0,
    levels: int = 3,
) -> Callable[[Pair], tuple[str, int]]:
    """One of the closed world's simulated annotators, as a function for `label_with`.

    It chooses as `Annotator.prefers_first` does. Such a choice is what somebody makes who sees the
    difference in utility with logistic noise (Bradley–Terry as a random utility), and the strength
    follows what is seen, noise included: 3 where it would make a choice of 0.9 likely, 2 from 0.7,
    else 1. So a wrong choice can be a strong one. The same pair gets the same label whenever it is
    asked for.

    Args:
        cases: what the pairs' prompts ask, so that the answers' gold can be worked out.
        levels: 1 gives every choice strength 1.
    """
    from course_utils.data import prompt_of
    from course_utils.world.facts import make_world
    from course_utils.world.gold import score

    the_world = world or make_world()
    by_prompt = {prompt_of(case): case for case in cases}

    def decide(pair: Pair) -> tuple[str, int]:
        case = by_prompt.get(pair.prompt)
        if case is None:
            raise CourseError(
                f"No case has the prompt {pair.prompt[:60]!r}: pass the cases that were sampled."
            )
        golds = [score(case, text, the_world) for text in (pair.response_a, pair.response_b)]
        drawn = f"{seed}-{annotator.name}-{pair.pair_id}"
        first, p = annotator.prefers_first(golds[0], golds[1], random.Random(drawn))
        # It chose by one draw u < p, which is the same as logit(p) - logit(u) > 0.
        seen = abs(_logit(p) - _logit(random.Random(drawn).random()))
        strength = 1 if levels == 1 else 1 + (seen >= _logit(CLEAR)) + (seen >= _logit(SURE))
        return ("a" if first else "b"), strength

    return decide


def _logit(p: float) -> float:
    """log(p / (1 - p)); a large number where p is 0 or 1."""
    inside = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(inside / (1 - inside))
