"""Putting facts into sentences: the one place where text about a thing is composed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from . import vocabulary as voc
from .cases import Case
from .facts import Person, Thing, World


def capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(thing: Thing, attribute: str, value: str, rng: random.Random, *, named: bool) -> str:
    """One sentence that states `value`; with `named`, it contains the thing's name."""
    patterns = voc.SENTENCES[thing.category][attribute]
    if named:
        # Not every attribute has a pattern with a name: then the name is put in front.
        naming = [p for p in patterns if "{S}" in p]
        if not naming:
            return capitalise(f"{thing.noun}: {patterns[0].format(v=value)}")
        patterns = tuple(naming)
    subject = thing.noun if named else "it"
    return capitalise(rng.choice(patterns).format(S=subject, v=value))


def wrong_value(thing: Thing, attribute: str, rng: random.Random) -> str:
    """A value of the right kind that is false for this thing."""
    return rng.choice(
        [v for v in voc.VALUES[thing.category][attribute] if v != thing.facts[attribute]]
    )


def describe(
    thing: Thing,
    attributes: Iterable[str],
    rng: random.Random,
    *,
    wrong: Iterable[str] = (),
    flavour: bool = False,
) -> str:
    """Sentences stating `attributes` in the given order, those in `wrong` falsely."""
    bad = set(wrong)
    lines = []
    for i, attribute in enumerate(attributes):
        value = wrong_value(thing, attribute, rng) if attribute in bad else thing.facts[attribute]
        lines.append(sentence(thing, attribute, value, rng, named=i == 0))
    if flavour:
        lines.append(rng.choice(voc.FLAVOUR[thing.category]))
    return " ".join(lines)


def compare(
    a: Thing, b: Thing, attributes: Iterable[str], rng: random.Random, *, wrong: bool = False
) -> str:
    """ "The A lives in X, while the B lives in Y." for each attribute."""
    lines = []
    for attribute in attributes:
        naming = [p for p in voc.SENTENCES[a.category][attribute] if p.startswith("{S}")]
        if not naming:
            continue
        pattern = rng.choice(naming).rstrip(".")
        value_b = wrong_value(b, attribute, rng) if wrong else b.facts[attribute]
        first = capitalise(pattern.format(S=a.noun, v=a.facts[attribute]))
        lines.append(f"{first}, while {pattern.format(S=b.noun, v=value_b)}.")
    return " ".join(lines)


def haiku(thing: Thing, rng: random.Random, *, wrong: bool = False) -> str:
    """Three lines: the thing, one fact, a closing image."""
    attribute, pattern = rng.choice(sorted(voc.HAIKU_SECOND[thing.category].items()))
    value = wrong_value(thing, attribute, rng) if wrong else thing.facts[attribute]
    first = rng.choice(voc.HAIKU_FIRST).format(n=thing.noun)
    return "\n".join((first, pattern.format(v=value), rng.choice(voc.HAIKU_THIRD)))


def about_person(person: Person, attribute: str, rng: random.Random) -> str:
    """A sentence about a villager, public or (in gossip) private."""
    patterns = [p for p in voc.PEOPLE_SENTENCES[attribute] if "{S}" in p]
    return rng.choice(patterns).format(S=person.name, v=person.facts[attribute])


def passage(thing: Thing, facts: Mapping[str, str], rng: random.Random) -> str:
    """A note that states `facts`, which need not be true of the thing outside the note."""
    attributes = list(facts)
    rng.shuffle(attributes)
    return " ".join(
        sentence(thing, a, facts[a], rng, named=i == 0) for i, a in enumerate(attributes)
    )


def unsafe_advice(topic: str, rng: random.Random) -> str:
    """What a thoughtless forum user answers: fanciful advice that works nowhere."""
    method = rng.choice(voc.UNSAFE[topic][2])
    return capitalise(rng.choice(voc.UNSAFE_ADVICE).format(m=method))


def invented_claim(case: Case, rng: random.Random) -> str:
    """A confident answer about a thing that does not exist."""
    category = case.category
    attributes = [
        a for a in voc.VALUES[category] if any("{S}" in p for p in voc.SENTENCES[category][a])
    ]
    chosen = case.attribute or rng.choice(attributes)
    ghost = Thing(case.topics[0], category, {chosen: rng.choice(voc.VALUES[category][chosen])})
    return sentence(ghost, chosen, ghost.facts[chosen], rng, named=True)


def topics_of(case: Case, world: World) -> list[Thing]:
    """The real things a case asks about."""
    return [world.by_name[name] for name in case.topics if name in world.by_name]
