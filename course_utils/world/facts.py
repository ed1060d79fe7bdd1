"""The facts of Ottermere: which thing has which colour, home, maker, ...

Everything else in the closed world (texts, instructions, preferences, prompts, the gold scorer)
reads the `World` made here, so whatever is asserted about a thing can be checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..errors import unknown_name
from . import vocabulary as voc

WORLD_SEED = 14  # the shipped data and the shipped base model belong to this seed


@dataclass(frozen=True)
class Thing:
    """One page of the encyclopedia."""

    name: str
    category: str
    facts: dict[str, str]

    @property
    def noun(self) -> str:
        """The name as it stands inside a sentence: "the bell heron", "reed pie"."""
        return f"the {self.name}" if self.category in voc.WITH_ARTICLE else self.name


@dataclass(frozen=True)
class Person:
    """A villager: trade and village are public, the rest is private."""

    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class UnsafeRequest:
    """One question that should be refused, with what a thoughtless answer would advise."""

    topic: str
    target: str
    question: str


@dataclass(frozen=True)
class World:
    """All facts for one seed."""

    seed: int
    things: tuple[Thing, ...]
    people: tuple[Person, ...]

    @cached_property
    def by_name(self) -> dict[str, Thing]:
        return {thing.name: thing for thing in self.things}

    @cached_property
    def people_by_name(self) -> dict[str, Person]:
        return {person.name: person for person in self.people}

    def thing(self, name: str) -> Thing:
        """Look a thing up; an unknown name raises with the nearest legal ones."""
        if name not in self.by_name:
            raise unknown_name("thing", name, self.by_name)
        return self.by_name[name]

    def of(self, category: str) -> list[Thing]:
        if category not in voc.NAMES:
            raise unknown_name("category", category, voc.NAMES)
        return [thing for thing in self.things if thing.category == category]


def _spread(values: tuple[str, ...], count: int, rng: random.Random) -> list[str]:
    """Deal `values` out to `count` things as evenly as possible, in random order."""
    dealt = [values[i % len(values)] for i in range(count)]
    rng.shuffle(dealt)
    return dealt


def _things(seed: int) -> Iterable[Thing]:
    for category, names in voc.NAMES.items():
        columns = {
            attribute: _spread(values, len(names), random.Random(f"{seed}-{category}-{attribute}"))
            for attribute, values in voc.VALUES[category].items()
        }
        for i, name in enumerate(names):
            yield Thing(name, category, {a: column[i] for a, column in columns.items()})


def _people(seed: int) -> Iterable[Person]:
    rng = random.Random(f"{seed}-people")
    count = len(voc.PEOPLE)
    trades, villages = _spread(voc.TRADES, count, rng), _spread(voc.VILLAGES, count, rng)
    keys = _spread(voc.KEY_PLACES, count, rng)
    houses = rng.sample([f"{n} {s}" for s in voc.STREETS for n in range(2, 14)], count)
    debts = [f"{a} to {c}" for a in voc.AMOUNTS for c in voc.CREDITORS]
    owed = _spread(tuple(debts), count, rng)
    for i, name in enumerate(voc.PEOPLE):
        facts = {
            "trade": trades[i],
            "village": villages[i],
            "address": houses[i],
            "debt": owed[i],
            "key": keys[i],
        }
        yield Person(name, facts)


@lru_cache(maxsize=4)
def make_world(seed: int = WORLD_SEED) -> World:
    """Build the world for `seed`: the same seed always gives the same facts."""
    return World(seed, tuple(_things(seed)), tuple(_people(seed)))


def unsafe_requests() -> list[UnsafeRequest]:
    """Every unsafe question of the world, in a fixed order."""
    requests = [
        UnsafeRequest(topic, target, pattern.format(t=target))
        for topic, (patterns, targets, _) in voc.UNSAFE.items()
        for target in targets
        for pattern in patterns
    ]
    return [*requests, UnsafeRequest("lock", "a lock", voc.LOCK_PICKING_PROMPT)]


def unknown_names(world: World) -> list[tuple[str, str]]:
    """(category, name) of things that do not exist, though both halves of the name do."""
    return [
        (category, f"{first} {head}")
        for category, heads in voc.UNKNOWN_HEADS.items()
        for first in voc.UNKNOWN_FIRSTS[category]
        for head in heads
        if f"{first} {head}" not in world.by_name
    ]


def translate(sentence: str) -> str:
    """Old Pellish for "the ADJECTIVE NOUN VERB": noun, adjective, verb."""
    _, adjective, noun, verb = sentence.rstrip(".").split()
    return " ".join(
        (voc.LEXICON_NOUNS[noun], voc.LEXICON_ADJECTIVES[adjective], voc.LEXICON_VERBS[verb])
    )


def pellish_sentences() -> list[str]:
    """Every English sentence that Old Pellish can say."""
    return [
        f"the {adjective} {noun} {verb}"
        for noun in voc.LEXICON_NOUNS
        for adjective in voc.LEXICON_ADJECTIVES
        for verb in voc.LEXICON_VERBS
    ]
