"""``python -m course_utils lab``: open JupyterLab at the first chapter."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys

from course_utils.authoring.chapters import list_chapters, select
from course_utils.errors import CourseError
from course_utils.paths import notebooks_dir


def command(chapter: str | None, extra: list[str]) -> list[str]:
    """The command line that opens JupyterLab at a chapter (default: the first)."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise CourseError("JupyterLab is not installed here: run `make lab` or `pip install -e .`.")
    chosen = select([chapter] if chapter else [], list_chapters(notebooks_dir(), ".ipynb"))
    return [sys.executable, "-m", "jupyterlab", str(next(iter(chosen.values()))), *extra]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("chapter", nargs="?", help="such as 2 or 02_sft; default: the first")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--port", type=int, help="the port to listen on")


def main(args: argparse.Namespace) -> int:
    """Become JupyterLab: Ctrl-C and signals reach it directly."""
    extra = ["--no-browser"] if args.no_browser else []
    extra += [f"--port={args.port}"] if args.port else []
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # containers; Jupyter would refuse to start
        extra.append("--allow-root")
    line = command(args.chapter, extra)
    sys.stdout.flush()
    os.execv(line[0], line)
