"""Thumbs of users: the log they stand in, and the training data that they make.

The log is the labelling log of chapter 03 (`labeling.log`): append-only, one JSON object per line,
safe for several writers and torn lines. A thumb is a ``rating`` of it: ``prompt`` as the model was
given it, ``response``, ``choice`` (up or down), ``annotator``, and in ``meta`` the model's name. A
user may press again; their last thumb on an answer counts.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from course_utils import paths
from course_utils.data import prompt_of
from course_utils.errors import CourseError, unknown_name
from course_utils.labeling.export import ExportReport, to_thumbs
from course_utils.labeling.items import content_id
from course_utils.labeling.log import Event, PreferenceLog
from course_utils.labeling.own import unattended
from course_utils.labeling.simulate import SIMULATED

if TYPE_CHECKING:
    from course_utils._setup import Course
    from course_utils.generation import Generation
    from course_utils.world.cases import Case

PRESSED = ("up", "down")
PRESSES = 0.6  # share of the answers that a simulated user gives a thumb
BAR = 1.0  # utility above which a simulated user rather likes an answer
LIKED = {"gold": 0.5, "reference": 0.25}  # score above which a plain visitor likes an answer
SLIPS = 0.1  # outside the closed world: share of the thumbs that say the opposite
MOST = 4 / 3  # the largest ratio of weighted ups to weighted downs


def feedback_path(course: Course) -> Path:
    """The log of the thumbs given here.

    A fresh one where ``COURSE_LABELS`` is ``none`` or nobody sits in front of the notebook: thumbs
    that a stand-in gave must not come up among people's later.
    """
    labels = paths.labels_path(course.profile.name, course.size)
    if labels is None or unattended():
        return Path(mkdtemp(prefix="feedback-")) / "feedback.jsonl"
    return labels.with_name(f"{labels.stem}-feedback.jsonl")


def give_thumb(
    log: PreferenceLog,
    prompt: str,
    response: str,
    choice: str,
    *,
    annotator: str = "me",
    model: str = "",
    via: str = "api",
) -> Event:
    """Write one thumb, and return it once it is on disk.

    Raises:
        CourseError: no such thumb, or the log cannot be written.
    """
    return log.append(_event(prompt, response, choice, annotator, model, via))


def feedback_rows(log: PreferenceLog | Path) -> tuple[list[dict[str, Any]], ExportReport]:
    """(rows for KTO: prompt, completion, label; what was left out).

    One row per answer: each user's last thumb counts, several users decide by majority, and an
    answer with as many ups as downs is left out. So are empty answers, which nobody can learn.

    Raises:
        CourseError: no thumb that can be learnt from.
    """
    rows, report = to_thumbs(log, pairs=False)
    return [dict(row) for row in rows if row["completion"].strip()], report


def kto_weights(ups: int, downs: int) -> tuple[float, float]:
    """(desirable, undesirable) weights for so many thumbs up and down.

    Ethayarajh et al. 2024 (arXiv 2402.01306) want the weighted counts in a ratio of ups to downs
    from 1 : 1 to 4 : 3. Where they are, both weights are 1; otherwise the scarcer kind is raised,
    no more than needed.

    Raises:
        CourseError: one kind is missing: there is nothing to tell it from.
    """
    if ups < 1 or downs < 1:
        raise CourseError(f"KTO needs thumbs of both kinds: there are {ups} up and {downs} down.")
    if ups < downs:
        return downs / ups, 1.0
    if ups > MOST * downs:
        return 1.0, ups / (MOST * downs)
    return 1.0, 1.0


def simulated_thumbs(
    course: Course,
    cases: Sequence[Case],
    responses: Sequence[Generation],
    log: PreferenceLog,
    *,
    model: str = "",
    seed: int = 0,
) -> Counter[str]:
    """Let simulated users give thumbs, into the log and marked as simulated; counts of up and down.

    In the closed world the users are the five annotators of `world.preferences`, with their habits.
    Each answer is seen by one of them, drawn at random, who presses in `PRESSES` of all cases and
    likes it with probability sigmoid(sharpness x (utility - `BAR`)). Elsewhere a user is
    a plain visitor (`likes`) who slips in `SLIPS` of all cases.
    """
    rng = random.Random(f"{seed}-thumbs")
    events = []
    for case, response in zip(cases, responses, strict=True):
        name, chance = _user(course, case, response, rng)
        if rng.random() < PRESSES and response.text:
            choice = "up" if rng.random() < chance else "down"
            events.append(_event(prompt_of(case), response.text, choice, name, model, SIMULATED))
    log.append_all(events)
    return Counter(event["choice"] for event in events)


def likes(course: Course, case: Case, response: Generation) -> bool:
    """Whether a plain visitor likes an answer: the profile's score is above `LIKED`."""
    from course_utils.evaluation import scorer

    metric, score = scorer(course)
    return score(case, response).total > LIKED[metric]


def shuffled(rows: Iterable[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """The same rows with their labels dealt out at random: the control, from which nobody learns.

    As many ups and downs as before, on the same answers.
    """
    found = [dict(row) for row in rows]
    labels = [row["label"] for row in found]
    random.Random(f"{seed}-shuffled").shuffle(labels)
    return [{**row, "label": label} for row, label in zip(found, labels, strict=True)]


def _event(
    prompt: str, response: str, choice: str, annotator: str, model: str, via: str
) -> dict[str, Any]:
    if choice not in PRESSED:
        raise unknown_name("thumb", choice, PRESSED)
    return {
        "type": "rating",
        "pair_id": content_id(prompt, response),
        "annotator": annotator,
        "choice": choice,
        "prompt": prompt,
        "response": response,
        "via": via,
        "meta": {"model": model},
    }


def _user(
    course: Course, case: Case, response: Generation, rng: random.Random
) -> tuple[str, float]:
    """(a user's name, the chance that they like this answer)."""
    if course.profile.instructions != "world":
        return "simulated-user", 1 - SLIPS if likes(course, case, response) else SLIPS
    from course_utils.world import gold
    from course_utils.world.preferences import ANNOTATORS

    person = rng.choice(ANNOTATORS)
    found = gold.score(case, response.text, finished=response.finished)
    logit = person.sharpness * (person.utility(found) - BAR)
    return f"simulated-{person.name}", 1 / (1 + math.exp(min(-logit, 700.0)))
