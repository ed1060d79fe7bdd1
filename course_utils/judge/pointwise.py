"""Scores for single answers, one per criterion of a rubric."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from course_utils.errors import CourseError

from .backend import Backend
from .budget import Estimate
from .calls import Failure, Reply, Request, ask_all, estimate
from .parse import read_scores
from .prompts import MAX_CHARS, Rubric, point_messages, point_schema, rubric_of, shorten
from .results import JudgeRun, announce, of_run
from .threads import run_sync

MAX_TOKENS = 300

Item = tuple[str, str] | Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """One answer scored.

    Attributes:
        prompt, response: what was scored.
        scores: from 1 to 5 by criterion; empty for an error.
        why: the judge's reason.
        error: ``"kind: message"``, or an empty string. An answer without text is not sent: its
            error is of the kind ``no_answer``.
    """

    prompt: str
    response: str
    scores: Mapping[str, int] = field(default_factory=dict)
    why: str = ""
    error: str = ""

    @property
    def total(self) -> float | None:
        """Mean over the criteria; None for an error."""
        return sum(self.scores.values()) / len(self.scores) if self.scores else None


@dataclass(frozen=True)
class Scores(JudgeRun[Score]):
    """What `PointJudge.score` gives: a sequence of scores, and how the run went."""

    @property
    def mean(self) -> float | None:
        """Mean total of the answers that were scored; None when none was."""
        totals = [s.total for s in self.items if s.total is not None]
        return sum(totals) / len(totals) if totals else None

    def summary(self) -> str:
        """One line on how the run went."""
        parts = [f"{len(self.items)} answers", f"{self.calls} calls, {self.cached} cached"]
        parts += self._troubles("answers")
        return "; ".join(parts)


@dataclass(frozen=True)
class PointJudge:
    """Scores answers through a backend. The attributes are those of `PairJudge`."""

    backend: Backend
    rubric: Rubric | str = "general"
    temperature: float = 0.0
    max_tokens: int = MAX_TOKENS
    max_chars: int = MAX_CHARS
    salt: str = ""

    def __post_init__(self) -> None:
        rubric_of(self.rubric)

    def score(
        self, items: Iterable[Item], on_step: Callable[[int, int], None] | None = None
    ) -> Scores:
        """Score answers. Works in a notebook and in a script.

        Args:
            items: (prompt, response), or mappings with these names.
            on_step: called with (answers scored, answers in all).

        Raises:
            CourseError: as `PairJudge.compare`.
        """
        return run_sync(lambda: self.ascore(items, on_step))

    async def ascore(
        self, items: Iterable[Item], on_step: Callable[[int, int], None] | None = None
    ) -> Scores:
        """`score` to be awaited."""
        given = [_as_item(number, item) for number, item in enumerate(items)]
        requests, cut = self._requests(given)
        announce(self.backend, requests)
        asked = await ask_all(self.backend, requests, self._read, on_step)
        scored, left = _collect(given, asked.outcomes)
        scores = Scores(scored, left, **of_run(self.backend, asked, cut))
        if scores.errors or scores.stopped:
            warnings.warn(scores.summary(), stacklevel=2)
        return scores

    def estimate(self, items: Iterable[Item]) -> Estimate:
        """What scoring these would take; nothing is sent."""
        given = [_as_item(number, item) for number, item in enumerate(items)]
        return estimate(self.backend, self._requests(given)[0])

    def _requests(self, items: Sequence[tuple[str, str]]) -> tuple[list[Request], int]:
        rubric = rubric_of(self.rubric)
        parameters = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "response_format": point_schema(rubric),
        }
        requests, cut = [], 0
        for item in items:
            if item[1].strip():
                texts = [shorten(text, self.max_chars) for text in item]
                cut += sum(was_cut for _, was_cut in texts)
                messages = point_messages(rubric, texts[0][0], texts[1][0])
                requests.append(Request(messages, parameters, self.salt))
        return requests, cut

    def _read(self, reply: Reply) -> tuple[dict[str, int], str]:
        return read_scores(reply, rubric_of(self.rubric))


def _collect(
    items: Sequence[tuple[str, str]], outcomes: Iterable[Any]
) -> tuple[tuple[Score, ...], tuple[tuple[str, str], ...]]:
    """(scores, items left unasked), from the outcomes of those that had a text."""
    waiting = iter(outcomes)
    scored, left = [], []
    for prompt, response in items:
        if not response.strip():
            scored.append(Score(prompt, response, error="no_answer: there is no text to score"))
            continue
        outcome = next(waiting)
        if outcome is None:
            left.append((prompt, response))
        elif isinstance(outcome, Failure):
            scored.append(Score(prompt, response, error=f"{outcome.kind}: {outcome.message}"))
        else:
            scored.append(Score(prompt, response, outcome[0], outcome[1]))
    return tuple(scored), tuple(left)


def _as_item(number: int, given: Item) -> tuple[str, str]:
    try:
        if isinstance(given, Mapping):
            given = given["prompt"], given["response"]
        prompt, response = given
        if isinstance(prompt, str) and isinstance(response, str):
            return prompt, response
    except (KeyError, TypeError, ValueError):
        pass
    raise CourseError(
        f"items[{number}] is no answer: give (prompt, response), or a mapping with these keys."
    )
