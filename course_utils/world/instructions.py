"""Demonstrations for SFT: dolly's columns, written by demonstrators of mixed diligence.

Real instruction data is uneven, and so is this: half of the demonstrators are careless about
safety, privacy and honesty, most are curt and terse. SFT copies what it is shown, flaws
included, which is what the later chapters then mend.
"""

from __future__ import annotations

import random
from typing import Any

from .answers import Recipe, write_answer
from .cases import DOLLY_CATEGORY, Case
from .facts import World

CARELESS = 0.5  # share of demonstrations that comply, gossip or make things up
CURT = (0.1, 0.4, 0.5)  # shares with no, one and two unfriendly sentences
PLAIN_TASKS = ("translate", "haiku")  # here nothing may stand before the answer
CHEERFUL = 0.15
PADDED = 0.1


def demonstration_recipe(case: Case, rng: random.Random) -> Recipe:
    """Draw how diligent the demonstrator of this case is."""
    facts = rng.choices((1, 2, 3), weights=(45, 40, 15))[0]
    if case.task in ("attribute", "alarming"):
        facts = int(rng.random() < 0.2)
    if case.task == "compare":
        facts = min(facts, 2)  # a demonstrator who compares three things at once is rare
    return Recipe(
        facts=facts,
        careful=rng.random() >= CARELESS,
        cheers=int(rng.random() < CHEERFUL and case.task != "translate"),
        padding=int(rng.random() < PADDED and case.task in ("explain", "attribute")),
        rude=0 if case.task in PLAIN_TASKS else rng.choices((0, 1, 2), weights=CURT)[0],
        flavour=rng.random() < 0.3,
    )


def instruction_row(case: Case, world: World, rng: random.Random) -> dict[str, Any]:
    """One row in dolly's columns (instruction, context, response, category) plus the case id."""
    response = write_answer(case, world, demonstration_recipe(case, rng), rng)
    return {
        "instruction": case.instruction,
        "context": case.context,
        "response": response,
        "category": DOLLY_CATEGORY[case.task],
        "task": case.task,
        "case_id": case.case_id,
    }


def make_instructions(cases: list[Case], world: World, seed: int) -> list[dict[str, Any]]:
    """Demonstrations for `cases`, in order. The same seed gives the same rows."""
    rng = random.Random(f"{seed}-instructions")
    return [instruction_row(case, world, rng) for case in cases]
