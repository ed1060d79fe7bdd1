"""The hostile set: each kind of submission costs what its table says, and leaves nothing behind.

One grading run over all of them, as an instructor would start it; each row of the table is a test.
"""

from __future__ import annotations

import csv
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grading_course as course
import nbformat
import psutil
import pytest
from grading_course import RIGHT, answer, cell, released, without_metadata, write
from nbformat import NotebookNode

from course_utils.__main__ import main
from course_utils.grading.sandbox import can_unshare

TESTS = str(Path(__file__).parent)
SECRET = "sk-this-must-not-be-seen"
FULL = {"double": 2.0, "masked_mean": 3.0, "total": 3.0, "why_keep": 0.0}
MARKER = "978.31"  # seconds that left-behind processes sleep, to find them by


@dataclass(frozen=True)
class Kind:
    """A kind of submission: what it costs, and what the tables say about it."""

    make: Callable[[NotebookNode], NotebookNode]
    lost: dict[str, float]  # points that remain of an exercise
    says: str = ""  # in the exercise's flags or message, or in the summary's flags
    marking: int = 1


def solved(**changes: str) -> Callable[[NotebookNode], NotebookNode]:
    return lambda nb: answer(nb, **{**RIGHT, **changes})


def body(text: str) -> str:
    lines = "".join(f"\n    {line}" for line in text.splitlines())
    return f"def double(x):{lines}\n    return 2 * x"


def insert(nb: NotebookNode, after: str, source: str) -> NotebookNode:
    """A cell of the learner's own."""
    place = [found.id for found in nb.cells].index(after) + 1
    nb.cells.insert(place, nbformat.v4.new_code_cell(source, id=f"own-{place}"))
    return nb


def edited_tests(nb: NotebookNode) -> NotebookNode:
    nb = answer(nb, **{**RIGHT, "double": "def double(x):\n    return 0"})
    test = cell(nb, "test-double")
    test.source, test.metadata.nbgrader.points = "2.0", 100
    return nb


def deleted_tests(nb: NotebookNode) -> NotebookNode:
    nb = solved()(nb)
    nb.cells = [found for found in nb.cells if not found.id.startswith("test-")]
    return nb


def duplicated(nb: NotebookNode) -> NotebookNode:
    nb = solved()(nb)
    nb.cells += [nbformat.from_dict(dict(found)) for found in nb.cells]
    return nb


def stub_duplicated(nb: NotebookNode) -> NotebookNode:
    stub = nbformat.from_dict(dict(cell(nb, "exercise-double")))
    nb = solved()(nb)
    nb.cells.append(stub)
    return nb


def own_check(nb: NotebookNode) -> NotebookNode:
    nb = answer(nb, **{**RIGHT, "double": "def double(x):\n    return 0"})
    return insert(nb, "exercise-double", "def check(*args, **kwargs):\n    return 2.0")


def by_function(nb: NotebookNode) -> NotebookNode:
    nb = without_metadata(solved()(nb))
    for found in nb.cells:
        found.source = found.source.replace("# exercise: double\n", "")
    return nb


def edited_setup(nb: NotebookNode) -> NotebookNode:
    nb = solved(double="def double(x):\n    return math.prod([2, x])")(nb)
    cell(nb, "setup").source += "\nimport math"
    return nb


LOOP = "def double(x):\n    while True:\n        pass"
DEAF = (
    "import signal\nfor number in (signal.SIGINT, signal.SIGALRM):\n"
    "    signal.signal(number, signal.SIG_IGN)\nwhile True:\n    pass"
)
ENVIRONMENTS = f"""
import os, pathlib
seen = "\\n".join(os.environ.values())
for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    try:
        seen += path.read_text(errors="replace")
    except OSError:
        pass
assert {SECRET[:12]!r} not in seen
assert os.path.expanduser("~") != {os.path.expanduser("~")!r}
assert os.listdir() == []
"""
NETWORK = """
import socket
try:
    socket.create_connection(("127.0.0.1", PORT), timeout=2)
except OSError:
    pass
else:
    raise AssertionError("there is a network")
"""
LEFT = f"import subprocess\nsubprocess.Popen(['sleep', '{MARKER}'], start_new_session=True)"
MEMORY = "kept = []\nwhile True:\n    kept.append(bytearray(10**8))"
SPOOF = "def double(x):\n    get_ipython().displayhook(2.0)\n    return 0"
SHOW = "get_ipython().ast_node_interactivity = {!r}"
ODD = """
publish = get_ipython().display_pub.publish
publish({"text/html": 3, "image/png": {"a": [1]}, "image/svg+xml": None, "text/markdown": ["a", 2]})
publish({"application/json": {"deep": [[[[1]]]]}, "text/latex": [["x"]]}, metadata={"image/png": 7})
"""

KINDS = {
    "perfect": Kind(solved(), {}),
    "untouched": Kind(lambda nb: nb, dict.fromkeys(FULL, 0.0), "", marking=0),
    "partial": Kind(
        solved(masked_mean="def masked_mean(v, k):\n    return sum(v) / len(v)"),
        {"masked_mean": 1.0},
        "the mask is ignored",
    ),
    "endless loop": Kind(solved(double=LOOP), {"double": 0.0}, "longer than allowed"),
    "deaf loop": Kind(solved(double=body(DEAF)), {"double": 0.0}, "could not be interrupted"),
    "crash": Kind(solved(double=body("import os; os._exit(1)")), {"double": 0.0}, "ended the kern"),
    "crash in the cell": Kind(
        solved(double="import os\nos._exit(1)"), {"double": 0.0}, "ended the kernel"
    ),
    "exit": Kind(solved(double="exit()"), {"double": 0.0}, "NameError"),
    "memory bomb": Kind(solved(double=body(MEMORY)), {"double": 0.0}),
    "huge output": Kind(solved(double=body("print('y' * 10**7)")), {}, "it was cut"),
    "huge error": Kind(
        solved(double="raise ValueError('y' * 10**7)"), {"double": 0.0}, "NameError"
    ),
    "noise on stderr": Kind(solved(double=body("import sys; sys.stderr.write('50%')")), {}),
    "syntax error": Kind(solved(double="def double(x) return"), {"double": 0.0}, "NameError"),
    "edited tests": Kind(edited_tests, {"double": 0.0}, "its test cell was edited"),
    "deleted tests": Kind(deleted_tests, {}, "its test cell was missing"),
    "metadata stripped": Kind(lambda nb: without_metadata(solved()(nb)), {}),
    "known by its function": Kind(by_function, {}, "only by its function double"),
    "duplicated": Kind(duplicated, {}, "2 cells of this exercise"),
    "stub duplicated": Kind(stub_duplicated, {}, "2 cells of this exercise"),
    "a check of its own": Kind(own_check, {"double": 0.0}),
    "no results shown": Kind(
        lambda nb: insert(edited_tests(nb), "setup", SHOW.format("none")), {"double": 0.0}
    ),
    "a result of its own": Kind(solved(double=SPOOF), {"double": 0.0}),
    "helper cell": Kind(
        lambda nb: insert(
            solved(double="def double(x):\n    return two() * x")(nb),
            "setup",
            "def two():\n    return 2",
        ),
        {},
    ),
    "edited setup": Kind(edited_setup, {}, "the setup cell was edited"),
    "odd outputs": Kind(solved(double=body(ODD.strip())), {}),
    "empty lines": Kind(lambda nb: insert(solved()(nb), "setup", "\n" * 499_000 + "x = 1"), {}),
    "many magics": Kind(
        lambda nb: insert(solved()(nb), "setup", 'check("double")\n' + "%pwd\n" * 510), {}
    ),
    "secrets": Kind(solved(double=body(ENVIRONMENTS.strip())), {}),
    "network": Kind(solved(double=body(NETWORK.strip())), {}),
    "left running": Kind(solved(double=body(LEFT)), {}),
    "many processes": Kind(
        solved(double=body(f"import subprocess\nfor _ in range(150):\n    {LEFT.splitlines()[1]}")),
        {"double": 0.0},
    ),
}
UNREADABLE = {
    "malformed": ("{half", "not a notebook (JSONDecodeError"),
    "not a notebook": ("[1, 2]", "not a notebook"),
    "too large": ('{"cells": [' + " " * 2**21 + "]}", "more than the 1 MB that are read"),
    "nothing of ours": ('{"cells": []}', "no cell of this course"),
}

Tables = dict[str, list[dict[str, str]]]


def processes() -> set[int]:
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if MARKER in line or "course_utils.grading" in line or "_launch.py" in line:
            found.add(process.pid)
    return found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server on this machine: what a submission without a network cannot reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: _accept(server), daemon=True)
        thread.start()
        yield server.getsockname()[1]


def _accept(server: socket.socket) -> None:
    try:
        while True:
            server.accept()[0].close()
    except OSError:
        pass


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, port: int) -> Tables:
    """Grade everything once, with two at a time and a secret in the environment."""
    folder = tmp_path_factory.mktemp("class")
    scratch = tmp_path_factory.mktemp("tmp")
    source = course.write_sources(folder)
    for name, kind in KINDS.items():
        nb = kind.make(released(source))
        for found in nb.cells:
            found.source = found.source.replace("PORT", str(port))
        write(folder / "in" / name / "03_sums.ipynb", nb)
    for name, (text, _) in UNREADABLE.items():
        path = folder / "in" / name / "03_sums.ipynb"
        path.parent.mkdir()
        path.write_text(text)
    other = answer(released(source, course.OTHER), negate="def negate(x):\n    return -x")
    write(folder / "in" / "wrong chapter" / "03_sums.ipynb", other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)
        patch.setenv("OPENAI_API_KEY", SECRET)
        patch.setenv("TMPDIR", str(scratch))
        patch.setenv("COURSE_RUNS", str(folder / "runs"))
        patch.setattr("tempfile.tempdir", None)
        patch.setattr("course_utils.exercises.all_exercises", lambda: course.EXERCISES)
        before = processes()
        began = time.monotonic()
        line = ["grade", str(folder / "in"), "--out", str(folder / "grades.csv"), "--jobs", "2"]
        line += ["--source", str(source), "--feedback", str(folder / "feedback"), "--chapter", "3"]
        line += ["--timeout", "60", "--cell-timeout", "8", "--memory", "2500", "--max-size", "1"]
        code = main(line)
        seconds = time.monotonic() - began
        tables = {
            name: list(csv.DictReader((folder / f"{name}.csv").open(encoding="utf-8")))
            for name in ("grades", "grades-summary", "grades-answers")
        }
        tables["run"] = [
            {
                "code": str(code),
                "seconds": f"{seconds:.0f}",
                "left running": str(sorted(processes() - before)),
                "left on disk": str(sorted(path.name for path in scratch.iterdir())),
                "folder": str(folder),
            }
        ]
    return tables


def rows_of(graded: Tables, student: str) -> dict[str, dict[str, str]]:
    return {row["exercise"]: row for row in graded["grades"] if row["student"] == student}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_costs_what_the_table_says(graded: Tables, name: str) -> None:
    if name == "network" and not can_unshare():
        pytest.skip("this machine permits no namespaces")
    kind, rows = KINDS[name], rows_of(graded, name)
    points = {exercise: float(row["points"]) for exercise, row in rows.items()}
    assert points == {**FULL, **kind.lost}, rows
    summary = next(row for row in graded["grades-summary"] if row["student"] == name)
    assert summary["status"] == "graded" and int(summary["needs_manual"]) == kind.marking
    told = " ".join([*(r["flags"] + r["message"] for r in rows.values()), summary["flags"]])
    assert kind.says in told
    for exercise, row in rows.items():
        if exercise != "why_keep" and points[exercise] == FULL[exercise]:
            assert row["status"] == "right"


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_has_rows_that_say_so(graded: Tables, name: str) -> None:
    rows = rows_of(graded, name)
    assert set(rows) == set(FULL)
    for row in rows.values():
        assert (row["points"], row["status"]) == ("0", "not graded")
        assert UNREADABLE[name][1] in row["message"]


@pytest.mark.slow
def test_another_chapter_than_the_one_asked_for(graded: Tables) -> None:
    (row,) = rows_of(graded, "wrong chapter").values()
    assert row["chapter"] == "00_start" and row["status"] == "not graded"
    assert row["message"] == "wrong chapter: its cells are those of 00_start"


@pytest.mark.slow
def test_nothing_is_left_behind_and_no_secret_is_written(graded: Tables) -> None:
    (run,) = graded["run"]
    assert run["code"] == "0"
    assert (run["left running"], run["left on disk"]) == ("[]", "[]")
    for path in Path(run["folder"]).rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_one_hostile_submission_stays_within_its_time(graded: Tables) -> None:
    for row in graded["grades-summary"]:
        assert float(row["seconds"]) < 60, row


@pytest.mark.slow
def test_feedback_tells_learners_what_happened(graded: Tables) -> None:
    folder = Path(graded["run"][0]["folder"]) / "feedback"
    page = (folder / "crash" / "03_sums.html").read_text(encoding="utf-8")
    assert "Notes of the grading" in page and "ended the kernel" in page
    assert "masked_mean: 3 of 3 points. Right." in page
    broken = (folder / "malformed" / "03_sums.html").read_text(encoding="utf-8")
    assert "not a notebook" in broken
    assert len(list(folder.rglob("*.html"))) == len(KINDS) + len(UNREADABLE) + 1
