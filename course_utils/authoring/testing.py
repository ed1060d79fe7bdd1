"""``python -m course_utils test``: run the course's tests."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

from course_utils.errors import CourseError
from course_utils.paths import repo_root


def command(fast: bool, extra: list[str]) -> list[str]:
    """The pytest command line; `fast` leaves out the tests marked slow, heavy or browser."""
    if importlib.util.find_spec("pytest") is None:
        raise CourseError("pytest is not installed here: run `pip install -e '.[dev]'`.")
    chosen = ["-m", "not slow and not heavy and not browser"] if fast else []
    return [sys.executable, "-m", "pytest", *chosen, *extra]


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
    return subprocess.run(command(args.fast, args.pytest), cwd=root, check=False).returncode
