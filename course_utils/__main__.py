"""``python -m course_utils COMMAND``: each command's module is imported only when it is chosen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from course_utils import __version__, processes
from course_utils._python import require_python
from course_utils.errors import CourseError

# name: (module, help). The module has add_arguments(parser) and main(args) -> exit code.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("course_utils.authoring.run", "execute the chapters and write the report"),
    "build": ("course_utils.authoring.build", "build the notebooks from their sources"),
    "lab": ("course_utils.authoring.lab", "open JupyterLab at the first chapter"),
    "test": ("course_utils.authoring.testing", "run the tests"),
    "doctor": ("course_utils.doctor", "say what this machine can run, and why not"),
    "pretrain": ("course_utils.pretrain", "train the tiny base model anew"),
    "world-judge": ("course_utils.world_judge.command", "train the closed world's judge anew"),
    "data": ("course_utils.world.build", "write the closed world's data"),
    "train": ("course_utils.runs", "train the model of a stage"),
    "exercises": ("course_utils.authoring.exercise_table", "list the exercises, write their table"),
    "grade": ("course_utils.grading.command", "grade submitted notebooks"),
    "sweep": ("course_utils.sweeps", "record a long experiment"),
    "board": ("course_utils.board.command", "print the leaderboard of all methods"),
}


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; only the chosen one's module is imported, for its arguments."""
    parser = argparse.ArgumentParser(prog="python -m course_utils", description="The RLHF course.")
    parser.add_argument("--version", action="version", version=f"rlhf-course {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            import_module(module).add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 2 for a mistake the reader can mend, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        require_python()
        chosen = next((a for a in arguments if not a.startswith("-")), None)
        args = build_parser(chosen).parse_args(arguments)
        code = int(import_module(COMMANDS[args.command][0]).main(args) or 0)
        processes.part()
        return code
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
