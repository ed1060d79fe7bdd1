"""``python -m course_utils grade SUBMISSIONS --out grades.csv``: see docs/instructor-guide.md."""

from __future__ import annotations

import argparse
import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from course_utils.authoring.chapters import list_chapters, select
from course_utils.authoring.instructor import require_nbgrader
from course_utils.errors import CourseError, unknown_name
from course_utils.paths import notebooks_dir

SIZES = ("full", "small")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("submissions", nargs="?", type=Path, help="a folder or zip of notebooks")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), help="the table of grades")
    parser.add_argument("--feedback", type=Path, metavar="DIR", help="write a page per submission")
    parser.add_argument("--course", type=Path, metavar="DIR",
                        help="nbgrader's course folder (default OUT-course)")  # fmt: skip
    parser.add_argument("--chapter", action="append", default=[], metavar="NAME",
                        help="accept only this chapter, such as 2; may be repeated")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="submissions at once (default 1)")
    parser.add_argument("--timeout", type=float, default=600, metavar="S",
                        help="seconds for one submission in all (default 600)")  # fmt: skip
    parser.add_argument("--cell-timeout", type=float, metavar="S",
                        help="seconds for one cell (default a fifth of --timeout)")  # fmt: skip
    parser.add_argument("--memory", type=int, default=8192, metavar="MB",
                        help="memory of one submission, address space (default 8192)")  # fmt: skip
    parser.add_argument("--max-size", type=float, default=50, metavar="MB",
                        help="larger files are refused (default 50)")  # fmt: skip
    parser.add_argument("--version", action="append", default=[], type=Path, metavar="DIR",
                        dest="versions", help="clone of another version of the course, for "
                        "submissions made with it; may be repeated")  # fmt: skip
    parser.add_argument("--profile", default="tiny", help="what to execute with (default tiny)")
    parser.add_argument("--size", default="small", help="full or small (default small)")
    parser.add_argument("--network", action="store_true",
                        help="start kernels without namespaces: with a network")  # fmt: skip
    parser.add_argument("--source", type=Path, help="folder of the chapters' sources")
    parser.add_argument("--export-nbgrader", type=Path, metavar="DIR",
                        help="only write nbgrader's course folder, for the formgrader")  # fmt: skip
    parser.add_argument("--export-sources", type=Path, metavar="DIR", help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    """Grade; the exit code is 1 when a submission could not be run for a reason of ours."""
    require_nbgrader("Grading")
    sources = list_chapters(args.source or notebooks_dir() / "source", ".py")
    if not sources:
        raise CourseError("There are no chapters here: grade from a clone of the course.")
    if args.export_sources or args.export_nbgrader:
        return export(sources, args)
    if args.submissions is None:
        raise CourseError("Say what to grade: a folder or zip file of notebooks.")
    with _terminable():
        return grade(sources, args)


def grade(sources: dict[str, Path], args: argparse.Namespace) -> int:
    """Grade what was submitted and write the tables."""
    from filelock import FileLock, Timeout

    from course_utils.grading import report
    from course_utils.grading.assignments import other_assignments, own_assignments
    from course_utils.grading.collect import collect
    from course_utils.grading.sandbox import can_unshare
    from course_utils.grading.session import Session, sort_out

    options = _options(args, sources)
    with tempfile.TemporaryDirectory(prefix="course-unzip-") as folder:
        largest = int(options.largest_mb * 2**20)
        submissions = collect(args.submissions, Path(folder), sources, largest)
        own = own_assignments(sources)
        others = [other_assignments(root.resolve()) for root in args.versions]
        entries = sort_out(submissions, own, others, options)
    print(f"{len(submissions)} files, {len(entries)} submissions")
    if not options.network and not can_unshare():
        print(
            "NOTE: this machine permits no namespaces (unshare), so the submissions run WITH a "
            "network and can see other processes. docs/instructor-guide.md has the command for a "
            "container."
        )
    options.course.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(str(options.course / ".lock"), timeout=0):
            found = Session(options).grade(entries)
            report.write(found, options.out)
    except Timeout:
        raise CourseError(f"Another run is grading into {options.course}: wait for it.") from None
    print(report.shown(found.totals))
    marking = sum(total.needs_manual for total in found.totals)
    print(f"grades: {options.out} · summary: {report.beside(options.out, 'summary')}")
    if marking:
        print(
            f"{marking} free-text answers to mark: fill in the points in "
            f"{report.beside(options.out, 'answers')} and run this again, or use the formgrader "
            f"in {options.course}."
        )
    failed = [total for total in found.totals if "could not be run" in total.flags]
    return 1 if failed else 0


def export(sources: dict[str, Path], args: argparse.Namespace) -> int:
    """Write nbgrader's source versions, or a whole course folder with the release versions."""
    import nbformat

    from course_utils.grading.assignments import own_assignments
    from course_utils.grading.gradebook import Book

    chosen = select(args.chapter, sources)
    assignments = own_assignments(chosen)
    if args.export_sources:
        args.export_sources.mkdir(parents=True, exist_ok=True)
        for stem, assignment in assignments.items():
            nbformat.write(assignment.source, args.export_sources / f"{stem}.ipynb")
        return 0
    book = Book(args.export_nbgrader)
    for stem, assignment in assignments.items():
        book.register(assignment)
        print(f"{stem}: source/{stem} and release/{stem}")
    print(f"nbgrader's course folder: {book.root} (start jupyter lab there, open Formgrader)")
    return 0


def _options(args: argparse.Namespace, sources: dict[str, Path]) -> Any:
    from course_utils.grading.session import Options
    from course_utils.profiles import named_profile

    named_profile(args.profile)
    if args.size not in SIZES:
        raise unknown_name("size", args.size, SIZES)
    numbers = {"--jobs": args.jobs, "--timeout": args.timeout, "--memory": args.memory,
               "--max-size": args.max_size, "--cell-timeout": args.cell_timeout}  # fmt: skip
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise CourseError(f"{name} must be above zero, not {value:g}.")
    chapters = tuple(select(args.chapter, sources)) if args.chapter else ()
    return Options(
        out=args.out,
        course=args.course or args.out.with_name(f"{args.out.stem}-course"),
        feedback=args.feedback,
        jobs=args.jobs,
        seconds=args.timeout,
        cell_seconds=args.cell_timeout or args.timeout / 5,
        memory_mb=args.memory,
        largest_mb=args.max_size,
        profile=args.profile,
        size=args.size,
        network=args.network,
        chapters=chapters,
    )


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A polite end (SIGTERM, a closed terminal) cleans up as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    try:
        before = {name: signal.signal(getattr(signal, name), stop) for name in names}
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
