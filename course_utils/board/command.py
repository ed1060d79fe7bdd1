"""``python -m course_utils board``: the recorded board, and the rows placed on it here."""

from __future__ import annotations

import argparse

HELP = "print the leaderboard of all methods"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verdicts", action="store_true", help="who beats whom, pair by pair")
    parser.add_argument("--column", default="gold", help="of the verdicts; default: gold")
    parser.add_argument(
        "--make",
        nargs=2,
        metavar=("METHOD", "SEED"),
        help="make one row of the record now, for a later `sweep leaderboard`",
    )


def main(args: argparse.Namespace) -> int:
    from course_utils._setup import setup
    from course_utils.errors import CourseError

    from . import leaderboard, storage, summary
    from .prompts import board_prompts, fingerprint

    course = setup("board", profile="tiny")
    if args.make:
        method, seed = args.make
        leaderboard.get_method(method)
        if not seed.isdigit():
            raise CourseError(f"The seed is {seed!r}: give a whole number.")
        row = leaderboard.piece(course, method, int(seed))
        print(f"{method}, seed {seed}: gold {row['gold']:+.2f}, seconds {row['seconds']}")
        return 0
    prompts = fingerprint(board_prompts(course))
    rows = [*storage.recorded(prompts), *storage.own_rows(course, prompts)]
    print(summary.as_text(rows))
    if args.verdicts:
        print()
        print("\n".join(map(str, summary.verdicts(rows, args.column))))
    return 0
