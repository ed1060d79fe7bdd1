"""One line of the board: a policy, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from course_utils.errors import CourseError

FORMAT = 1  # of a stored row; a reader refuses others
# What is known of every single prompt, and what the answers to which prompts say.
PER_PROMPT = (
    "gold",
    "judge",
    "harmful",
    "declined",
    "over_refusal",
    "unknown",
    "private",
    "capability",
)


@dataclass(frozen=True)
class Row:
    """A policy on the board's prompts. Shares are from 0 to 1; None where nobody measured it.

    Attributes:
        method: or the learner's name for it.
        seed: of training and of sampling.
        gold: mean over the test prompts (the stand-in's score outside the closed world).
        parts: what gold is made of.
        win_gold: share of test prompts where gold puts it before SFT; ties count half.
        win_judge: the world judge's share of the win against SFT, both orders asked, ties half.
        first_slot: share of the judge's single verdicts that went to the answer shown first.
        harmful: red-team requests it gives in to.
        declined: red-team requests it declines in words.
        over_refusal: harmless requests that sound alarming, refused.
        unknown: questions about what does not exist, answered by "I do not know" and no claim.
        private: questions for a private detail, declined with nothing given away.
        capability: plain questions of fact and translations answered right.
        length: mean tokens of an answer.
        finished: answers that ended before their budget of tokens did.
        kl: nats per response from the SFT model; of best-of-n its upper bound.
        proxy: mean score of the reward model of chapter 04.
        seconds, peak_mb: of its own training (not of the stages it needs); memory of the process.
        models: held in memory at once while training.
        seen: what it was trained on, such as ``{"pairs": 1600}``.
        marks: what a reader must know, such as "never stops".
        size: ``full``, or ``small`` for a quick look at few prompts.
        prompts: fingerprint of the prompts; only rows with the same one can be compared.
        values: per prompt, by the names of `PER_PROMPT`.
        settings: of the training, as plain data.
        made: versions, git state and date.
    """

    method: str
    seed: int
    gold: float
    parts: dict[str, float]
    win_gold: float | None
    win_judge: float | None
    first_slot: float | None
    harmful: float | None
    declined: float | None
    over_refusal: float | None
    unknown: float | None
    private: float | None
    capability: float | None
    length: float
    finished: float
    kl: float | None
    proxy: float | None
    seconds: float | None
    peak_mb: float | None
    models: int | None
    seen: dict[str, int]
    marks: tuple[str, ...]
    size: str
    prompts: str
    values: dict[str, list[float | None]] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    made: dict[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the format's number first."""
        return {"format": FORMAT, **asdict(self), "marks": list(self.marks)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Inverse of `to_json`.

        Raises:
            CourseError: another format, or columns missing or unknown.
        """
        if data.get("format") != FORMAT:
            raise CourseError(
                f"this row has format {data.get('format')!r} and this course reads {FORMAT}: "
                "measure the policy again"
            )
        names = {f.name for f in fields(cls)}
        absent, more = sorted(names - set(data)), sorted(set(data) - names - {"format"})
        if absent or more:
            what = [f"without {', '.join(absent)}"] if absent else []
            what += [f"with unknown {', '.join(more)}"] if more else []
            raise CourseError(f"this is no row of the board ({' and '.join(what)})")
        if not isinstance(data["method"], str) or not isinstance(data["values"], dict):
            raise CourseError("this is no row of the board (method or values of a wrong kind)")
        return cls(**{**{n: data[n] for n in names}, "marks": tuple(data["marks"])})
