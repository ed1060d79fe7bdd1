"""The learner's own record of points: one JSON file on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course_utils.checks import Exercise, Score


def progress_file() -> Path | None:
    """Where the learner's record stands; COURSE_PROGRESS names another file, or ``off``."""
    given = os.environ.get("COURSE_PROGRESS")
    if given == "off" or os.environ.get("NBGRADER_EXECUTION"):
        return None
    if given:
        return Path(given)
    from course_utils.paths import runs_dir

    return runs_dir() / "progress.json"


def read_progress() -> dict[str, dict[str, Any]]:
    """The record by exercise: chapter, last and best points, points possible, tries, time.

    A missing or damaged file reads as empty.
    """
    path = progress_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)}


def record(exercise: Exercise, score: Score) -> None:
    """Note the result; a failure to write never breaks a check."""
    path = progress_file()
    if path is None:
        return
    with contextlib.suppress(OSError, ValueError, TypeError):
        book = read_progress()
        old = book.get(exercise.name, {})
        book[exercise.name] = {
            "chapter": exercise.chapter,
            "score": float(score),
            "best": max(float(score), float(old.get("best", 0.0))),
            "points": float(exercise.points),
            "tries": int(old.get("tries", 0)) + 1,
            "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".progress")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(book, file, indent=1)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
