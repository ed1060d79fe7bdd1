"""Model names, prices and what a model refuses, from the one dated file ``data/judge_models.json``.

The file is for the reader to edit: prices and names change faster than a course does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError
from course_utils.paths import data_dir

FILE = "judge_models.json"


@dataclass(frozen=True)
class ModelCard:
    """What is known about a model that is asked over an API.

    Attributes:
        name: as the API calls it.
        input, output: US dollars per million tokens; None when unknown.
        refuses: parameters that are left out of a request.
        renames: parameters that go by another name.
        adds: parameters that every request gets, so that the others are accepted.
        shutdown: the announced date of its end (ISO), or None.
    """

    name: str
    input: float | None = None
    output: float | None = None
    refuses: frozenset[str] = frozenset()
    renames: Mapping[str, str] = field(default_factory=dict)
    adds: Mapping[str, Any] = field(default_factory=dict)
    shutdown: str | None = None

    @property
    def priced(self) -> bool:
        """Whether a cap in money can be kept."""
        return self.input is not None and self.output is not None

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What so many tokens cost, or None without a price."""
        if self.input is None or self.output is None:
            return None
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


@dataclass(frozen=True)
class Catalogue:
    """The contents of the file.

    Attributes:
        date: when the names and prices were looked up (ISO).
        default: the model of `make_backend("live")` where none is named.
        models: by name.
        replaced: old name -> (present name, date of the old one's shutdown).
    """

    date: str
    default: str
    models: Mapping[str, ModelCard]
    replaced: Mapping[str, tuple[str, str]]

    def card(self, name: str) -> ModelCard:
        """What is known about `name`; an unlisted model has no price and no known refusals.

        Raises:
            CourseError: the model was shut down; the message names its replacement.
        """
        if name in self.replaced:
            present, date = self.replaced[name]
            raise CourseError(
                f"The model {name!r} of the source document was shut down on {date}: "
                f"use {present!r} (see data/{FILE})."
            )
        return self.models.get(name) or ModelCard(name)


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue in a file.

    Raises:
        CourseError: the file is missing or not what it should be.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        models = {name: _card(name, entry) for name, entry in raw["models"].items()}
        replaced = {old: (e["by"], e["shutdown"]) for old, e in raw["replaced"].items()}
        return Catalogue(raw["date"], raw["default"], models, replaced)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CourseError(
            f"{path.name} cannot be read ({type(error).__name__}: {error}): restore it with git."
        ) from error


def _card(name: str, entry: Mapping[str, Any]) -> ModelCard:
    return ModelCard(
        name,
        input=entry["input"],
        output=entry["output"],
        refuses=frozenset(entry["refuses"]),
        renames=dict(entry["renames"]),
        adds=dict(entry["adds"]),
        shutdown=entry["shutdown"],
    )


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The shipped file, read once."""
    return read_catalogue(data_dir() / FILE)
