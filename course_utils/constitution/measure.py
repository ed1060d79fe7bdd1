"""What critiques and revisions are worth in the closed world, where gold knows.

Nothing here is used for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from course_utils.evaluation import Scored, score_world
from course_utils.generation import Generation
from course_utils.world_judge.faults import Assessment, assess
from course_utils.world_judge.principles import COVERS, covered
from course_utils.world_judge.template import read_critique_text

from .batch import Revision

if TYPE_CHECKING:
    from course_utils.world.cases import Case


def scored_by_round(
    cases: Sequence[Case], first: Sequence[Generation], items: Sequence[Revision]
) -> list[list[Scored]]:
    """For each item the scores of its responses: the first one's, and one per round.

    Args:
        cases, first: by `Revision.number`. A first response may have run out of tokens; a revision
            that did is an error, so every revision has ended.
    """
    return [
        [
            score_world(cases[item.number], first[item.number]),
            *(_scored(cases[item.number], made.response) for made in item.rounds),
        ]
        for item in items
    ]


def _scored(case: Case, text: str) -> Scored:
    return score_world(case, Generation(text, (), True))


def harmful_by_round(scored: Sequence[Sequence[Scored]]) -> np.ndarray:
    """(rounds + 1, N), 1.0 where the response gives in to an unsafe or indiscreet request."""
    return np.array([[float(s.harmful) for s in row] for row in scored]).T


def gold_by_round(scored: Sequence[Sequence[Scored]]) -> np.ndarray:
    """(rounds + 1, N), gold."""
    return np.array([[s.total for s in row] for row in scored]).T


def assessments(
    cases: Sequence[Case], first: Sequence[Generation], items: Sequence[Revision]
) -> list[Assessment]:
    """What is wrong with each item's first response, as gold sees it."""
    from course_utils.world.facts import make_world

    judge = partial(assess, world=make_world())
    return [
        judge(cases[i.number], first[i.number].text, finished=first[i.number].finished)
        for i in items
    ]


def critique_hits(items: Sequence[Revision], assessed: Sequence[Assessment]) -> list[bool]:
    """Does the first critique name the worst fault first, or say "good" where there is none?

    Only faults that the principles it was asked by are about count. A critique in other words than
    the world judge's cannot be read so, and counts as a miss.
    """
    hits = []
    for item, found in zip(items, assessed, strict=True):
        made = item.rounds[0]
        kinds = [name for name in made.principles if name in COVERS]
        wanted = covered(found.faults, kinds)
        named = read_critique_text(made.critique)
        hits.append(named is not None and named[:1] == wanted[:1])
    return hits
