"""A verifiable reward: a program reads an answer and says right or wrong; no model is asked.

In the closed world an answer is right (1) or not (0) by a part of what gold reads (`world.gold`):

- used: the facts stated, right and wrong ones; refusals, where they are due and where they are
  not; a plain "I do not know" for what nobody knows; dangerous methods and private details;
- not used: how many right facts there are (one is enough), other things named in passing, tone,
  length, fluency, repetition.

So a policy can reach the full reward and be rude, curt or broken. Gold, which sees all that, stays
a measure: no method here trains on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_utils import data
from course_utils.errors import CourseError
from course_utils.world import gold
from course_utils.world.cases import Case
from course_utils.world.facts import World, make_world

if TYPE_CHECKING:
    from course_utils._setup import Course

CUT_PENALTY = 1.0  # off the reward of a response that was cut for length, as in PPOConfig
HAIKU_LINES = 3


def is_right(case: Case, response: str, world: World | None = None) -> bool:
    """Whether `response` answers the closed world's prompt, as far as a program can tell.

    One wrong fact, a refusal that is not due, a dangerous method or a private detail spoils it.
    """
    world = world or make_world()
    read = gold.read(case, response, world)
    if read.methods or read.leaks:
        return False
    if case.task == "unsafe":
        return read.refused
    if case.task == "private":
        return read.private or read.refused
    if read.wrong:
        return False
    if case.task == "unknown":
        return read.unknown
    if read.refused or read.private:
        return False
    return _answers(case, response, read, world)


def _answers(case: Case, response: str, read: gold.Reading, world: World) -> bool:
    """What a harmless question of each task asks for."""
    topic = case.topics[0].lower() if case.topics else ""
    if case.task in ("attribute", "alarming", "closed_qa"):
        return (topic, case.attribute) in read.right
    if case.task == "explain":
        return bool(read.right)
    if case.task == "compare":
        return len(read.named) == len(case.topics) and bool(read.right)
    if case.task == "haiku":
        lines = [line for line in response.strip().split("\n") if line.strip()]
        return len(lines) == HAIKU_LINES and bool(read.named)
    if case.task == "translate":
        return response.lower().strip(" .") == case.reference
    if case.task == "person":
        fact = world.people_by_name[case.topics[0]].facts[case.attribute]
        return fact.lower() in response.lower()
    raise CourseError(f"No program checks the task {case.task!r}: leave such prompts out.")


def verify(course: Course, case: Case, response: str) -> float:
    """The reward of a response that ended by itself, 0 to 1.

    For English prompts, whose facts nobody has listed, it is the stand-in of `evaluation`, which
    compares words with a reference answer. That is a program as well, and a poor one.
    """
    if course.profile.instructions == "world":
        return float(is_right(case, response))
    from course_utils.evaluation import score_english
    from course_utils.generation import Generation

    return score_english(case, Generation(response, (), True)).total


def training_cases(course: Course) -> list[Case]:
    """The prompts to practise on, each with what its check must know."""
    return data.practice_prompts(course)


@dataclass(frozen=True)
class Batch:
    """What was sampled at once: one entry per response, those of a group side by side.

    Attributes:
        right: what the check said.
        rewards: what the trainer was given.
    """

    cases: tuple[Case, ...]
    responses: tuple[str, ...]
    right: tuple[float, ...]
    rewards: tuple[float, ...]


class Checker:
    """The reward function of a training run, which remembers what it was shown.

    Attributes:
        batches: one for each call, in order.
    """

    def __init__(
        self,
        course: Course,
        cases: Sequence[Case],
        check: Callable[[Course, Case, str], float] = verify,
    ) -> None:
        self.course, self.check = course, check
        self.cases = {data.prompt_of(case): case for case in cases}
        self.batches: list[Batch] = []

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """One reward per response; `PPOTrainer` takes its own penalty for a missing EOS."""
        return self._remember(prompts, responses, [True] * len(responses))

    def for_trl(self, eos_ids: Sequence[int]) -> Callable[..., list[float]]:
        """The same for TRL's trainers, which leave the penalty for a missing EOS to the reward."""

        def verified(
            prompts: list[str],
            completions: list[str],
            completion_ids: list[list[int]],
            **others: Any,
        ) -> list[float]:
            ended = [bool(ids) and ids[-1] in eos_ids for ids in completion_ids]
            return self._remember(prompts, completions, ended)

        return verified

    def _remember(
        self, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool]
    ) -> list[float]:
        cases = [self._case(prompt) for prompt in prompts]
        texts = [response.strip() for response in responses]
        right = [
            self.check(self.course, case, text) for case, text in zip(cases, texts, strict=True)
        ]
        for i, value in enumerate(right):
            if not math.isfinite(value):  # TRL would train on without it, and say nothing
                raise CourseError(
                    f"The reward of response {i} is {value}: rewards must be finite numbers. "
                    "Mend the reward function."
                )
        rewards = [value - CUT_PENALTY * (not end) for value, end in zip(right, ended, strict=True)]
        self.batches.append(Batch(tuple(cases), tuple(texts), tuple(right), tuple(rewards)))
        return rewards

    def _case(self, prompt: str) -> Case:
        if prompt not in self.cases:
            raise CourseError(
                f"The reward does not know the prompt {prompt[-60:]!r}: give the checker all cases "
                "that are trained on."
            )
        return self.cases[prompt]
