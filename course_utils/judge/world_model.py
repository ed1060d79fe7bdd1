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
reason. The rubric plays no part in a comparison: the model was trained on one idea of better, gold.
It decides before it writes its reason (see `template`), whatever the order in the JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError
from course_utils.world_judge.prompts import read_critique, read_revision
from course_utils.world_judge.template import (
    LIMITS,
    VERDICTS,
    Prompt,
    Template,
    question_text,
    read_pair_reply,
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
# Other rubrics' words for what the model scores.
CRITERION = {"helpfulness": "usefulness"}
_ASKED = re.compile(r'"(\w+)": 1-5')  # the example that `point_messages` ends with


@dataclass(frozen=True)
class _Plan:
    """One request on its way: the job for the model, and how its text becomes the reply."""

    job: Job
    form: Callable[[Written], LocalReply]


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
        # The first token of each verdict.
        self._letters = {side: self.template.ids(text)[0] for side, text in VERDICTS.items()}

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
        jobs = [plan.job for plan in plans if plan is not None]
        written = iter(write(self.model, self.template, jobs, list(self._letters.values())))
        return [
            LocalReply(UNREADABLE) if plan is None else plan.form(next(written)) for plan in plans
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
        job = self._job(request, self.template.pair(question, a, b))
        remark = self._was_cut(("question", question), ("answer", a), ("answer", b))

        def reply(written: Written) -> LocalReply:
            return self._verdict(written, job, remark, ties, request.logprobs)

        return _Plan(job, reply)

    def _verdict(
        self, written: Written, job: Job, remark: str, ties: bool, logprobs: bool
    ) -> LocalReply:
        found = read_pair_reply(written.text)
        if found is None:
            return self._text(written, job, LOST)
        why, winner = found
        top = dict(zip(self._letters, written.watched[0], strict=True))  # the verdict comes first
        if not ties:
            top["tie"] = -math.inf
            winner = "A" if top["A"] >= top["B"] else "B"
        start = json.dumps({"why": why + remark, "winner": ""})[:-2]
        parts = (
            TokenLogprob(start, 0.0),
            TokenLogprob(winner, top[winner], top),
            TokenLogprob('"}', 0.0),
        )
        text = f'{start}{winner}"}}'
        given = parts if logprobs else None
        return LocalReply(text, given, len(job.prompt), len(written.tokens))

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
            why, scores = found
            unknown = [c for c in criteria if CRITERION.get(c, c) not in scores]
            if unknown or not criteria:
                known = ", ".join((*scores, *CRITERION))
                return self._text(written, job, f"I score only by {known}.")
            asked = {c: scores[CRITERION.get(c, c)] for c in criteria}
            return self._text(written, job, json.dumps({"why": why + remark, "scores": asked}))

        return _Plan(job, reply)

    def _critique(self, request: LocalRequest) -> _Plan:
        principles, prompt, response = read_critique(request.messages)
        ids = self.template.critique(principles, question_text(prompt), response)
        return self._plain(self._job(request, ids))

    def _revision(self, request: LocalRequest) -> _Plan:
        # The principles are in the critique already; the model revises by the critique.
        _, prompt, response, critique = read_revision(request.messages)
        ids = self.template.revision(question_text(prompt), response, critique)
        return self._plain(self._job(request, ids))

    def _plain(self, job: Job) -> _Plan:
        return _Plan(job, lambda written: self._text(written, job, written.text or LOST))

    @staticmethod
    def _text(written: Written, job: Job, text: str) -> LocalReply:
        return LocalReply(
            text,
            None,
            len(job.prompt),
            len(written.tokens),
            "stop" if written.finished else "length",
        )


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
            "them with `python -m course_utils.world_judge`."
        )
    model, tokenizer = load_weights(folder)
    if course is not None:
        model.to(course.device)
    return WorldJudge(model, tokenizer, f"world-judge-{file_hash(weights)[:6]}")
