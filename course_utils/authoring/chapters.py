"""Which chapters there are, and which of them a name on the command line means."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from course_utils.errors import CourseError, unknown_name

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
CHAPTER = re.compile(r"\d\d_[a-z0-9_]+")


def list_chapters(folder: Path, suffix: str) -> dict[str, Path]:
    """The chapter files in a folder by stem (``"02_sft"``), in order."""
    paths = sorted(folder.glob(f"[0-9][0-9]_*{suffix}"))
    return {path.stem: path for path in paths if CHAPTER.fullmatch(path.stem)}


def select(names: Iterable[str], chapters: dict[str, Path]) -> dict[str, Path]:
    """The chapters meant by ``2``, ``02``, ``02_sft`` or ``02_sft.ipynb``; all, if none is named.

    Raises:
        CourseError: there is no chapter at all, or not that one (the legal names are listed).
    """
    if not chapters:
        raise CourseError("There are no chapters here: run this from a clone of the course.")
    wanted = {_resolve(name, chapters) for name in names}
    return {stem: path for stem, path in chapters.items() if not wanted or stem in wanted}


def _resolve(name: str, chapters: dict[str, Path]) -> str:
    plain = Path(name).name
    plain = Path(plain).stem if plain.endswith((".ipynb", ".py")) else plain
    for stem in chapters:
        number = stem.split("_", 1)[0]
        if plain == stem or (plain.isdecimal() and plain.zfill(2) == number):
            return stem
    raise unknown_name("chapter", name, chapters)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
