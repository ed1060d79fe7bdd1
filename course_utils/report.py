"""Headline numbers of a chapter: printed for the reader, collected for ``build/summary.json``."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError

Value = bool | int | float | str | list[Any]

_chapter = ""
_metrics: dict[str, dict[str, Value]] = {}


def set_chapter(name: str) -> None:
    """Say which chapter the following metrics belong to. ``setup()`` calls this."""
    global _chapter
    _chapter = name


def current_chapter() -> str:
    """The chapter named last by ``set_chapter``, or an empty string before ``setup()``."""
    return _chapter


def metrics(chapter: str | None = None) -> dict[str, Value]:
    """The numbers reported so far in this process, for one chapter (default: the current one)."""
    return dict(_metrics.get(_chapter if chapter is None else chapter, {}))


def report_metric(name: str, value: object) -> None:
    """Print one headline number and add it to the course report.

    Args:
        name: what the number is, for example ``"gold_sft"``.
        value: a finite number (Python, numpy or a 0-d tensor), a string, a bool, or a list or
            tuple of these.

    Raises:
        CourseError: the value is none of these, or not finite.
    """
    if not isinstance(name, str) or not name:
        raise CourseError("report_metric needs a name, for example report_metric('gold_sft', 1.5).")
    plain = _plain(name, value)
    print(f"metric {name} = {_shown(plain)}")
    _metrics.setdefault(_chapter, {})[name] = plain
    target = os.environ.get("COURSE_METRICS_FILE")
    if target:
        line = json.dumps({"chapter": _chapter, "name": name, "value": plain}, allow_nan=False)
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _plain(name: str, value: object) -> Value:
    if isinstance(value, list | tuple):
        return [_plain(name, part) for part in value]
    if not isinstance(value, bool | int | float | str):
        value = _item(value)
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        raise CourseError(f"Metric {name!r} is {value}: report a finite number.")
    raise CourseError(
        f"Metric {name!r} is a {type(value).__name__}: report a finite number, a string, a bool, "
        "or a list of these."
    )


def _item(value: object) -> object:
    """A numpy scalar, or an array or tensor with one element, as plain Python."""
    try:
        return value.item()  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return value


def _shown(value: Value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_shown(part) for part in value) + "]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
