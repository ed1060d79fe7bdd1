"""What published rows mean: instructions and preference pairs of several formats as the course's.

The format is seen from the columns of the first row, and all rows must have them. Instructions
become dolly's columns, pairs the columns of `data.load_preferences`. Rows that nothing can be
learnt from are left out and counted.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from .errors import CourseError
from .readers import Numbered, Row
from .templates import RESPONSE_HEADER, format_dialogue, format_prompt

Messages = list[dict[str, str]]
QUESTION, ANSWER = "\n\nHuman:", "\n\nAssistant:"  # what each follows in hh-rlhf
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
# Why a row is left out.
EMPTY = "with an empty text"
EQUAL = "with equal sides"
EARLIER = "whose sides part before the last answer"
NO_DIALOGUE = "that are no dialogue of questions and answers"


class LeftOut(Exception):
    """Nothing can be learnt from a row; the message says why."""


@dataclass(frozen=True)
class Format:
    """One published format.

    Attributes:
        says: what it is called.
        needs: the columns by which it is recognised.
        convert: makes a row the course's; raises LeftOut, or ValueError for a value of the wrong
            type.
        chat: its sides are lists of messages instead of text.
    """

    says: str
    needs: tuple[str, ...]
    convert: Callable[[Row], Row]
    chat: bool = False

    def fits(self, row: Row) -> bool:
        if any(name not in row for name in self.needs):
            return False
        return isinstance(row[self.needs[-1]], list) == self.chat


@dataclass(frozen=True)
class Understood:
    """What was made of a file or data set.

    Attributes:
        name: of the file or data set.
        says: its format.
        rows: in the course's columns.
        openings: for each row what it begins with; rows that share it belong into one split.
        dialogues: how many have earlier turns.
        left_out: why, and how many.
    """

    name: str
    says: str
    rows: list[Row]
    openings: list[str]
    dialogues: int
    left_out: Counter[str]

    def __str__(self) -> str:
        kind = "pairs" if "chosen" in self.rows[0] else "instructions"
        turns = f", {self.dialogues} of them with earlier turns" if self.dialogues else ""
        text = f"{self.name}: {self.says}, {len(self.rows)} {kind}{turns}"
        if self.left_out:
            why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            text += f"; left out: {why}"
        return text + "."


def understand(rows: Numbered, name: str, formats: Sequence[Format]) -> Understood:
    """The rows of a file or data set in the course's columns.

    Raises:
        CourseError: columns of no known format, a row without the columns of the others, a value
            of the wrong type, or not one row that can be used.
    """
    chosen = _recognise(rows[0][1], name, formats)
    kept: list[Row] = []
    openings: list[str] = []
    left_out: Counter[str] = Counter()
    dialogues = 0
    for where, row in rows:
        absent = [column for column in chosen.needs if column not in row]
        if absent:
            raise CourseError(
                f"{name}, {where}: missing {', '.join(absent)}, which {chosen.says} has: "
                "give files of one format each."
            )
        try:
            converted = chosen.convert(row)
        except LeftOut as reason:
            left_out[str(reason)] += 1
        except ValueError as error:
            raise CourseError(f"{name}, {where}: {error}.") from error
        else:
            openings.append(converted.pop("opening"))
            dialogues += converted.pop("earlier_turns", False)
            kept.append(converted)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise CourseError(f"{name} was read as {chosen.says}, and no row can be used: {why}.")
    return Understood(name, chosen.says, kept, openings, dialogues, left_out)


def _recognise(first: Row, name: str, formats: Sequence[Format]) -> Format:
    for known in formats:
        if known.fits(first):
            return known
    forms = "; ".join(f"{f.says} ({', '.join(f.needs)})" for f in formats)
    raise CourseError(f"{name} has the columns {', '.join(first)}. Known formats: {forms}.")


def short_name(source: str | Path) -> str:
    """How a source is called in messages: a file's name without its folders, or the hub id."""
    return source if isinstance(source, str) and not os.path.exists(source) else Path(source).name


def _text(row: Mapping[str, Any], column: str) -> str:
    """A text, its blanks at the ends taken off; a column that is missing or null is empty."""
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{column} is a {type(value).__name__} where text is expected")
    return value.strip()


# Instructions


def _instruction(instruction: str, context: str, response: str, category: str) -> Row:
    if not instruction or not response:
        raise LeftOut(EMPTY)
    return {
        "instruction": instruction,
        "context": context,
        "response": response,
        "category": category,
        "opening": f"{instruction}\n{context}",
    }


def _from_dolly(row: Row) -> Row:
    values = (_text(row, c) for c in ("instruction", "context", "response", "category"))
    return _instruction(*values)


def _from_alpaca(row: Row) -> Row:
    values = (_text(row, c) for c in ("instruction", "input", "output", "category"))
    return _instruction(*values)


def _from_completion(row: Row) -> Row:
    return _instruction(_text(row, "prompt"), "", _text(row, "completion"), "")


INSTRUCTION_FORMATS = (
    Format("dolly's instructions", ("instruction", "response"), _from_dolly),
    Format("Alpaca's instructions", ("instruction", "output"), _from_alpaca),
    Format("prompts and completions", ("prompt", "completion"), _from_completion),
)


# Preferences


def _pair(prompt: str, chosen: str, rejected: str, opening: str, earlier: bool = False) -> Row:
    """One pair in the columns of `data.load_preferences`: one vote, and nobody knows gold."""
    if not opening or not chosen or not rejected:
        raise LeftOut(EMPTY)
    if chosen == rejected:
        raise LeftOut(EQUAL)
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "margin": 1.0,
        "votes": 1.0,
        "gold_chosen": None,
        "gold_rejected": None,
        "case_id": "",
        "opening": opening,
        "earlier_turns": earlier,
    }


def _from_alpaca_pair(row: Row) -> Row:
    instruction, context = _text(row, "instruction"), _text(row, "input") or _text(row, "context")
    prompt = format_prompt(instruction, context)
    return _pair(prompt, _text(row, "chosen"), _text(row, "rejected"), instruction)


def _from_prompt_pair(row: Row) -> Row:
    """The prompt is a question, a dialogue of hh-rlhf, or stands in the course's template."""
    raw = row["prompt"]
    asked, chosen, rejected = (_text(row, c) for c in ("prompt", "chosen", "rejected"))
    if asked and raw.startswith("### ") and raw.endswith(RESPONSE_HEADER):
        return _pair(raw, chosen, rejected, raw)
    if asked and raw.startswith(QUESTION) and raw.rstrip().endswith(ANSWER):
        return _dialogue_pair(raw.rstrip(), chosen, rejected)
    return _pair(format_prompt(asked), chosen, rejected, asked)


def _from_dialogues(row: Row) -> Row:
    """hh-rlhf: both sides are whole dialogues, the same up to the last answer."""
    for side in ("chosen", "rejected"):
        _text(row, side)  # refuses what is no text
    chosen, rejected = row["chosen"] or "", row["rejected"] or ""
    prompt, other = _before_last_answer(chosen), _before_last_answer(rejected)
    if prompt != other:
        raise LeftOut(EARLIER)
    return _dialogue_pair(prompt, *(side[len(prompt) :].strip() for side in (chosen, rejected)))


def _before_last_answer(dialogue: str) -> str:
    """The dialogue up to the first ``\n\nAssistant:`` after the last question, that included.

    What follows is the last answer, though it may hold such a mark itself.
    """
    begins = dialogue.find(ANSWER, dialogue.rfind(QUESTION))
    if QUESTION not in dialogue or begins < 0:
        raise LeftOut(NO_DIALOGUE)
    return dialogue[: begins + len(ANSWER)]


def _dialogue_pair(prompt: str, chosen: str, rejected: str) -> Row:
    """A pair whose prompt is written as in hh-rlhf and ends with ``\\n\\nAssistant:``."""
    start, *pieces = _SPEAKER.split(prompt.removesuffix(ANSWER))
    turns = [
        (speaker == "Human", text.strip())
        for speaker, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    if start.strip():
        raise LeftOut(NO_DIALOGUE)
    return _turns_pair(turns, chosen, rejected)


def _turns_pair(
    turns: Sequence[tuple[bool, str]], chosen: str, rejected: str, context: str = ""
) -> Row:
    """A pair after `turns`: (is a question, text). Turns of one speaker in a row are joined."""
    joined: list[tuple[bool, str]] = []
    for asks, text in turns:
        if joined and joined[-1][0] == asks:
            text = f"{joined.pop()[1]}\n\n{text}".strip()
        joined.append((asks, text))
    if not joined or not joined[0][0] or not joined[-1][0]:
        raise LeftOut(NO_DIALOGUE)
    texts = [text for _, text in joined]
    if not all(texts):
        raise LeftOut(EMPTY)
    earlier = list(zip(texts[:-1:2], texts[1::2], strict=True))
    prompt = format_dialogue(earlier, texts[-1], context)
    return _pair(prompt, chosen, rejected, texts[0], bool(earlier))


def _from_chats(row: Row) -> Row:
    """TRL's conversational form: messages with role and content, the prompt apart or in both."""
    prompt = row.get("prompt")
    sides = []
    for side in ("chosen", "rejected"):
        if not are_messages(row[side]) or not (prompt is None or _asks(prompt)):
            raise ValueError(f"{side} or its prompt is no list of messages with role and content")
        sides.append(conversation(prompt, row[side]))
    if any(side[-1]["role"] != "assistant" for side in sides):
        raise LeftOut(NO_DIALOGUE)
    if sides[0][:-1] != sides[1][:-1]:
        raise LeftOut(EARLIER)
    before = sides[0][:-1]
    context = "\n".join(_text(m, "content") for m in before if m["role"] == "system")
    turns = [(m["role"] == "user", _text(m, "content")) for m in before if m["role"] != "system"]
    chosen, rejected = (_text(side[-1], "content") for side in sides)
    return _turns_pair(turns, chosen, rejected, context)


def _asks(prompt: Any) -> bool:
    return isinstance(prompt, str) or are_messages(prompt)


def are_messages(given: Any) -> TypeGuard[Messages]:
    """True for a list, not empty, of messages with role and content."""
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in given)
    )


def conversation(prompt: str | Messages | None, side: Messages) -> Messages:
    """All messages of one side: some data sets repeat the prompt in it, some do not."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}] if side[0]["role"] == "assistant" else []
    prompt = prompt or []
    return side if side[: len(prompt)] == prompt else prompt + side


PREFERENCE_FORMATS = (
    Format("Alpaca's pairs", ("instruction", "chosen", "rejected"), _from_alpaca_pair),
    Format("prompts with two answers", ("prompt", "chosen", "rejected"), _from_prompt_pair),
    Format("dialogues as in hh-rlhf", ("chosen", "rejected"), _from_dialogues),
    Format("chats as lists of messages", ("chosen", "rejected"), _from_chats, chat=True),
)
