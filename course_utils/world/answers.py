"""Answers of every quality: what demonstrators write and what annotators compare.

A `Recipe` says how good the answer is to be; `write_answer` writes it. The qualities are the
dials later chapters turn: number of facts, false facts, tone, length, refusal.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from . import vocabulary as voc
from . import writing
from .cases import Case
from .facts import Thing, World, translate

EVASIONS = {
    "refuse": voc.REFUSALS,
    "private": voc.PRIVATE_REFUSALS,
    "unknown": voc.UNKNOWN_REPLIES,
}


@dataclass(frozen=True)
class Recipe:
    """How an answer is to be written.

    Attributes:
        facts: how many facts to state (beyond the one asked for, in ``attribute`` cases).
        wrong: how many of them are to be false.
        careful: refuse what should be refused, keep private, admit not knowing.
        evade: say only that it will not help, is private or unknown, whatever is asked: a key of
            `EVASIONS`.
        cheers: cheerful phrases, half in front and half behind.
        padding: long empty sentences.
        rude: unfriendly sentences: one stands in front, a second one behind.
        flavour: a factless line of local colour.
    """

    facts: int = 2
    wrong: int = 0
    careful: bool = True
    evade: str = ""
    cheers: int = 0
    padding: int = 0
    rude: int = 0
    flavour: bool = False


def _explain(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    thing = world.thing(case.topics[0])
    attributes = rng.sample(sorted(thing.facts), min(max(recipe.facts, 1), len(thing.facts)))
    wrong = attributes[: recipe.wrong]
    return writing.describe(thing, attributes, rng, wrong=wrong, flavour=recipe.flavour)


def _attribute(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    thing = world.thing(case.topics[0])
    others = [a for a in sorted(thing.facts) if a != case.attribute]
    attributes = [case.attribute, *rng.sample(others, min(recipe.facts, len(others)))]
    wrong = attributes[: recipe.wrong]
    return writing.describe(thing, attributes, rng, wrong=wrong, flavour=recipe.flavour)


def _compare(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    a, b = (world.thing(name) for name in case.topics)
    usable = [
        x for x in sorted(a.facts) if any(p.startswith("{S}") for p in voc.SENTENCES[a.category][x])
    ]
    different = [x for x in usable if a.facts[x] != b.facts[x]] or usable
    chosen = rng.sample(different, min(max(recipe.facts, 1), len(different)))
    return writing.compare(a, b, chosen, rng, wrong=recipe.wrong > 0)


def _haiku(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    return writing.haiku(world.thing(case.topics[0]), rng, wrong=recipe.wrong > 0)


def _translate(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    words = translate(case.context).split()
    if recipe.wrong:
        pool = [*voc.LEXICON_NOUNS.values(), *voc.LEXICON_VERBS.values()]
        words[rng.randrange(3)] = rng.choice([w for w in pool if w not in words])
    return " ".join(words)


def _closed_qa(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    thing = Thing(case.topics[0], case.category, case.facts)
    value = case.facts[case.attribute]
    if recipe.wrong:
        value = writing.wrong_value(thing, case.attribute, rng)
    return writing.sentence(thing, case.attribute, value, rng, named=True)


def _person(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    return writing.about_person(world.people_by_name[case.topics[0]], case.attribute, rng)


def _evasion(case: Case, world: World, kind: str, rng: random.Random) -> str:
    """An answer that declines, whether the case calls for it or not."""
    name = case.topics[0] if case.topics else rng.choice(world.things).name
    if name in world.by_name:
        noun = world.by_name[name].noun
    else:
        noun = name if name in world.people_by_name else f"the {name}"
    return rng.choice(EVASIONS[kind]).format(name=name.removeprefix("the "), noun=noun)


def _private(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    if recipe.careful:
        return _evasion(case, world, "private", rng)
    return _person(case, world, recipe, rng)


def _unknown(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    if recipe.careful:
        return _evasion(case, world, "unknown", rng)
    return writing.invented_claim(case, rng)


def _unsafe(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    if recipe.careful:
        return rng.choice(voc.REFUSALS)
    return writing.unsafe_advice(case.unsafe_topic, rng)


Writer = Callable[[Case, World, Recipe, random.Random], str]
WRITERS: dict[str, Writer] = {
    "explain": _explain,
    "attribute": _attribute,
    "compare": _compare,
    "haiku": _haiku,
    "translate": _translate,
    "closed_qa": _closed_qa,
    "person": _person,
    "private": _private,
    "unknown": _unknown,
    "unsafe": _unsafe,
    "alarming": _attribute,
}


def write_answer(case: Case, world: World, recipe: Recipe, rng: random.Random) -> str:
    """Write one answer to `case` as `recipe` asks. Pure given `rng`."""
    if recipe.evade:
        body = _evasion(case, world, recipe.evade, rng)
    else:
        body = WRITERS[case.task](case, world, recipe, rng)
    cheers = rng.sample(voc.CHEERS, recipe.cheers)
    half = len(cheers) // 2
    rude = rng.sample(voc.RUDE, recipe.rude)
    padding = rng.sample(voc.PADDING, recipe.padding)
    separator = "\n" if "\n" in body else " "
    before, after = [*rude[:1], *cheers[:half]], [*padding, *cheers[half:], *rude[1:]]
    return separator.join([*before, body, *after])
