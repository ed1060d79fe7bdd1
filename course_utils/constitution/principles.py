"""The constitution: principles in plain words, shipped as data and open to editing.

The shipped ones are the source document's five (section 7), in ``data/constitution.json``. A
constitution is a value: `without` and `adding` give another one.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError, unknown_name
from course_utils.paths import data_dir

FILE = "constitution.json"
LEGAL = (
    "give one sentence or more, each a text or a {'name': ..., 'text': ...}, for example "
    "['Responses should be helpful.', 'Responses should not contain harmful content.']"
)
_NUMBER = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+")  # "1. ", "2) ", "- " before a principle


@dataclass(frozen=True)
class Principle:
    """One sentence that responses are held to.

    Attributes:
        name: short, for tables; unique within a constitution.
        text: as the judge reads it, on one line.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        for field in ("name", "text"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip():
                raise CourseError(f"A principle's {field} is {value!r}: {LEGAL}.")
            object.__setattr__(self, field, " ".join(value.split()))


@dataclass(frozen=True)
class Constitution:
    """Principles in order. Made by `load_constitution` or `as_constitution`.

    Attributes:
        principles: at least one.
        origin: who wrote them.
    """

    principles: tuple[Principle, ...]
    origin: str = ""

    def __post_init__(self) -> None:
        if not self.principles:
            raise CourseError(f"The constitution is empty: {LEGAL}.")
        twice = next((n for n in self.names if self.names.count(n) > 1), None)
        if twice is not None:
            raise CourseError(f"Two principles are named {twice!r}: give each a name of its own.")

    def __len__(self) -> int:
        return len(self.principles)

    def __iter__(self) -> Iterator[Principle]:
        return iter(self.principles)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.principles)

    @property
    def text(self) -> str:
        """As a critique is asked by: one numbered line for each; a single one has no number."""
        if len(self) == 1:
            return self.principles[0].text
        return "\n".join(f"{n}. {p.text}" for n, p in enumerate(self.principles, start=1))

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with names, texts or order."""
        rows = json.dumps([[p.name, p.text] for p in self.principles])
        return hashlib.sha256(rows.encode()).hexdigest()[:16]

    def without(self, name: str) -> Constitution:
        """The same less one principle.

        Raises:
            CourseError: no principle has that name, or nothing would be left.
        """
        if name not in self.names:
            raise unknown_name("principle", name, self.names)
        return Constitution(tuple(p for p in self if p.name != name), self.origin)

    def adding(self, text: str, name: str = "") -> Constitution:
        """The same and one more principle, the last one."""
        added = Principle(name or f"principle {len(self) + 1}", text)
        return Constitution((*self.principles, added), self.origin)

    def drawn(self, seed: object) -> Constitution:
        """One of the principles, alone; `seed` decides which."""
        return Constitution((random.Random(f"{seed}").choice(self.principles),), self.origin)

    def __str__(self) -> str:
        return self.text


Given = Constitution | str | Sequence[str | Principle | Mapping[str, Any]]


def as_constitution(given: Given | None, origin: str = "given in Python") -> Constitution:
    """A constitution from a list of sentences, or from a text with one principle on a line.

    Numbers and bullets before a line are taken off; a principle without a name is called by its
    place. None is the shipped one.

    Raises:
        CourseError: it is empty, or one of its principles is; the message says what is legal.
    """
    if given is None:
        return load_constitution()
    if isinstance(given, Constitution):
        return given
    if isinstance(given, str):
        lines = [line for line in given.splitlines() if line.strip()]
        given = [_NUMBER.sub("", line) for line in lines]
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise CourseError(f"A constitution cannot be made of {type(given).__name__}: {LEGAL}.")
    principles = tuple(_principle(number, row) for number, row in enumerate(given, start=1))
    return Constitution(principles, origin)


def _principle(number: int, row: Any) -> Principle:
    if isinstance(row, Principle):
        return row
    if isinstance(row, str) and row.strip():
        return Principle(f"principle {number}", row)
    if isinstance(row, Mapping) and {"name", "text"} <= row.keys():
        return Principle(row["name"], row["text"])
    what = "empty" if isinstance(row, str) else f"a {type(row).__name__} without name and text"
    raise CourseError(f"Principle {number} is {what}: {LEGAL}.")


def load_constitution(path: str | Path | None = None) -> Constitution:
    """The shipped constitution, or the one in a JSON file of the same form.

    The form: an object with ``principles`` (a list of sentences, or of objects with name and text)
    and, if you like, ``origin``.

    Raises:
        CourseError: no such file, no JSON, or not of that form; the message says what is legal.
    """
    file = data_dir() / FILE if path is None else Path(path).expanduser()
    legal = 'give a JSON file like data/constitution.json: {"principles": [{"name", "text"}, ...]}'
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CourseError(
            f"The constitution {file.name} cannot be read ({error.strerror}): {legal}."
        ) from error
    except ValueError as error:  # JSON and UTF-8 errors both are
        raise CourseError(f"The constitution {file.name} is no JSON: {legal}.") from error
    rows = found.get("principles") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise CourseError(f"The constitution {file.name} holds no list of principles: {legal}.")
    return as_constitution(rows, str(found.get("origin", "")) or file.name)
