"""What is labelled: pairs of answers, and single answers, checked before anybody sees them.

A pair has the columns prompt, response_a, response_b; an answer to be rated prompt, response. Two
optional columns: ``gold``, the choice an attention check expects, and ``meta``, an object. Every
other column, such as the source of an answer, goes into ``meta``: it is logged and never shown.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from course_utils.errors import CourseError

PAIR_COLUMNS = ("prompt", "response_a", "response_b")
RATING_COLUMNS = ("prompt", "response")
PAIR_GOLD = ("a", "b", "tie", "both_bad")
RATING_GOLD = ("up", "down")


@dataclass(frozen=True)
class Pair:
    """A prompt with two answers. `gold` is set for an attention check only."""

    prompt: str
    response_a: str
    response_b: str
    gold: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def pair_id(self) -> str:
        """Content hash: the same texts have the same id in every file."""
        return content_id(self.prompt, self.response_a, self.response_b)

    @property
    def texts(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in PAIR_COLUMNS}


@dataclass(frozen=True)
class Answer:
    """A prompt with one answer, to be rated. `gold` is set for an attention check only."""

    prompt: str
    response: str
    gold: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def pair_id(self) -> str:
        """Content hash; the log calls it pair_id here, too."""
        return content_id(self.prompt, self.response)

    @property
    def texts(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in RATING_COLUMNS}


def content_id(*texts: str) -> str:
    """A hash of some texts, 16 hexadecimal digits."""
    joined = json.dumps(texts).encode()  # ASCII, so half a surrogate pair is no obstacle
    return hashlib.sha256(joined).hexdigest()[:16]


def printable(text: str) -> str:
    """Without halves of surrogate pairs (a question mark each), which no other program takes."""
    return text.encode("utf-8", "replace").decode()


def in_blind_order(first: str, second: str) -> tuple[str, str]:
    """Two answers in an order that says nothing about where they stood: by content hash."""
    a, b = sorted((first, second), key=content_id)
    return a, b


@dataclass(frozen=True)
class ItemReport:
    """What became of the rows to be labelled.

    Attributes:
        kept: shown to annotators.
        duplicate: left out, the same texts again (for a pair also with the answers swapped).
        identical: left out, both answers say the same (blanks at the ends aside).
        empty: left out, a text is empty.
        first: for each of the last three that occurs, the number of its first row, from 0.
    """

    kept: int
    duplicate: int = 0
    identical: int = 0
    empty: int = 0
    first: dict[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        return self.duplicate + self.identical + self.empty

    def __str__(self) -> str:
        kinds = {
            "duplicate": "seen before",
            "identical": "with identical answers",
            "empty": "with an empty text",
        }
        why = [
            f"{getattr(self, kind)} {says} (first: row {self.first[kind]})"
            for kind, says in kinds.items()
            if getattr(self, kind)
        ]
        text = f"{self.kept} of {self.kept + self.left_out} rows kept"
        return f"{text}; left out: {', '.join(why)}" if why else text


def read_pairs(rows: Iterable[Mapping[str, Any] | Pair]) -> tuple[list[Pair], ItemReport]:
    """Rows as pairs, without those that nobody can decide, and a count of these.

    Raises:
        CourseError: a row without the columns, or no pair that can be labelled.
    """
    return _read(rows, Pair, PAIR_COLUMNS, PAIR_GOLD)


def read_answers(rows: Iterable[Mapping[str, Any] | Answer]) -> tuple[list[Answer], ItemReport]:
    """Rows as single answers; see `read_pairs`."""
    return _read(rows, Answer, RATING_COLUMNS, RATING_GOLD)


def _read(
    rows: Iterable[Any], kind: type[Any], columns: tuple[str, ...], gold: tuple[str, ...]
) -> tuple[list[Any], ItemReport]:
    kept: list[Any] = []
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        item = row if isinstance(row, kind) else _item(row, number, kind, columns, gold)
        problem = _problem(item, seen)
        if problem:
            counts[problem] += 1
            first.setdefault(problem, number)
            continue
        kept.append(item)
        seen.add(_unordered_id(item))
    report = ItemReport(len(kept), first=first, **counts)
    if not kept:
        raise CourseError(f"There is nothing to label ({report}): check the rows.")
    return kept, report


def _item(
    row: Any, number: int, kind: type[Any], columns: tuple[str, ...], gold: tuple[str, ...]
) -> Any:
    texts = [row.get(name) for name in columns] if isinstance(row, Mapping) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise CourseError(
            f"Row {number}: give {', '.join(columns)} as text (optional: gold, meta; "
            "other columns are logged and never shown)."
        )
    if row.get("gold") not in (None, *gold):
        raise CourseError(f"Row {number}: gold is {row['gold']!r}; legal: {', '.join(gold)}.")
    more = {k: v for k, v in row.items() if k not in (*columns, "gold", "meta")}
    meta = row.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise CourseError(f"Row {number}: meta is {meta!r}; give an object, or leave it out.")
    meta = {**meta, **more}
    try:
        json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CourseError(f"Row {number}: meta cannot be written as JSON ({error}).") from error
    return kind(*texts, gold=row.get("gold"), meta=meta)


def _problem(item: Pair | Answer, seen: set[str]) -> str:
    """Why an item is not shown, as a field of `ItemReport`; empty when it is."""
    texts = [text.strip() for text in item.texts.values()]
    if not all(texts):
        return "empty"
    if isinstance(item, Pair) and texts[1] == texts[2]:
        return "identical"
    return "duplicate" if _unordered_id(item) in seen else ""


def _unordered_id(item: Pair | Answer) -> str:
    """The same for a pair and for the pair with its answers swapped."""
    prompt, *answers = item.texts.values()
    return content_id(prompt, *sorted(answers))
