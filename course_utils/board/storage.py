"""The board on disk: JSON lines, one row each, refused when torn or from another version."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError
from course_utils.paths import repo_root, runs_dir

from .rows import Row

if TYPE_CHECKING:
    from course_utils._setup import Course

RECORD = "leaderboard"


def own_path(course: Course) -> Path:
    """Where the learner's own rows are kept."""
    name = course.profile.name if course.size == "full" else f"{course.profile.name}-{course.size}"
    return runs_dir() / "board" / f"{name}.jsonl"


def provenance(course: Course) -> dict[str, Any]:
    """Versions, git state and date: what a row was made with."""
    return {
        "profile": course.profile.name,
        "versions": dict(course.versions),
        "git": git_state(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def git_state() -> str:
    """The commit of the clone, with ``+changes`` where files differ from it; or why not."""
    root = repo_root()
    if root is None:
        return "installed, no clone"
    try:
        commit, status = (
            subprocess.run(
                ["git", *command], cwd=root, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for command in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return "no git"
    return f"{commit}+changes" if status else commit


def read_rows(path: Path, prompts: str | None = None, header: bool = False) -> list[Row]:
    """The rows of a file.

    Args:
        prompts: fingerprint they must have been measured on; None takes any.
        header: the first line is the configuration of a sweep.

    Raises:
        CourseError: no such file; or a line that is half-written, of another version or measured
            on other prompts. The message names file and line.
    """
    if not path.is_file():
        raise CourseError(f"There is no file {path.name} in {path.parent.name}/.")
    text = path.read_bytes().decode("utf-8", errors="replace")
    lines = text.split("\n")
    torn = len(lines) if lines[-1] else 0  # a whole file ends with a line break
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (header and number == 1):
            continue
        where = f"{path.name}, line {number}"
        try:
            row = Row.from_json(_object(line))
        except ValueError as error:
            raise CourseError(
                f"{where}, is half-written or no JSON: delete that line and measure again."
            ) from error
        except CourseError as error:
            raise CourseError(f"{where}: {error}.") from error
        if number == torn:
            raise CourseError(f"{where}, has no end: delete that line and measure again.")
        if prompts is not None and row.prompts != prompts:
            raise CourseError(
                f"{where}: {row.method} was measured on other prompts ({row.prompts}, here "
                f"{prompts}), so it cannot be compared: delete that line and measure again."
            )
        rows.append(row)
    return rows


def _object(line: str) -> dict[str, Any]:
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("no object")
    return data


def recorded(prompts: str | None = None) -> list[Row]:
    """The rows that `python -m course_utils sweep leaderboard` recorded.

    Raises:
        CourseError: there is no record, or see `read_rows`.
    """
    from course_utils.sweeps import record_path

    path = record_path(RECORD)
    if not path.is_file():
        raise CourseError("There is no board yet: run `python -m course_utils sweep leaderboard`.")
    return read_rows(path, prompts, header=True)


def own_rows(course: Course, prompts: str | None = None) -> list[Row]:
    """The learner's rows; none where nothing was placed yet."""
    path = own_path(course)
    return read_rows(path, prompts) if path.is_file() else []


def keep(course: Course, row: Row) -> Path:
    """Add a row to the learner's own; one of the same name and seed is replaced.

    The file is replaced as a whole, so an interruption leaves the old one.
    """
    from filelock import FileLock

    path = own_path(course)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        others = [r for r in own_rows(course) if (r.method, r.seed) != (row.method, row.seed)]
        write_rows(path, [*others, row])
    return path


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a file of rows."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows), encoding="utf-8")
    os.replace(scratch, path)
