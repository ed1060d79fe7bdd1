"""All prompts of the world, dealt out to splits that never overlap.

Splits: ``sft`` (prompts with demonstrations), ``rl`` (prompts for sampling, pairs and rollouts),
``validation``, ``test``, and four probe sets taken from held-out material: ``red_team``,
``over_refusal``, ``unknown``, ``private``. ``capability`` asks for facts and translations only.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from . import vocabulary as voc
from . import writing
from .cases import Case
from .facts import Thing, World, pellish_sentences, translate, unknown_names, unsafe_requests

# How many cases of each task a split gets. The order matters: a split deals from what is left.
COUNTS: dict[str, dict[str, int]] = {
    "test": {
        "explain": 60,
        "attribute": 70,
        "compare": 30,
        "haiku": 20,
        "translate": 20,
        "closed_qa": 20,
        "person": 10,
        "private": 15,
        "unknown": 20,
        "unsafe": 25,
        "alarming": 10,
    },
    "validation": {
        "explain": 30,
        "attribute": 35,
        "compare": 15,
        "haiku": 10,
        "translate": 10,
        "closed_qa": 10,
        "person": 5,
        "private": 8,
        "unknown": 10,
        "unsafe": 12,
        "alarming": 5,
    },
    "red_team": {"unsafe": 40},
    "over_refusal": {"alarming": 50},
    "unknown": {"unknown": 40},
    "private": {"private": 25},
    "capability": {"attribute": 90, "translate": 30},
    "rl": {
        "explain": 220,
        "attribute": 260,
        "compare": 110,
        "haiku": 60,
        "translate": 40,
        "closed_qa": 40,
        "person": 10,
        "private": 40,
        "unknown": 70,
        "unsafe": 75,
        "alarming": 60,
    },
    "sft": {
        "explain": 260,
        "attribute": 420,
        "compare": 200,
        "haiku": 90,
        "translate": 200,
        "closed_qa": 150,
        "person": 40,
        "private": 50,
        "unknown": 90,
        "unsafe": 100,
        "alarming": 50,
    },
}
SPLITS = tuple(COUNTS)
# Splits shipped as prompts; those of ``sft`` are shipped with their demonstrations.
PROMPT_FILES = tuple(name for name in SPLITS if name != "sft")
# One thing in eight has no demonstration: what is said of it after SFT comes from pre-training.
HELD_OUT_EVERY = 8
# One invented name in three is described in a note (closed_qa); the others are asked as unknown.
NOTE_NAMES_EVERY = 3


def held_out_things(world: World) -> set[str]:
    """Things that appear in raw text and in tests, but in no ``sft`` or ``rl`` prompt."""
    return {thing.name for thing in world.things[::HELD_OUT_EVERY]}


def _explain(world: World) -> Iterator[Case]:
    for thing, pattern in itertools.product(world.things, voc.EXPLAIN):
        yield Case(
            "explain", pattern.format(n=thing.noun), topics=(thing.name,), category=thing.category
        )


def _wordings(question: str) -> Iterator[str]:
    """The question as it is, and inside a polite or hurried frame."""
    for wrapper in voc.WRAPPERS:
        # A name keeps its capital; only question words and verbs lose theirs.
        yield wrapper.format(q=question, l=question[0].lower() + question[1:])


def _attribute(world: World) -> Iterator[Case]:
    for thing in world.things:
        for attribute, patterns in voc.QUESTIONS[thing.category].items():
            for question in (w for p in patterns for w in _wordings(p.format(n=thing.noun))):
                yield Case(
                    "attribute",
                    question,
                    topics=(thing.name,),
                    attribute=attribute,
                    category=thing.category,
                )


def _alarming(world: World) -> Iterator[Case]:
    for thing in world.things:
        for attribute, pattern in voc.ALARMING[thing.category]:
            yield Case(
                "alarming",
                pattern.format(n=thing.noun),
                topics=(thing.name,),
                attribute=attribute,
                category=thing.category,
            )


def _compare(world: World) -> Iterator[Case]:
    for category in voc.NAMES:
        for a, b in itertools.combinations(world.of(category), 2):
            for pattern in voc.COMPARE:
                yield Case(
                    "compare",
                    pattern.format(a=a.noun, b=b.noun),
                    topics=(a.name, b.name),
                    category=category,
                )


def _haiku(world: World) -> Iterator[Case]:
    for thing, pattern in itertools.product(world.things, voc.HAIKU):
        yield Case(
            "haiku", pattern.format(n=thing.noun), topics=(thing.name,), category=thing.category
        )


def _translate(world: World) -> Iterator[Case]:
    for sentence, pattern in itertools.product(pellish_sentences(), voc.TRANSLATE):
        yield Case(
            "translate",
            pattern,
            context=sentence,
            category="pellish",
            reference=translate(sentence),
        )


def _closed_qa(world: World) -> Iterator[Case]:
    """Questions about a note. Half of the notes describe things found nowhere else."""
    rng = random.Random(f"{world.seed}-notes")
    ghosts = [
        Thing(n, c, {a: rng.choice(v) for a, v in voc.VALUES[c].items()})
        for c, n in unknown_names(world)[::NOTE_NAMES_EVERY]
    ]
    for thing in [*world.things, *ghosts]:
        for attribute, patterns in voc.QUESTIONS[thing.category].items():
            others = rng.sample([a for a in thing.facts if a != attribute], 1)
            facts = {a: thing.facts[a] for a in (attribute, *others)}
            question = rng.choice(patterns).format(n=thing.noun)
            yield Case(
                "closed_qa",
                f"{rng.choice(voc.CLOSED_QA)} {question}",
                context=writing.passage(thing, facts, rng),
                topics=(thing.name,),
                attribute=attribute,
                category=thing.category,
                facts=facts,
            )


def _people(world: World, attributes: tuple[str, ...], task: str) -> Iterator[Case]:
    for person in world.people:
        for attribute in attributes:
            for pattern in voc.PEOPLE_QUESTIONS[attribute]:
                yield Case(
                    task,
                    pattern.format(n=person.name),
                    topics=(person.name,),
                    attribute=attribute,
                    category="person",
                )


def _unknown(world: World) -> Iterator[Case]:
    names = unknown_names(world)
    described = set(names[::NOTE_NAMES_EVERY])  # a note would teach facts about what is unknown
    for category, name in (pair for pair in names if pair not in described):
        noun = f"the {name}"
        for pattern in voc.EXPLAIN[:4]:
            yield Case("unknown", pattern.format(n=noun), topics=(name,), category=category)
        for attribute, patterns in voc.QUESTIONS[category].items():
            yield Case(
                "unknown",
                patterns[0].format(n=noun),
                topics=(name,),
                attribute=attribute,
                category=category,
            )


def _unsafe(world: World) -> Iterator[Case]:
    for request in unsafe_requests():
        for question in _wordings(request.question):
            yield Case("unsafe", question, unsafe_topic=request.topic)


def all_cases(world: World) -> dict[str, list[Case]]:
    """Every case of every task, in a fixed order."""
    return {
        "explain": list(_explain(world)),
        "attribute": list(_attribute(world)),
        "compare": list(_compare(world)),
        "haiku": list(_haiku(world)),
        "translate": list(_translate(world)),
        "closed_qa": list(_closed_qa(world)),
        "person": list(_people(world, voc.PUBLIC, "person")),
        "private": list(_people(world, voc.PRIVATE, "private")),
        "unknown": list(_unknown(world)),
        "unsafe": list(_unsafe(world)),
        "alarming": list(_alarming(world)),
    }


def group(case: Case) -> str:
    """Cases that must stay on one side of the train/evaluation border together.

    For unsafe requests it is the target, for unknown things the name, for translations the
    sentence, for private details the person: otherwise a test would only ask for a rewording.
    """
    if case.task == "unsafe":
        return _target(case)
    if case.task in ("unknown", "private"):
        return case.topics[0]
    return case.context if case.task == "translate" else case.case_id


def _target(case: Case) -> str:
    targets = voc.UNSAFE[case.unsafe_topic][1]
    named = (f"{case.unsafe_topic}:{t}" for t in targets if t in case.instruction)
    return next(named, voc.LOCK_PICKING_PROMPT)


TRAINING_SPLITS = ("sft", "rl")


def _evaluation_groups(cases: list[Case], rng: random.Random) -> set[str]:
    """Two groups in five belong to evaluation; the lock-picking prompt always does."""
    groups = sorted({group(c) for c in cases})
    return {*rng.sample(groups, 2 * len(groups) // 5), voc.LOCK_PICKING_PROMPT}


def make_splits(world: World) -> dict[str, list[Case]]:
    """Deal all cases into `SPLITS`; no prompt is in two of them. Deterministic for a world."""
    held_out = held_out_things(world)
    splits: dict[str, list[Case]] = {name: [] for name in SPLITS}
    for task, cases in all_cases(world).items():
        rng = random.Random(f"{world.seed}-split-{task}")
        # Equal wording from two tables (rare) must not land in two splits.
        unique = list({c.case_id: c for c in cases}.values())
        evaluation = _evaluation_groups(unique, rng)
        rng.shuffle(unique)
        unique.sort(
            key=lambda c: c.instruction != voc.LOCK_PICKING_PROMPT
        )  # first come, first dealt
        left = unique
        for split, counts in COUNTS.items():
            training = split in TRAINING_SPLITS
            fits = [
                c
                for c in left
                if (group(c) in evaluation) != training
                and not (training and held_out & set(c.topics))
            ]
            chosen = fits[: counts.get(task, 0)]
            taken = {c.case_id for c in chosen}
            left = [c for c in left if c.case_id not in taken]
            splits[split] += chosen
    for name, cases in splits.items():
        random.Random(f"{world.seed}-order-{name}").shuffle(cases)
    return splits
