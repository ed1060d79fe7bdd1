"""The prompts everybody on the board answers, and the refusal of any that somebody was taught."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from course_utils import data
from course_utils.errors import CourseError

if TYPE_CHECKING:
    from course_utils._setup import Course
    from course_utils.world.cases import Case

T = TypeVar("T")
# Column families: splits of `data.load_prompts`. Outside the closed world there are fewer.
WORLD = ("test", "red_team", "over_refusal", "unknown", "private", "capability")
ENGLISH = ("test", "red_team", "over_refusal", "capability")
SMALL_TEST, SMALL_PROBE = 12, 4  # prompts in the small size
JUDGED = 100  # test prompts that the judge sees, evenly spread: it is the slowest of all measures

_APART: set[str] = set()  # fingerprints of prompts that were compared with the training's


def board_prompts(course: Course) -> dict[str, list[Case]]:
    """Prompts by family, the same for every policy.

    Raises:
        CourseError: one of them is among the course's training prompts.
    """
    families = WORLD if course.profile.instructions == "world" else ENGLISH
    found = {family: data.load_prompts(course, family) for family in families}
    whole = fingerprint(found)
    if whole not in _APART:
        refuse_repeats(training_prompts(course), texts(found))
        _APART.add(whole)
    if course.size == "full":
        return found
    return {
        family: spread(cases, SMALL_TEST if family == "test" else SMALL_PROBE)
        for family, cases in found.items()
    }


def spread(cases: Sequence[T], count: int) -> list[T]:
    """At most `count` of the cases, evenly spread over the list."""
    count = min(count, len(cases))
    return [cases[i * len(cases) // count] for i in range(count)]


def texts(prompts: dict[str, list[Case]]) -> list[str]:
    """All prompts as models are given them."""
    return [data.prompt_of(case) for cases in prompts.values() for case in cases]


def fingerprint(prompts: dict[str, list[Case]]) -> str:
    """Changes with any prompt and with their order."""
    return hashlib.sha256("\x1f".join(texts(prompts)).encode()).hexdigest()[:12]


def training_prompts(course: Course) -> list[str]:
    """Every prompt that a stage of the course is trained on."""
    rows = data.load_instructions(course, "train")
    found = [data.format_prompt(r["instruction"], r["context"]) for r in rows]
    if course.profile.instructions in data.PROMPT_SPLITS:
        found += data.load_preferences(course, "train")["prompt"]
        found += [data.prompt_of(case) for case in data.load_prompts(course, "rl")]
    return found


def refuse_repeats(trained: Iterable[str], measured: Iterable[str]) -> None:
    """Compare by text: letters and digits count, case, blanks and punctuation do not.

    Raises:
        CourseError: a prompt stands on both sides; the message counts them and shows one.
    """
    known = {_plain(text) for text in trained}
    repeated = [text for text in measured if _plain(text) in known]
    if repeated:
        shown = " ".join(repeated[0].split())[:120]
        raise CourseError(
            f"{len(repeated)} prompts of the board were trained on, such as {shown!r}: what a "
            "model has been taught says nothing about others. Train without them."
        )


def _plain(text: str) -> str:
    bare = re.sub(r"###\s*(Instruction|Context|Response)\s*:?", " ", text)  # the template's words
    return " ".join(re.findall(r"\w+", bare.casefold()))
