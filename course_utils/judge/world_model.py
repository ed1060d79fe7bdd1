"""The world judge as a `LocalModel`: it compares, scores, criticises and revises.

A small model of the course that was trained for this (see `course_utils.world_judge`) does the
work. Here a request's marked texts are put into the model's short template, and what it wrote into
the form that was asked for:

| request | made by | reply |
|---|---|---|
| comparison | `prompts.pair_messages` | JSON: why, winner |
| scores | `prompts.point_messages`, with the criteria of the shipped rubrics | JSON: why, scores |
| critique | `world_judge.prompts.critique_messages` | text |
| revision | `world_judge.prompts.revision_messages` | text |

Any other request, and anything the model writes that is not in its forms, is answered with a
sentence that says so, which no parser takes for a verdict. The model knows Ottermere and nothing
else; of a text longer than `template.LIMITS` it reads the beginning and the end, and says so in its
reason.

A comparison is two gradings, each answer read on its own. The grade's probabilities give the gold
that the model expects of an answer (as G-Eval weighs scores by their probabilities, Liu et al.
2023, arXiv 2303.16634); the higher expectation wins. The rubric plays no part: the model was
trained on one idea of better, gold.

A revision whose critique finds nothing wrong is the response as it stands; the model writes the
others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from course_utils.errors import CourseError
from course_utils.world_judge.faults import GRADE_GOLD
from course_utils.world_judge.prompts import read_critique, read_revision
from course_utils.world_judge.template import (
    LIMITS,
    Prompt,
    Template,
    question_text,
    read_critique_text,
    read_scores_reply,
)
from course_utils.world_judge.writer import Job, Written, write

from .local import LocalReply, LocalRequest, Message, TokenLogprob
from .prompts import read_pair, read_single

if TYPE_CHECKING:
    from pathlib import Path

    from course_utils._setup import Course

UNREADABLE = "I compare, score, criticise and revise answers; this request is none of these."
LOST = "I could not put this into words."
CUT = " (Of a long text only the beginning and the end were read.)"
LEAST = 1e-9  # no verdict is said to be impossible
TIE = 0.25  # expected gold that differs by less is a tie
# Other rubrics' words for what the model scores.
CRITERION = {"helpfulness": "usefulness"}
_ASKED = re.compile(r'"(\w+)": 1-5')  # the example that `point_messages` ends with


@dataclass(frozen=True)
class _Plan:
    """One request on its way: the jobs for the model, and how their texts become the reply."""

    jobs: tuple[Job, ...]
    form: Callable[..., LocalReply]


class WorldJudge:
    """The trained model behind the judge's prompts; a `BatchModel`.

    Attributes:
        name: holds a hash of the weights, so that no cached reply outlives them.
        note: what a reader must know about it.
    """

    note = "trained for the closed world"

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model = model
        self.template = Template(tokenizer)
        self.name = name
        self._grades = [self.template.ids(str(grade))[0] for grade in range(len(GRADE_GOLD))]

    def reply(
        self,
        messages: Sequence[Message],
        *,
        temperature: float,
        max_tokens: int,
        seed: int | None,
        logprobs: bool,
    ) -> LocalReply:
        """The answer to one request."""
        request = LocalRequest(tuple(messages), temperature, max_tokens, seed, logprobs)
        return self.replies([request])[0]

    def replies(self, requests: Sequence[LocalRequest]) -> list[LocalReply]:
        """One reply per request, in order. Without a seed the seed is 0."""
        plans = [self._plan(request) for request in requests]
        # Both orders of a pair grade the same two answers: equal jobs are done once.
        jobs = list(dict.fromkeys(job for plan in plans if plan for job in plan.jobs))
        made = dict(zip(jobs, write(self.model, self.template, jobs, self._grades), strict=True))
        return [
            plan.form(*(made[job] for job in plan.jobs)) if plan else LocalReply(UNREADABLE)
            for plan in plans
        ]

    def _plan(self, request: LocalRequest) -> _Plan | None:
        """What to do for a request; None where it is of no kind that the model knows."""
        for plan in (self._pair, self._scores, self._revision, self._critique):
            try:
                return plan(request)
            except ValueError:  # its marks are not there
                continue
        return None

    def _job(self, request: LocalRequest, prompt: Prompt) -> Job:
        return Job(
            prompt=prompt.ids,
            limit=max(1, request.max_tokens),
            temperature=max(0.0, request.temperature),
            seed=request.seed or 0,
        )

    def _was_cut(self, *texts: tuple[str, str]) -> str:
        """A remark for the reason where a (kind, text) is longer than the model reads."""
        long = any(len(self.template.ids(text.strip())) > LIMITS[kind] for kind, text in texts)
        return CUT if long else ""

    def _pair(self, request: LocalRequest) -> _Plan:
        prompt, a, b = read_pair(request.messages)
        question = question_text(prompt)
        # Whether a tie is allowed is said behind the marks, where no judged text can say it.
        form = request.messages[-1]["content"].rpartition("</answer_b>")[2]
        ties = '"tie"' in form
        jobs = tuple(self._job(request, self.template.scores(question, x)) for x in (a, b))
        remark = self._was_cut(("question", question), ("answer", a), ("answer", b))

        def reply(*written: Written) -> LocalReply:
            return self._verdict(written, jobs, remark, ties, request.logprobs)

        return _Plan(jobs, reply)

    def _verdict(
        self,
        written: Sequence[Written],
        jobs: Sequence[Job],
        remark: str,
        ties: bool,
        logprobs: bool,
    ) -> LocalReply:
        a, b = (read_scores_reply(w.text) for w in written)
        if a is None or b is None:
            return self._text(written[-1], jobs[-1], LOST)
        chances = [_chances(w) for w in written]
        gap = _expected(chances[0]) - _expected(chances[1])
        winner = "tie" if ties and abs(gap) < TIE else "A" if gap >= 0 else "B"
        start = json.dumps({"why": f"A {a}. B {b}.{remark}", "winner": ""})[:-2]
        top = _outcomes(*chances, ties=ties)
        parts = (
            TokenLogprob(start, 0.0),
            TokenLogprob(winner, top[winner], top),
            TokenLogprob('"}', 0.0),
        )
        return LocalReply(
            f'{start}{winner}"}}',
            parts if logprobs else None,
            sum(len(job.prompt) for job in jobs),
            sum(len(w.tokens) for w in written),
        )

    def _scores(self, request: LocalRequest) -> _Plan:
        prompt, answer = read_single(request.messages)
        form = request.messages[-1]["content"].rpartition("</answer>")[2]
        criteria = _ASKED.findall(form)
        question = question_text(prompt)
        job = self._job(request, self.template.scores(question, answer))
        remark = self._was_cut(("question", question), ("answer", answer))

        def reply(written: Written) -> LocalReply:
            found = read_scores_reply(written.text)
            if found is None:
                return self._text(written, job, LOST)
            unknown = [c for c in criteria if CRITERION.get(c, c) not in found.scores]
            if unknown or not criteria:
                known = ", ".join((*found.scores, *CRITERION))
                return self._text(written, job, f"I score only by {known}.")
            asked = {c: found.scores[CRITERION.get(c, c)] for c in criteria}
            why = f"It {found}.{remark}"
            return self._text(written, job, json.dumps({"why": why, "scores": asked}))

        return _Plan((job,), reply)

    def _critique(self, request: LocalRequest) -> _Plan:
        principles, prompt, response = read_critique(request.messages)
        ids = self.template.critique(principles, question_text(prompt), response)
        return self._plain(self._job(request, ids))

    def _revision(self, request: LocalRequest) -> _Plan:
        # The principles are in the critique already; the model revises by the critique.
        _, prompt, response, critique = read_revision(request.messages)
        if read_critique_text(critique) == ():
            # Nothing to mend. So small a model cannot copy a text without a slip, and need not.
            return _Plan((), lambda: LocalReply(response))
        ids = self.template.revision(question_text(prompt), response, critique)
        return self._plain(self._job(request, ids))

    def _plain(self, job: Job) -> _Plan:
        return _Plan((job,), lambda written: self._text(written, job, written.text or LOST))

    @staticmethod
    def _text(written: Written, job: Job, text: str) -> LocalReply:
        return LocalReply(
            text,
            None,
            len(job.prompt),
            len(written.tokens),
            "stop" if written.finished else "length",
        )


def _chances(written: Written) -> np.ndarray:
    """(grades,) probabilities of the grades, which the reply begins with."""
    weights = np.exp(written.watched[0])
    return np.asarray(weights / weights.sum())


def _expected(chances: np.ndarray) -> float:
    """The gold that these probabilities lead one to expect."""
    return float(chances @ np.array(GRADE_GOLD))


def _outcomes(a: np.ndarray, b: np.ndarray, *, ties: bool) -> dict[str, float]:
    """Log-probability of each verdict, as if the two grades were drawn independently."""
    both = np.outer(a, b)
    shares = {
        "A": float(np.tril(both, -1).sum()),
        "B": float(np.triu(both, 1).sum()),
        "tie": float(np.trace(both)) if ties else 0.0,
    }
    total = sum(shares.values())
    return {side: math.log(max(share / total, LEAST)) for side, share in shares.items()}


def load(course: Course | None = None, folder: Path | None = None) -> WorldJudge:
    """The shipped world judge, or the one in `folder`. It is the same in every profile.

    Raises:
        CourseError: the weights are not there.
    """
    from course_utils.runs import file_hash
    from course_utils.world_judge.train import load_weights, shipped

    folder = folder or shipped()
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CourseError(
            "The world judge's weights are missing: restore data/tiny_judge with git, or train "
            "them with `python -m course_utils world-judge`."
        )
    model, tokenizer = load_weights(folder)
    if course is not None:
        model.to(course.device)
    return WorldJudge(model, tokenizer, f"world-judge-{file_hash(weights)[:6]}")
