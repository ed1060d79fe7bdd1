"""Seconds to grade a class: copies of one chapter's solution, and one that never ends.

    python benchmarks/grading.py [--chapter 05_ppo] [--count 30] [--jobs 2] [--hostile]
                                 [--out benchmarks/results/grading.json]

The floor stands in the same run: the course's own solution alone, as one submission takes. With
--hostile one more submission holds a loop that swallows interrupts, and the figure
`hostile_extra_seconds` says how much later everything was done; it is to be below its --timeout.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

DEAF = """
import signal
for number in (signal.SIGINT, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)
while True:
    pass
"""


def write_class(folder: Path, chapter: str, count: int, hostile: bool) -> None:
    """Solved notebooks of `count` students, each with a cell of its own, and the hostile one."""
    import nbformat

    from course_utils.authoring.build import build_notebook
    from course_utils.paths import notebooks_dir

    solved = build_notebook(notebooks_dir() / "source" / f"{chapter}.py", solved=True)
    for number in range(count + hostile):
        student = folder / (f"student {number:02}" if number < count else "hostile")
        student.mkdir(parents=True)
        nb = nbformat.from_dict(solved)
        source = f"mine = {number}" if number < count else DEAF
        nb.cells.append(nbformat.v4.new_code_cell(source, id="mine"))
        nbformat.write(nb, student / f"{chapter}.ipynb")
        nb.cells.pop()


def grade(folder: Path, out: Path, args: argparse.Namespace) -> float:
    """Seconds of the command, the course's own solution included."""
    from course_utils.__main__ import main

    line = ["grade", str(folder), "--out", str(out), "--jobs", str(args.jobs)]
    began = time.perf_counter()
    if main([*line, "--timeout", str(args.timeout), "--cell-timeout", str(args.cell_timeout)]):
        raise SystemExit("the grading failed")
    return time.perf_counter() - began


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures and what they were measured with."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = {}
        for label, hostile in (("honest", False), ("hostile", True)):
            if hostile and not args.hostile:
                continue
            write_class(folder / label, args.chapter, args.count, hostile)
            with contextlib.redirect_stdout(io.StringIO()):
                seconds[label] = grade(folder / label, folder / f"{label}.csv", args)
        with (folder / "honest-summary.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        proof = next((folder / "honest-course" / "results" / "solutions").glob("*.json"))
        alone = json.loads(proof.read_text())["seconds"]
    each = sorted(float(row["seconds"]) for row in rows)
    result = {
        "chapter": args.chapter,
        "submissions": args.count,
        "jobs": args.jobs,
        "minutes": round(seconds["honest"] / 60, 2),
        "seconds_each_median": each[len(each) // 2],
        "solution_alone_seconds": alone,
        "points": sorted({f"{row['points']} of {row['max_points']}" for row in rows}),
        "cores": os.cpu_count(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if args.hostile:
        extra = round(seconds["hostile"] - seconds["honest"], 1)
        result |= {"hostile_extra_seconds": extra, "timeout": args.timeout}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to grade a class.")
    parser.add_argument("--chapter", default="05_ppo", help="stem of the chapter (the heaviest)")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--cell-timeout", type=float, default=120)
    parser.add_argument("--hostile", action="store_true")
    results = Path(__file__).parent / "results" / "grading.json"
    parser.add_argument("--out", type=Path, default=results)
    args = parser.parse_args()
    result = measure(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
