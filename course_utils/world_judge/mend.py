"""The answer with the named faults mended: what a good revision of it would be.

What is not named stays as it is. Unfriendly and empty phrases are taken out; a body that is at
fault is written anew by a careful writer, who keeps the facts that were right.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from course_utils.world import vocabulary as voc
from course_utils.world import writing
from course_utils.world.answers import WRITERS, Recipe
from course_utils.world.cases import Case
from course_utils.world.facts import World
from course_utils.world.gold import Reading

from .faults import Assessment, unwrap

MANNERS = frozenset({"rude", "padded"})
EXPLAIN_FACTS, COMPARE_FACTS = 3, 2


def careful_answer(
    case: Case, world: World, rng: random.Random, keep: Reading | None = None
) -> str:
    """What a careful writer answers; `keep` is a reading of an answer whose right facts stay."""
    right = keep.right if keep else frozenset()
    if case.task == "explain":
        thing = world.thing(case.topics[0])
        kept = [a for a in thing.facts if (thing.name.lower(), a) in right]
        return writing.describe(thing, _filled(kept, thing.facts, EXPLAIN_FACTS, rng), rng)
    if case.task in ("attribute", "alarming"):
        thing = world.thing(case.topics[0])
        kept = [a for a in thing.facts if (thing.name.lower(), a) in right and a != case.attribute]
        return writing.describe(thing, [case.attribute, *kept[:2]], rng)
    if case.task == "compare":
        a, b = (world.thing(name) for name in case.topics)
        patterns = voc.SENTENCES[a.category]
        usable = [x for x in a.facts if any(p.startswith("{S}") for p in patterns[x])]
        usable = [x for x in usable if a.facts[x] != b.facts[x]] or usable
        kept = [x for x in usable if {(a.name.lower(), x), (b.name.lower(), x)} <= right]
        return writing.compare(a, b, _filled(kept, usable, COMPARE_FACTS, rng), rng)
    return WRITERS[case.task](case, world, Recipe(), rng)


def _filled(kept: list[str], known: Iterable[str], count: int, rng: random.Random) -> list[str]:
    """`kept`, at most `count`, and as many others as are missing."""
    others = [a for a in known if a not in kept]
    missing = max(0, min(count - len(kept), len(others)))
    return [*kept[:count], *rng.sample(others, missing)]


def mend(
    case: Case,
    text: str,
    named: Iterable[str],
    assessment: Assessment,
    world: World,
    rng: random.Random,
) -> str:
    """`text` with the `named` faults mended; without any it comes back as it is."""
    faults = set(named)
    if not faults:
        return text
    before, body, after = unwrap(text)
    if faults - MANNERS:
        body = careful_answer(case, world, rng, assessment.gold.reading)
    if "broken" in faults:
        return body  # what surrounds it is broken, too
    gone = {*voc.RUDE} if "rude" in faults else set()
    gone |= {*voc.CHEERS, *voc.PADDING} if "padded" in faults else set()
    kept_before = [p for p in before if p not in gone]
    kept_after = [p for p in after if p not in gone]
    separator = "\n" if "\n" in body else " "
    mended = separator.join([*kept_before, body, *kept_after])
    # Nothing to take out: the fault lies inside the body (an unfriendly sentence in its middle).
    return mended if mended != text else careful_answer(case, world, rng, assessment.gold.reading)
