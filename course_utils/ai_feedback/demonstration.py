"""Judges scripted to show position bias: no models, and named so wherever they answer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from course_utils.judge.calls import Reply
from course_utils.judge.local import FunctionModel, LocalReply, LocalRequest, answer_all
from course_utils.judge.parse import slot_probability


def always_a() -> FunctionModel:
    """The first answer wins, whatever it says."""
    reply = json.dumps({"why": "It comes first.", "winner": "A"})
    return FunctionModel(lambda messages, parameters: reply, "always A (scripted)")


class Leaning:
    """Another model's verdicts with a liking for the first answer added; a `BatchModel`.

    Attributes:
        model: whose probabilities are leant on; it has to give log-probs.
        lean: added to the log-odds of the first answer.
        name: says what it is.
    """

    def __init__(self, model: Any, lean: float = 1.5) -> None:
        self.model = model
        self.lean = lean
        self.name = f"{model.name} leaning to the first (scripted)"

    def replies(self, requests: Sequence[LocalRequest]) -> list[LocalReply]:
        """The model's replies, the winner chosen anew; one without log-probs stays as it is."""
        return [self._leant(reply) for reply in answer_all(self.model, requests)]

    def _leant(self, reply: LocalReply) -> LocalReply:
        p = slot_probability(Reply(reply.text, logprobs=reply.logprobs))
        if p is None:
            return reply
        p = min(max(p, 1e-9), 1 - 1e-9)
        first = math.log(p / (1 - p)) + self.lean > 0
        return LocalReply(json.dumps({"why": "", "winner": "A" if first else "B"}))
