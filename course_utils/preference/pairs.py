"""Preference data in three forms, made uniform: prompt, chosen, rejected, all three text.

Accepted are whole dialogues in the manner of hh-rlhf, prompt/chosen/rejected as text, and chat
messages. What cannot be learnt from is left out, counted and reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from course_utils.data import mask_prompt
from course_utils.errors import CourseError
from course_utils.formats import ANSWER, Messages, are_messages, conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDES = ("chosen", "rejected")
ACCEPTED = (
    "give chosen and rejected as whole dialogues (hh-rlhf), as text beside a prompt, or as lists "
    "of {'role': ..., 'content': ...} messages"
)


@dataclass(frozen=True)
class PairReport:
    """What became of the rows given to `prepare_pairs`.

    Attributes:
        kept: pairs one can learn from.
        equal: left out, both sides say the same (blanks at the ends aside).
        empty: left out, a side says nothing.
        no_shared_prompt: left out, the sides answer different prompts, or there is no prompt.
        first: for each of the last three that occurs, the number of its first row, from 0.
    """

    kept: int
    equal: int = 0
    empty: int = 0
    no_shared_prompt: int = 0
    first: dict[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        return self.equal + self.empty + self.no_shared_prompt

    def __str__(self) -> str:
        text = f"{self.kept} of {self.kept + self.left_out} pairs kept"
        kinds = {
            "equal": "with equal sides",
            "empty": "with an empty side",
            "no_shared_prompt": "without a shared prompt",
        }
        why = [
            f"{getattr(self, kind)} {says} (first: row {self.first[kind]})"
            for kind, says in kinds.items()
            if getattr(self, kind)
        ]
        return f"{text}; left out: {', '.join(why)}" if why else text


def prepare_pairs(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[list[dict[str, str]], PairReport]:
    """Rows of any accepted form as (prompt/chosen/rejected texts, report).

    A prompt includes all that stands before the answer: in hh-rlhf every earlier turn up to the
    last ``\\n\\nAssistant:``, in chats whatever the tokenizer's template puts there. So a prompt
    and an answer, joined, are the text a model reads; the EOS is added when it is tokenised.

    Args:
        tokenizer: needed for chat messages; its chat template turns them into text.

    Raises:
        CourseError: a row of another form, or no pair that can be kept.
    """
    kept: list[dict[str, str]] = []
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        split = [_split(row, side, number, tokenizer) for side in SIDES]
        prompts, answers = zip(*split, strict=True)
        problem = _problem(prompts, answers)
        if problem:
            counts[problem] += 1
            first.setdefault(problem, number)
        else:
            kept.append({"prompt": prompts[0], "chosen": answers[0], "rejected": answers[1]})
    report = PairReport(len(kept), first=first, **counts)
    if not kept:
        raise CourseError(f"No pair can be learnt from ({report}): check the data's columns.")
    return kept, report


def _problem(prompts: Sequence[str], answers: Sequence[str]) -> str:
    """Why a pair cannot be used, as a field of `PairReport`; empty when it can."""
    chosen, rejected = (answer.strip() for answer in answers)
    if prompts[0] != prompts[1] or not prompts[0].strip():
        return "no_shared_prompt"
    if not chosen or not rejected:
        return "empty"
    return "equal" if chosen == rejected else ""


def _split(
    row: Mapping[str, Any], side: str, number: int, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[str, str]:
    """(prompt, answer) of one side of a row."""
    given, prompt = row.get(side), row.get("prompt")
    if isinstance(given, str) and prompt is None:
        before, mark, answer = given.rpartition(ANSWER)
        return before + mark, answer
    if isinstance(given, str) and isinstance(prompt, str):
        return prompt, given
    if not are_messages(given) or not (isinstance(prompt, str | None) or are_messages(prompt)):
        raise CourseError(f"Row {number}, {side}: {ACCEPTED}.")
    if tokenizer is None or not tokenizer.chat_template:
        raise CourseError(
            f"Row {number} holds chat messages: pass a tokenizer that has a chat template."
        )
    return _split_chat(conversation(prompt, given), tokenizer)


def _split_chat(messages: Messages, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """(prompt, answer) as the chat template writes them, without BOS and EOS at the ends."""
    if messages[-1]["role"] != "assistant":  # nobody answers
        return _render(messages, tokenizer, True), ""
    prompt = _render(messages[:-1], tokenizer, True) if len(messages) > 1 else ""
    whole = _render(messages, tokenizer, False)
    if not whole.startswith(prompt):
        raise CourseError(
            "This chat template writes a prompt differently once it is answered: "
            "pass the pairs as text."
        )
    if not messages[-1]["content"].strip():
        return prompt, ""
    answer = whole[len(prompt) :]
    bare = answer.rstrip()  # some templates put a line end after the EOS
    ended = bare.endswith(tokenizer.eos_token)
    return prompt, bare.removesuffix(tokenizer.eos_token) if ended else answer


def _render(messages: Messages, tokenizer: PreTrainedTokenizerBase, ask: bool) -> str:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:  # it will be added anyway
        text = text.removeprefix(tokenizer.bos_token)
    return text


@dataclass(frozen=True)
class LengthReport:
    """How many sequences (prompt, response and EOS) exceed a limit, and what that costs.

    Attributes:
        limit: in tokens.
        sequences: how many were measured: two for a pair, one for a thumb.
        longest: tokens of the longest.
        cut: for each of the columns ``chosen``, ``rejected``, ``completion`` that the rows have,
            how many lose their end, the EOS first.
        no_room: how many of those lose the whole response, since the prompt fills the limit.
    """

    limit: int
    sequences: int
    longest: int
    cut: dict[str, int]
    no_room: int

    def __str__(self) -> str:
        if not any(self.cut.values()):
            return (
                f"all {self.sequences} sequences fit into {self.limit} tokens "
                f"(longest: {self.longest})"
            )
        sides = ", ".join(f"{count} {side}" for side, count in self.cut.items())
        text = (
            f"of {self.sequences} sequences {sum(self.cut.values())} exceed {self.limit} tokens "
            f"(longest: {self.longest}) and are cut at the end: {sides}"
        )
        return f"{text}; {self.no_room} keep nothing of the response" if self.no_room else text


def too_long(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> LengthReport:
    """Measure pairs (prompt, chosen, rejected) or thumbs (prompt, completion) in tokens."""
    lengths: list[int] = []
    cut: dict[str, int] = {}
    no_room = 0
    for row in rows:
        for column in (c for c in (*SIDES, "completion") if c in row):
            ids, labels = mask_prompt(row["prompt"], row[column], tokenizer)
            lengths.append(len(ids))
            cut[column] = cut.get(column, 0) + (len(ids) > max_length)
            no_room += all(label < 0 for label in labels[:max_length])
    return LengthReport(max_length, len(lengths), max(lengths, default=0), cut, no_room)


def with_room(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[dict[str, Any]]:
    """The rows whose every response keeps at least one token under the limit."""
    return [dict(row) for row in rows if too_long([row], tokenizer, max_length).no_room == 0]


def unpair(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pairs as thumbs for KTO: prompt, completion, label (True for the chosen side).

    First every chosen side, then every rejected one: where the two sides of a pair are neighbours,
    KTO's mismatched prompts and completions would belong together after all.
    """
    pairs = list(rows)
    thumbs = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for side in SIDES
        for row in pairs
    ]
    require_both_labels(thumbs)
    return thumbs


def require_both_labels(thumbs: Sequence[Mapping[str, Any]]) -> None:
    """Raise CourseError unless there are thumbs up and thumbs down.

    With one kind only, KTO's cheapest way is to make every response more likely, or less.
    """
    up = sum(bool(row["label"]) for row in thumbs)
    if not 0 < up < len(thumbs):
        raise CourseError(
            f"KTO needs both kinds of label, and here {up} of {len(thumbs)} are thumbs up: "
            "add responses of the other kind."
        )


def mismatched(thumbs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same prompts, each with the completion of the row before it, as TRL's KTO does."""
    completions = [row["completion"] for row in thumbs]
    rotated = completions[-1:] + completions[:-1]
    return [{**row, "completion": other} for row, other in zip(thumbs, rotated, strict=True)]
