"""Answers of every kind to the world's training cases: what the model learns to judge on.

A judge meets what policies say, so their answers are here too, beside what `preferences` and
`instructions` write, careful answers and deliberately damaged ones. Prompts of the evaluation
splits (validation, test, red team, over-refusal, unknown, private, capability) never occur. Of the
training cases one group in `HELD_OUT_EVERY` is kept for measuring; a group is what a test would
only ask for a rewording of: an unsafe target, an invented name, a person, a sentence.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from course_utils.world import instructions, preferences, prompts
from course_utils.world.answers import write_answer
from course_utils.world.cases import Case
from course_utils.world.facts import World

from .faults import Assessment, assess
from .mend import careful_answer

if TYPE_CHECKING:
    from course_utils._setup import Course

HELD_OUT_EVERY = 10
POLICIES = ("sft", "dpo", "ppo")  # the stages that are sampled
# Stage of each answer that a case is given. The SFT model speaks most often: its responses are what
# chapters 08 and 09 have judged and revised.
DRAWS = ("sft", "sft", "sft", "dpo", "ppo")
HOT = 1.4  # the temperature of one answer in each case's draws: text that breaks up


@dataclass(frozen=True)
class Answer:
    """One answer with gold's view of it. `source` says who wrote it."""

    text: str
    source: str
    assessment: Assessment

    @property
    def gold(self) -> float:
        return self.assessment.gold.total


@dataclass(frozen=True)
class Sample:
    """What a policy said: its stage, the case it was asked, the text, whether it ended itself."""

    stage: str
    case_id: str
    text: str
    finished: bool


def is_held_out(case: Case) -> bool:
    """Whether the case is kept for measuring; the same in every run, whatever the seed."""
    group = prompts.group(case)
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % HELD_OUT_EVERY == 0


def training_cases(world: World) -> tuple[list[Case], list[Case]]:
    """(cases to learn on, cases to measure on), both from the splits ``sft`` and ``rl``."""
    splits = prompts.make_splits(world)
    cases = [case for name in prompts.TRAINING_SPLITS for case in splits[name]]
    return [c for c in cases if not is_held_out(c)], [c for c in cases if is_held_out(c)]


def _any(case: Case, world: World, rng: random.Random) -> str:
    return preferences.any_answer(case, world, rng)


def _demonstration(case: Case, world: World, rng: random.Random) -> str:
    return write_answer(case, world, instructions.demonstration_recipe(case, rng), rng)


def _careful(case: Case, world: World, rng: random.Random) -> str:
    return careful_answer(case, world, rng)


def _false(case: Case, world: World, rng: random.Random) -> str:
    recipe = preferences.answer_recipe(rng, case.task)
    return write_answer(case, world, replace(recipe, wrong=1, careful=False, evade=""), rng)


def _broken(case: Case, world: World, rng: random.Random) -> str:
    return preferences.spoil(preferences.any_answer(case, world, rng), rng)


WRITERS: dict[str, tuple[Callable[[Case, World, random.Random], str], int]] = {
    "any": (_any, 5),
    "demonstration": (_demonstration, 2),
    "careful": (_careful, 2),
    "false": (_false, 2),
    "broken": (_broken, 1),
}
STRAY = 2  # answers that were written to another case of the same task


def answers_to(
    case: Case,
    world: World,
    rng: random.Random,
    samples: Sequence[Sample] = (),
    others: Sequence[Case] = (),
) -> list[Answer]:
    """Different answers to one case: those of `WRITERS`, as often as it says, and `samples`.

    Args:
        others: cases of the same task; answers to `STRAY` of them stand here as answers to `case`.
    """
    written = [
        (write(case, world, rng), source, True)
        for source, (write, count) in WRITERS.items()
        for _ in range(count)
    ]
    for other in rng.sample(list(others), min(STRAY, len(others))):
        written.append((preferences.any_answer(other, world, rng), "stray", True))
    said = [(s.text, s.stage, s.finished) for s in samples]
    unique = {
        text: (text, source, finished) for text, source, finished in (*written, *said) if text
    }
    return [
        Answer(text, source, assess(case, text, world, finished))
        for text, source, finished in unique.values()
    ]


def make_pool(
    cases: Sequence[Case], world: World, seed: int, samples: Sequence[Sample] = ()
) -> list[tuple[Case, list[Answer]]]:
    """Every case with its answers. The same seed and samples give the same pool."""
    rng = random.Random(f"{seed}-pool")
    said: dict[str, list[Sample]] = {}
    for sample in samples:
        said.setdefault(sample.case_id, []).append(sample)
    alike: dict[str, list[Case]] = {}
    for case in cases:
        alike.setdefault(case.task, []).append(case)
    return [
        (case, answers_to(case, world, rng, said.get(case.case_id, ()), alike[case.task]))
        for case in cases
    ]


def sample_policies(
    course: Course, cases: Sequence[Case], seed: int, draws: Sequence[str] = DRAWS
) -> list[Sample]:
    """An answer to every case for each of `draws`; a stage that is missing is trained first.

    One of a case's draws, in turn, is sampled at temperature `HOT`, the others at 1.
    """
    from course_utils import models, runs
    from course_utils.data import prompt_of
    from course_utils.generation import generate

    samples = []
    for number, stage in enumerate(draws):
        model, tokenizer = models.load(runs.ensure(stage, course), course)
        hot = [case for i, case in enumerate(cases) if i % len(draws) == number]
        plain = [case for i, case in enumerate(cases) if i % len(draws) != number]
        for temperature, chosen in ((1.0, plain), (HOT, hot)):
            replies = generate(
                model,
                tokenizer,
                [prompt_of(c) for c in chosen],
                max_new_tokens=course.profile.max_new_tokens,
                temperature=temperature,
                seed=seed + number,
            )
            samples += [
                Sample(stage, c.case_id, r.text, r.finished)
                for c, r in zip(chosen, replies, strict=True)
            ]
    return samples
