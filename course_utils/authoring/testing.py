"""``python -m course_utils test``: run the course's tests."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys

from course_utils.errors import CourseError
from course_utils.paths import repo_root

WORKERS = 2  # tests at a time, where there are as many cores


def command(fast: bool, extra: list[str]) -> list[str]:
    """The pytest command line; `fast` leaves out the tests marked slow, heavy or browser.

    Where there are cores enough, tests run in `WORKERS` processes, unless `extra` says otherwise
    with ``-n``.
    """
    if importlib.util.find_spec("pytest") is None:
        raise CourseError("pytest is not installed here: run `pip install -e '.[dev]'`.")
    chosen = ["-m", "not slow and not heavy and not browser"] if fast else []
    said = any(argument.startswith(("-n", "--numprocesses")) for argument in extra)
    if _workers() and not said:
        chosen += ["-n", str(_workers())]
    return [sys.executable, "-m", "pytest", *chosen, *extra]


def _workers() -> int:
    """0 without pytest-xdist or with one core: pytest runs alone."""
    able = importlib.util.find_spec("xdist") is not None and (os.cpu_count() or 1) >= WORKERS
    return WORKERS if able else 0


def environment() -> dict[str, str]:
    """One thread for each worker: two processes with two threads each slow each other down."""
    return {"OMP_NUM_THREADS": "1", **os.environ} if _workers() else dict(os.environ)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--fast", action="store_true", help="leave out the slow tests")
    parser.add_argument("pytest", nargs="*", help="further arguments for pytest, after --")


def main(args: argparse.Namespace) -> int:
    """Run pytest in the clone; returns its exit code."""
    root = repo_root()
    if root is None or not (root / "tests").is_dir():
        raise CourseError(
            "The tests come with the repository, not with the installed package: clone it and run "
            "`make test` there."
        )
    line = command(args.fast, args.pytest)
    return subprocess.run(line, cwd=root, env=environment(), check=False).returncode
