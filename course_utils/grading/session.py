"""One grading run, from files to tables; a run that was cut off goes on where it stopped."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4

from course_utils.authoring.chapters import write_atomically
from course_utils.errors import CourseError
from course_utils.grading import merge
from course_utils.grading.assignments import Assignment, Item, python_path
from course_utils.grading.collect import Submission, safe_id
from course_utils.grading.execute import SAYS, is_points
from course_utils.grading.gradebook import Book, Grade
from course_utils.grading.pool import Job, run_jobs
from course_utils.grading.report import Answer, Report, Row, Total, plain_page, read_marks
from course_utils.paths import runs_dir

FORMAT = 1  # of the kept states; another number grades anew
SOLUTION_SECONDS = 1800.0
UNLIKE = 0.6  # below this share of unchanged course cells the version is in doubt
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line chooses."""

    out: Path
    course: Path
    feedback: Path | None = None
    jobs: int = 1
    seconds: float = 600
    cell_seconds: float = 120
    memory_mb: int = 8192
    largest_mb: float = merge.LARGEST_MB
    profile: str = "tiny"
    size: str = "small"
    network: bool = False
    chapters: tuple[str, ...] = ()


@dataclass
class Entry:
    """One submission on its way: what it is, and later how it went.

    Attributes:
        problem: why it cannot be graded; empty otherwise.
        state: what is kept of its run: flags, status and message by item, seconds.
    """

    submission: Submission
    cells: list[merge.Cell] = field(default_factory=list)
    assignment: Assignment | None = None
    problem: str = ""
    flags: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def student_id(self) -> str:
        """The student's name as nbgrader takes it."""
        return safe_id(self.submission.student)


# --- sorting out ----------------------------------------------------------------------------------


def sort_out(
    submissions: list[Submission],
    own: dict[str, Assignment],
    others: list[dict[str, Assignment]],
    options: Options,
) -> list[Entry]:
    """Find each file's chapter and version, and keep one file per student and chapter."""
    entries = [_identify(submission, own, others, options) for submission in submissions]
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        chapter = entry.assignment.chapter if entry.assignment else f"? {entry.submission.shown}"
        groups.setdefault((entry.submission.student, chapter), []).append(entry)
    return [_newest(groups[key]) for key in sorted(groups)]


def _identify(
    submission: Submission,
    own: dict[str, Assignment],
    others: list[dict[str, Assignment]],
    options: Options,
) -> Entry:
    entry = Entry(submission, assignment=own.get(submission.hint), problem=submission.problem)
    if entry.problem:
        return entry
    try:
        entry.cells = merge.read(submission.path, options.largest_mb)
    except (merge.UnreadableError, OSError) as error:
        entry.problem = str(error)
        return entry
    found = merge.chapter_of(entry.cells, own)
    if found is None:
        entry.problem = "no cell of this course was found in it"
        return entry
    if submission.hint and submission.hint != found:
        entry.flags.append(f"the file's name says {submission.hint}, its cells {found}")
    if options.chapters and found not in options.chapters:
        entry.assignment = own[found]
        entry.problem = f"wrong chapter: its cells are those of {found}"
        return entry
    _choose_version(entry, [own[found], *(other[found] for other in others if found in other)])
    return entry


def _choose_version(entry: Entry, candidates: list[Assignment]) -> None:
    scores = [merge.likeness(entry.cells, candidate) for candidate in candidates]
    best = scores.index(max(scores))
    entry.assignment = candidates[best]
    if candidates[best].version:
        says = f"graded against its own version of the course, {candidates[best].version}"
        entry.flags.append(says)
    elif scores[best] < UNLIKE:
        entry.flags.append(
            f"only {scores[best]:.0%} of the chapter's cells are those of this version: another "
            "version of the course, or much edited"
        )


def _newest(entries: list[Entry]) -> Entry:
    """The newest that can be read; the others are named."""
    ranked = sorted(entries, key=lambda e: (not e.problem, e.submission.when, e.submission.shown))
    chosen = ranked[-1]
    if len(ranked) > 1:
        left = ", ".join(entry.submission.shown for entry in ranked[:-1])
        says = "the newest" if chosen.submission.when >= max(
            entry.submission.when for entry in entries
        ) else "the newest that can be read"  # fmt: skip
        chosen.flags.append(f"{len(ranked)} submissions; {says} was graded, not {left}")
    return chosen


# --- running --------------------------------------------------------------------------------------


class Session:
    """Grades entries into a course directory."""

    def __init__(self, options: Options, say: Say = print) -> None:
        self.options, self.say = options, say
        self.book = Book(options.course)
        self.states = options.course / "results"

    def grade(self, entries: list[Entry]) -> Report:
        """Run what has not been run yet, then read everything from the gradebook."""
        with self._scratch() as scratch:
            waiting = [entry for entry in entries if not entry.problem and not self._known(entry)]
            kept = sum(bool(entry.state) for entry in entries)
            if kept:
                self.say(f"{kept} of {len(entries)} submissions were graded before and are kept.")
            used = {e.assignment.id: e.assignment for e in waiting if e.assignment}
            for assignment in used.values():
                self.book.register(assignment)
            self._prove(list(used.values()), scratch)
            self._run(waiting, scratch)
        self._enter_marks(entries)
        report = self._report(entries)
        if self.options.feedback:
            self._feedback(entries, self.options.feedback)
        return report

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A temporary folder; one that a killed run left behind is removed."""
        note = self.options.course / ".scratch"
        if note.is_file():
            left = Path(note.read_text(encoding="utf-8"))
            if left.name.startswith("course-grade-"):
                shutil.rmtree(left, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix="course-grade-", dir=_short_folder()))
        write_atomically(note, str(scratch))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            note.unlink(missing_ok=True)

    def _settings(self, assignment: Assignment, solution: bool = False) -> dict[str, Any]:
        chosen = self.options
        # the solution may have models to train first, and is trusted
        patience = max(SOLUTION_SECONDS, chosen.seconds)
        return {
            "seconds": patience if solution else chosen.seconds,
            "cell_seconds": patience if solution else chosen.cell_seconds,
            "memory_mb": chosen.memory_mb,
            "profile": chosen.profile,
            "size": chosen.size,
            "isolate": not chosen.network,
            "runs": str(runs_dir()),
            "share_runs": solution,  # what the course's own code trains, submissions start from
            "pythonpath": python_path(assignment.root) if assignment.root else "",
        }

    def _key(self, assignment: Assignment, content: str) -> str:
        settings = {**self._settings(assignment), "format": FORMAT, "digest": assignment.digest}
        text = json.dumps(settings, sort_keys=True) + content
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

    def _state_file(self, entry: Entry) -> Path:
        assert entry.assignment
        return self.states / f"{entry.student_id}--{entry.assignment.id}.json"

    def _entry_key(self, entry: Entry) -> str:
        assert entry.assignment
        return self._key(entry.assignment, "\0".join(f"{c.kind}{c.source}" for c in entry.cells))

    def _known(self, entry: Entry) -> bool:
        """True when this very submission was graded before, with these settings."""
        try:
            state = json.loads(self._state_file(entry).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if state.get("key") != self._entry_key(entry):
            return False
        entry.state = state
        return True

    def _prove(self, assignments: list[Assignment], scratch: Path) -> None:
        """The course's own solutions must score full here before anybody is graded by them."""
        proofs = {a.id: self.states / "solutions" / f"{a.id}.json" for a in assignments}
        keys = {a.id: self._key(a, "solution") for a in assignments}
        open_ones = [a for a in assignments if _read_key(proofs[a.id]) != keys[a.id]]

        def jobs() -> Iterator[Job]:
            for assignment in open_ones:
                self.say(f"{assignment.id}: running the course's own solution first")
                yield Job(assignment.solved, self._settings(assignment, True), assignment)

        def done(job: Job, nb: NotebookNode, outcome: dict[str, Any]) -> None:
            problems = _unproven(job.context, nb, outcome)
            if problems:
                raise CourseError(
                    f"The course's own solution of {job.context.id} does not score full here "
                    f"({problems[0]}), so nobody can be graded by it: see to that first, or give "
                    "more --memory."
                )
            text = json.dumps({"key": keys[job.context.id], "seconds": outcome["seconds"]})
            write_atomically(proofs[job.context.id], text)

        # one after another: they may train the same models
        run_jobs(jobs(), 1, scratch / "s", done)

    def _run(self, entries: list[Entry], scratch: Path) -> None:
        finished = 0

        def jobs() -> Iterator[Job]:
            for entry in entries:
                assert entry.assignment
                merged = merge.merge(entry.cells, entry.assignment)
                run = with_tests(merged.nb, entry.assignment)
                yield Job(run, self._settings(entry.assignment), (entry, merged))

        def done(job: Job, nb: NotebookNode, outcome: dict[str, Any]) -> None:
            nonlocal finished
            finished += 1
            entry, merged = job.context
            self._keep(entry, merged, nb, outcome)
            how = entry.problem or f"{outcome['seconds']:.0f} s"
            self.say(f"[{finished} of {len(entries)}] {entry.submission.shown}: {how}")

        run_jobs(iter(jobs()), self.options.jobs, scratch, done)

    def _keep(
        self, entry: Entry, merged: merge.Merged, nb: NotebookNode, outcome: dict[str, Any]
    ) -> None:
        """Enter a run into the gradebook and note that it is done."""
        assert entry.assignment
        if outcome["error"]:  # of the grading, not of the submission: it is tried again next time
            entry.problem = f"could not be run: {outcome['error']}"
            return
        flags = {name: list(texts) for name, texts in merged.flags.items()}
        for incident in outcome["incidents"]:
            name, text = _account(nb, incident)
            if text not in flags.setdefault(name, []):
                flags[name].append(text)
        notes = [*entry.flags, *flags.get("", [])]
        notes += [f"{name}: {text}" for name in flags if name for text in flags[name]]
        for notebook in (merged.nb, nb):
            _add_notes(notebook, notes)
        self.book.record(
            entry.student_id, entry.submission.student, entry.assignment, merged.nb, nb
        )
        entry.state = {
            "key": self._entry_key(entry),
            "flags": flags,
            "verdicts": {item.name: verdict(nb, item) for item in entry.assignment.items.values()},
            "answers": {
                item.name: answer_text(nb, item)
                for item in entry.assignment.items.values()
                if item.free_text
            },
            "seconds": outcome["seconds"],
        }
        write_atomically(self._state_file(entry), json.dumps(entry.state))

    # --- reporting -------------------------------------------------------------------------------

    def _enter_marks(self, entries: list[Entry]) -> None:
        """Points that stand in the table of answers, for answers that are still the same."""
        marks = read_marks(self.options.out)
        for entry in entries:
            assignment = entry.assignment
            if not entry.state or not assignment:
                continue
            grades = self.book.grades(entry.student_id, assignment)
            for name, text in entry.state["answers"].items():
                key = (entry.submission.student, assignment.id, name)
                points, marked_text = marks.get(key, (-1.0, ""))
                if key not in marks or squeezed(marked_text) != squeezed(text):
                    continue
                most = assignment.items[name].points
                if not 0 <= points <= most:
                    raise CourseError(
                        f"{points:g} points for {name} of {key[0]}: 0 to {most:g} are possible."
                    )
                grade = grades.get(name)
                if grade and (grade.needs_manual or grade.points != points):
                    self.book.mark(entry.student_id, assignment, name, points)

    def _report(self, entries: list[Entry]) -> Report:
        report = Report()
        for entry in entries:
            rows = self._rows(entry)
            report.rows += rows
            assignment, state = entry.assignment, entry.state
            general = [*entry.flags, *state.get("flags", {}).get("", [])]
            report.totals.append(
                Total(
                    entry.submission.student,
                    assignment.id if assignment else "",
                    sum(row.points for row in rows),
                    sum(row.max_points for row in rows),
                    sum(row.needs_manual for row in rows),
                    "not graded" if entry.problem else "graded",
                    "; ".join([*([entry.problem] if entry.problem else []), *general]),
                    float(state.get("seconds", 0.0)),
                    entry.submission.shown,
                )
            )
            for row in rows:
                text = state.get("answers", {}).get(row.exercise)
                if text:
                    points = f"{row.points:g}" if row.status == "marked" else ""
                    report.answers.append(
                        Answer(row.student, row.chapter, row.exercise, row.max_points, points, text)
                    )
        return report

    def _rows(self, entry: Entry) -> list[Row]:
        student, shown = entry.submission.student, entry.submission.shown
        assignment = entry.assignment
        general = "; ".join(entry.flags)
        if assignment is None:
            return [Row(student, "", "", 0.0, 0.0, "not graded", False, general, entry.problem,
                        shown)]  # fmt: skip
        grades = self.book.grades(entry.student_id, assignment) if entry.state else {}
        rows = []
        for item in assignment.items.values():
            grade = grades.get(item.name)
            if entry.problem or grade is None:
                rows.append(Row(student, assignment.id, item.name, 0.0, item.points, "not graded",
                                False, general, entry.problem, shown))  # fmt: skip
                continue
            status, message = entry.state["verdicts"][item.name]
            flags = "; ".join(entry.state["flags"].get(item.name, []))
            rows.append(
                Row(student, assignment.id, item.name, grade.points, item.points,
                    _status(item, grade, status), grade.needs_manual, flags, message, shown)
            )  # fmt: skip
        return rows

    def _feedback(self, entries: list[Entry], folder: Path) -> None:
        for entry in entries:
            assignment = entry.assignment
            name = assignment.id if assignment else Path(entry.submission.shown).stem
            target = folder / entry.student_id / f"{name}.html"
            if entry.state and assignment and not entry.problem:
                self.book.feedback(entry.student_id, assignment, target)
            else:
                title = f"{entry.submission.student} · {entry.submission.shown}"
                text = f"This submission was not graded: {entry.problem}."
                write_atomically(target, plain_page(title, text))


def _short_folder() -> str | None:
    """/tmp where the usual place has too long a name for sockets (100 characters), else None."""
    usable = os.path.isdir("/tmp") and os.access("/tmp", os.W_OK)
    return "/tmp" if len(tempfile.gettempdir()) > 60 and usable else None


def _read_key(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def with_tests(nb: NotebookNode, assignment: Assignment) -> NotebookNode:
    """A copy whose test cells have their hidden part again."""
    hidden = {
        cell.id: cell.source for cell in assignment.source.cells if cell.id.startswith("test-")
    }
    run = copy.deepcopy(nb)
    for cell in run.cells:
        cell.source = hidden.get(cell.id, cell.source)
    return run


def _unproven(assignment: Assignment, nb: NotebookNode, outcome: dict[str, Any]) -> list[str]:
    """What the course's own solution fails in; empty when all is well."""
    if outcome["error"]:
        return [outcome["error"]]
    problems = [_account(nb, incident)[1] for incident in outcome["incidents"]]
    for item in assignment.items.values():
        if not item.free_text:
            status, message = verdict(nb, item)
            if status != "right":
                problems.append(message or f"{item.name}: {status}")
    return problems


def _account(nb: NotebookNode, incident: dict[str, Any]) -> tuple[str, str]:
    """Whose an incident is, and a sentence about it."""
    index, kind = incident["cell"], incident["kind"]
    if not 0 <= index < len(nb.cells):
        return "", "the kernel ended before the first cell"
    cell = nb.cells[index]
    if cell.id.startswith(("exercise-", "test-")):
        what, name = cell.id.split("-", 1)
        return name, f"its {'cell' if what == 'exercise' else 'test'} {SAYS[kind]}"
    lines = [line for line in cell.source.splitlines() if line.strip()]
    return "", f"a cell ({lines[0][:50] if lines else 'empty'}) {SAYS[kind]}"


def _add_notes(nb: NotebookNode, notes: list[str]) -> None:
    """Below the title, for the learner to read in the feedback."""
    if notes:
        text = "**Notes of the grading**\n\n" + "\n".join(f"- {_plain(note)}" for note in notes)
        nb.cells.insert(1, v4.new_markdown_cell(text, id="grading-notes"))


def _plain(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_<>[]$#" else c for c in " ".join(text.split()))


def verdict(nb: NotebookNode, item: Item) -> tuple[str, str]:
    """Status and message of an item, from its executed cell."""
    if item.free_text:
        return "", ""
    cell = next((cell for cell in nb.cells if cell.id == f"test-{item.name}"), None)
    if cell is None:
        return "not graded", "its test is not in the notebook"
    errors = [out for out in cell.outputs if out.output_type == "error"]
    if errors:
        first = errors[0]
        if first.ename == "NotAttemptedError":
            return "not attempted", ""
        stopped = first.ename in ("NotGraded", "CellTimeoutError", "KeyboardInterrupt")
        text = f"{first.ename}: {first.evalue}" if not stopped else first.evalue
        return ("stopped" if stopped else "wrong"), " ".join(text.split())[:300]
    text = "".join(out.text for out in cell.outputs if out.output_type == "stream")
    lines = [line for line in text.splitlines() if line.startswith(f"{item.name}: ")]
    result = next((o for o in cell.outputs if o.output_type == "execute_result"), None)
    points = float(result.data["text/plain"]) if result and is_points(result, item.points) else 0.0
    status = "right" if points == item.points else "partly right" if points else "wrong"
    return status, (lines[-1] if lines else "")[:400]


def answer_text(nb: NotebookNode, item: Item) -> str:
    """What a learner wrote; empty when the answer's cell is as it was given."""
    cell = next(cell for cell in nb.cells if cell.id == f"answer-{item.name}")
    text = merge.ANSWER.sub("", cell.source).strip()
    return "" if text == "*Write your answer here.*" else text


def _status(item: Item, grade: Grade, status: str) -> str:
    if item.free_text and grade.needs_manual:
        return "needs marking"
    if grade.manual:
        return "marked"
    return "not attempted" if item.free_text else status


def squeezed(text: str) -> str:
    """The text as a spreadsheet may give it back."""
    return " ".join(text.split()).removeprefix("'")
