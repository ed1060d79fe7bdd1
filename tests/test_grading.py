"""Grading, piece by piece: who submitted what, how it is merged, what is kept and entered."""

from __future__ import annotations

import copy
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import grading_course as course
import nbformat
import psutil
import pytest
from grading_course import CHAPTER, EXERCISES, RIGHT, answer, cell, released, write
from nbformat import NotebookNode

from course_utils.__main__ import main
from course_utils.authoring.build import build_notebook
from course_utils.authoring.chapters import list_chapters
from course_utils.checks import evaluate
from course_utils.errors import CourseError
from course_utils.grading import merge, pool, report
from course_utils.grading.assignments import Assignment, own_assignments
from course_utils.grading.collect import collect, safe_id
from course_utils.grading.execute import settle, tidy
from course_utils.grading.sandbox import LAUNCH, allowed_environment
from course_utils.grading.session import Entry, Options, sort_out
from course_utils.paths import PACKAGE

TESTS = str(Path(__file__).parent)
CHAPTERS = (course.OTHER, CHAPTER)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", TESTS)
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("course_utils.exercises.all_exercises", lambda: EXERCISES)
    return course.write_sources(tmp_path)


@pytest.fixture
def own(source: Path) -> dict[str, Assignment]:
    return own_assignments(list_chapters(source, ".py"), EXERCISES)


def cells_of(nb: NotebookNode, folder: Path) -> list[merge.Cell]:
    return merge.read(write(folder / "nb.ipynb", nb))


def entries(folder: Path, own: dict[str, Assignment], *others: Any) -> list[Entry]:
    options = Options(out=folder / "g.csv", course=folder / "c")
    return sort_out(collect(folder, folder, CHAPTERS, 10**8), own, list(others), options)


# --- who submitted what ---------------------------------------------------------------------------


def test_students_by_folder_and_by_file_name(tmp_path: Path) -> None:
    names = {
        "Ada Ñandú/03_sums.ipynb": ("Ada Ñandú", CHAPTER),
        "bob/deep/er/my work.ipynb": ("bob", ""),
        "03_sums_eve.ipynb": ("eve", CHAPTER),
        "00_start-Zoë (1).ipynb": ("Zoë", course.OTHER),
        "carol.ipynb": ("carol", ""),
    }
    for name in (*names, ".ipynb_checkpoints/x.ipynb", "__MACOSX/y.ipynb", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = {s.shown: (s.student, s.hint) for s in collect(tmp_path, tmp_path, CHAPTERS, 10**6)}
    assert found == names


def test_a_zip_with_a_wrapping_folder_and_names_that_point_elsewhere(tmp_path: Path) -> None:
    path, scratch = tmp_path / "class.zip", tmp_path / "scratch"
    scratch.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hand-in/ada/03_sums.ipynb", "{}")
        archive.writestr("hand-in/../../bob/03_sums.ipynb", "{}")
        archive.writestr("hand-in/eve/03_sums.ipynb", " " * 2000)
    found = {s.student: s for s in collect(path, scratch, CHAPTERS, 1000)}
    assert set(found) == {"ada", "bob", "eve"}
    assert all(s.path.parent == scratch for s in found.values())
    assert "too large" in found["eve"].problem and not found["ada"].problem


def test_nothing_to_grade_is_said(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"holds no .ipynb file"):
        collect(tmp_path, tmp_path, CHAPTERS, 1)
    with pytest.raises(CourseError, match="does not exist"):
        collect(tmp_path / "gone", tmp_path, CHAPTERS, 1)
    (tmp_path / "text").write_text("x")
    with pytest.raises(CourseError, match="neither a folder nor a zip"):
        collect(tmp_path / "text", tmp_path, CHAPTERS, 1)


def test_names_nbgrader_can_take_stay_different() -> None:
    names = ["ada", "Ada", "a/b", "a_b", "a*b", "..", "ada [x]", "Zoë Ñ", "x" * 90, "x" * 91]
    ids = [safe_id(name) for name in names]
    assert ids[0] == "ada" and len({i.casefold() for i in ids}) == len(names)
    assert not any(sign in "".join(ids) for sign in "/*?[]")


def test_composed_and_decomposed_letters_are_one_student(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path / f"03_sums_{unicodedata.normalize(form, 'Zoë')}.ipynb", NotebookNode())
    assert {s.student for s in collect(tmp_path, tmp_path, CHAPTERS, 10**6)} == {"Zoë"}


def test_the_newest_that_can_be_read_counts(
    tmp_path: Path, source: Path, own: dict[str, Assignment]
) -> None:
    folder = tmp_path / "in"
    paths = [folder / "ada" / name for name in ("03_sums.ipynb", "03_sums (1).ipynb", "x.ipynb")]
    for age, path in enumerate(paths):
        write(path, answer(released(source), double=f"def double(x):\n    return {age}"))
        os.utime(path, (1e9 + age, 1e9 + age))
    (entry,) = entries(folder, own)
    assert entry.submission.path == paths[2]
    assert entry.flags == [
        "3 submissions; the newest was graded, not ada/03_sums.ipynb, ada/03_sums (1).ipynb"
    ]
    broken = folder / "ada" / "03_sums (2).ipynb"
    broken.write_text("{half")
    (entry,) = entries(folder, own)
    assert entry.submission.path == paths[2]
    assert "the newest that can be read was graded" in entry.flags[-1]


def test_a_name_that_says_another_chapter_is_flagged(
    tmp_path: Path, source: Path, own: dict[str, Assignment]
) -> None:
    write(tmp_path / "in" / "03_sums_ada.ipynb", released(source, course.OTHER))
    (entry,) = entries(tmp_path / "in", own)
    assert entry.assignment and entry.assignment.chapter == course.OTHER
    assert entry.flags == ["the file's name says 03_sums, its cells 00_start"]


def test_another_version_is_recognised_or_flagged(
    tmp_path: Path, source: Path, own: dict[str, Assignment]
) -> None:
    old_source = tmp_path / "old"
    old_source.mkdir()
    text = (source / f"{CHAPTER}.py").read_text()
    for new, old in (("add things up", "take sums"), ("= 10", "= 9"), ("ready for", "set for")):
        assert new in text
        text = text.replace(new, old)
    (old_source / f"{CHAPTER}.py").write_text(text)
    old = own_assignments(list_chapters(old_source, ".py"), {
        name: e for name, e in EXERCISES.items() if e.chapter == CHAPTER})  # fmt: skip
    old[CHAPTER].version = "0.0.1"
    write(tmp_path / "in" / "ada" / "03_sums.ipynb", old[CHAPTER].release)
    write(tmp_path / "in" / "bob" / "03_sums.ipynb", released(source))
    ada, bob = entries(tmp_path / "in", own, old)
    assert ada.assignment and ada.assignment.id == "03_sums-0.0.1"
    assert ada.flags == ["graded against its own version of the course, 0.0.1"]
    assert bob.assignment and bob.assignment.id == CHAPTER and not bob.flags
    unknown = copy.deepcopy(old[CHAPTER].release)
    for found in unknown.cells:
        if found.cell_type == "markdown":
            found.source += "\n\nand more"
    write(tmp_path / "in" / "ada" / "03_sums.ipynb", unknown)
    ada, _ = entries(tmp_path / "in", own)
    assert ada.assignment and ada.assignment.id == CHAPTER
    assert "of the chapter's cells are those of this version" in ada.flags[0]


# --- reading and merging --------------------------------------------------------------------------


def test_a_notebook_of_200_mb_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big.ipynb"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(merge.UnreadableError, match="200 MB, more than the 50 MB"):
        merge.read(path)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"source": "x"}]}',
     "[" * 100_000, '{"cells": [{"cell_type": "code", "source": [1]}]}', "\x00\x01"],
)  # fmt: skip
def test_what_is_no_notebook_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(text)
    with pytest.raises(merge.UnreadableError, match="not a notebook"):
        merge.read(path)


@pytest.mark.parametrize(
    "text",
    ["\n" * 499_000 + "x = 1", " " * 499_000 + "# exercise", "#" * 499_000,
     'check("double")\n' + "%pwd\n" * 2_000, 'check("double")\n' + "(" * 9_000,
     'check("double")\n' + "x = !ls\n" * 60_000, "<!--" * 120_000, "a" * 499_000],
    ids=["empty lines", "blanks", "signs", "magics", "brackets", "long", "comments", "a name"],
)  # fmt: skip
def test_cells_made_to_hold_up_the_grader_do_not(
    tmp_path: Path, source: Path, own: dict[str, Assignment], text: str
) -> None:
    nb = answer(released(source), **RIGHT)
    nb.cells.insert(2, nbformat.v4.new_code_cell(text))
    cells = cells_of(nb, tmp_path)
    began = time.process_time()
    assert merge.chapter_of(cells, own) == CHAPTER
    merged = merge.merge(cells, own[CHAPTER])
    assert time.process_time() - began < 5
    assert RIGHT["double"] in cell(merged.nb, "exercise-double").source


def test_old_formats_and_broken_characters_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["a\r\n", "b"]}]}]}
    path.write_text(json.dumps(old))
    assert [found.source for found in merge.read(path)] == ["a\nb"]
    path.write_text('{"cells": [{"cell_type": "markdown", "source": "\\ud800x"}]}')
    assert [found.source for found in merge.read(path)] == ["?x"]


def test_answers_and_helpers_land_in_their_places(
    tmp_path: Path, source: Path, own: dict[str, Assignment]
) -> None:
    nb = answer(released(source), **RIGHT)
    helper = nbformat.v4.new_code_cell("def two():\n    return 2", id="mine")
    nb.cells.insert([found.id for found in nb.cells].index("exercise-double"), helper)
    cell(nb, "title").source = "# I changed the title"
    value = next(found for found in nb.cells if found.source == "course_value = 10")
    value.source = "course_value = 11"
    merged = merge.merge(cells_of(nb, tmp_path), own[CHAPTER])
    text = [found.source for found in merged.nb.cells]
    assert text.index("def two():\n    return 2") < text.index(
        f"# exercise: double\n{RIGHT['double']}"
    )
    assert text[0].startswith("# 03 · Sums") and "course_value = 11" in text
    assert merged.flags == {"": ["cells of the course were edited"]}
    assert RIGHT["why_keep"] in cell(merged.nb, "answer-why_keep").source
    assert cell(merged.nb, "test-double").metadata.nbgrader.points == 2
    nbformat.validate(merged.nb)


def test_an_untouched_notebook_merges_to_the_release(
    tmp_path: Path, source: Path, own: dict[str, Assignment]
) -> None:
    plain = course.without_metadata(released(source))
    merged = merge.merge(cells_of(plain, tmp_path), own[CHAPTER])
    assert merged.nb == own[CHAPTER].release and merged.flags == {}
    assert merge.likeness(cells_of(plain, tmp_path), own[CHAPTER]) == 1


def test_nbgraders_source_version_releases_to_what_is_built(
    source: Path, own: dict[str, Assignment]
) -> None:
    for chapter, assignment in own.items():
        path = source / f"{chapter}.py"
        assert assignment.release == build_notebook(path, EXERCISES)
        assert assignment.solved == build_notebook(path, EXERCISES, solved=True)
    answer_cell = cell(own[CHAPTER].source, "answer-why_keep").source
    assert "### BEGIN SOLUTION\nBecause padding" in answer_cell


# --- grades and tables ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "grade"),
    [(["1.0"], "1.0"), (["1.0", "2.0"], "2.0"), ([], None), (["nan"], None), (["-1"], None),
     (["9.0"], None), (["'text'"], None)],
)  # fmt: skip
def test_a_test_cell_shows_one_grade_or_an_error(shown: list[str], grade: str | None) -> None:
    new = nbformat.v4
    outputs = [new.new_output("execute_result", {"text/plain": text}) for text in shown]
    test = new.new_code_cell("x", outputs=[new.new_output("stream", text="hello"), *outputs])
    test.metadata.nbgrader = NotebookNode(grade=True, solution=False, points=3)
    assert settle(test) is (grade is None)
    kinds = [output.output_type for output in test.outputs]
    assert kinds == ["stream", "execute_result" if grade else "error"]
    if grade:
        assert test.outputs[1].data["text/plain"] == grade


@pytest.mark.parametrize(
    ("kind", "content", "kept"),
    [("stream", {"name": "stdout", "text": "x"}, True),
     ("stream", {"name": "stdout", "text": 3}, False),
     ("stream", {"name": "elsewhere", "text": "x"}, False),
     ("display_data", {"data": {"text/plain": "x", "text/html": 3}, "metadata": {"a": 1}}, True),
     ("display_data", {"data": {"text/html": ["x"], "image/png": None}, "metadata": {}}, False),
     ("execute_result", {"data": "2.0", "metadata": {}}, False)],
)  # fmt: skip
def test_of_an_output_is_kept_what_a_page_can_show(
    kind: str, content: dict[str, Any], kept: bool
) -> None:
    assert tidy(kind, content) is kept
    if kind == "display_data" and kept:
        assert content == {"data": {"text/plain": "x"}, "metadata": {}}


def test_only_named_variables_reach_a_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "COURSE_ANYTHING"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TZ", "UTC")
    found = allowed_environment("/course")
    assert "secret" not in found.values() and found["TZ"] == "UTC"
    assert found["PYTHONPATH"].split(os.pathsep)[0] == "/course"


def test_submissions_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels with a thread per core each make both several times slower."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [pool.environment(n)["OMP_NUM_THREADS"] for n in (1, 2, 3, 20)] == ["8", "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert pool.environment(2)["OMP_NUM_THREADS"] == "5"


def test_a_spreadsheet_finds_no_formula_and_marks_come_back(tmp_path: Path) -> None:
    out = tmp_path / "g.csv"
    answers = [report.Answer("=ada", "03", "why", 2, "1,5", "+text, with\nlines")]
    report.write(report.Report(answers=answers), out)
    assert "'=ada" in report.beside(out, "answers").read_text()
    assert report.read_marks(out) == {("=ada", "03", "why"): (1.5, "'+text, with\nlines")}
    report.write(report.Report(answers=[report.Answer("a", "b", "c", 2, "two", "x")]), out)
    with pytest.raises(CourseError, match="line 2: points 'two' is no number"):
        report.read_marks(out)


def test_a_check_stops_a_function_that_never_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_CHECK_SECONDS", "0.3")

    def endless(x: float) -> float:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass

    score = evaluate(EXERCISES["double"], endless, [0, 1, 2])
    assert score == 0
    assert "your code had not returned after 0.3 seconds" in score.message
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


# --- whole runs -----------------------------------------------------------------------------------


def grade(folder: Path, source: Path, *more: str) -> int:
    line = ["grade", str(folder / "in"), "--out", str(folder / "grades.csv")]
    return main([*line, "--source", str(source), "--timeout", "90", *more])


def rows(folder: Path, name: str = "grades") -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_mistakes_in_the_command(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    assert grade(tmp_path, source) == 2 and "holds no .ipynb" in capsys.readouterr().err
    write(tmp_path / "in" / "ada" / "03_sums.ipynb", released(source))
    assert grade(tmp_path, source, "--jobs", "0") == 2
    assert "--jobs must be above zero" in capsys.readouterr().err
    assert grade(tmp_path, source, "--chapter", "9") == 2
    assert "Legal chapter names: 00_start, 03_sums" in capsys.readouterr().err
    assert main(["grade"]) == 2 and "Say what to grade" in capsys.readouterr().err


@pytest.mark.slow
def test_what_cannot_be_read_gets_a_row_and_stops_nobody(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "in"
    for student in ("big", "link", "pipe"):
        (folder / student).mkdir(parents=True)
    with (folder / "big" / "03_sums.ipynb").open("wb") as file:
        file.truncate(200 * 2**20)
    (folder / "link" / "03_sums.ipynb").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe" / "03_sums.ipynb")
    assert grade(tmp_path, source, "--feedback", str(tmp_path / "feedback")) == 0
    found = {row["student"]: row for row in rows(tmp_path) if row["exercise"] == "double"}
    assert {row["status"] for row in found.values()} == {"not graded"}
    assert "200 MB, more than the 50 MB that are read" in found["big"]["message"]
    for student in ("link", "pipe"):
        assert "not a file that can be read" in found[student]["message"]
    page = (tmp_path / "feedback" / "big" / "03_sums.html").read_text(encoding="utf-8")
    assert "clear its outputs and submit it again" in page


DEAF = (
    "import signal\nfor number in (signal.SIGINT, signal.SIGALRM):\n"
    "    signal.signal(number, signal.SIG_IGN)\nwhile True:\n    pass"
)


@pytest.mark.slow
def test_a_hostile_submission_delays_the_others_by_no_more_than_its_time(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell of it swallows interrupts, so only the time of the whole submission ends it."""
    nb = answer(released(source), **dict.fromkeys(("double", "masked_mean", "total"), DEAF))
    nb.cells += [nbformat.v4.new_code_cell(DEAF, id=f"deaf-{i}") for i in range(20)]
    good = answer(released(source), **RIGHT)
    limit, took = 40.0, []
    for name, hostile in (("alone", False), ("beside", True)):
        # also a name that the grader might use for itself
        write(tmp_path / name / "in" / "solution" / "03_sums.ipynb", good)
        if hostile:  # it comes first in the alphabet, and so in the queue
            write(tmp_path / name / "in" / "a hostile one" / "03_sums.ipynb", nb)
        began = time.monotonic()
        assert grade(tmp_path / name, source, "--timeout", str(limit), "--cell-timeout", "20") == 0
        took.append(time.monotonic() - began)
    assert took[1] - took[0] < limit + took[0]  # beside its time, it has to be started and ended
    points = {row["student"]: row["points"] for row in rows(tmp_path / "beside", "grades-summary")}
    assert points == {"solution": "8", "a hostile one": "0"}
    found = [row for row in rows(tmp_path / "beside") if row["student"] == "a hostile one"]
    assert "the time for the whole submission had run out" in str(found)
    capsys.readouterr()
    again = ("--timeout", str(limit), "--cell-timeout", "20")
    assert grade(tmp_path / "beside", source, *again) == 0
    assert "2 of 2 submissions were graded before and are kept" in capsys.readouterr().out


def test_without_nbgrader_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["grade", str(tmp_path)]) == 2
    assert "needs the instructor extra" in capsys.readouterr().err


@pytest.mark.slow
def test_marks_are_entered_once_the_answer_is_the_same(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "in" / "Ada Ñ" / "03_sums.ipynb", answer(released(source), **RIGHT))
    assert grade(tmp_path, source) == 0
    assert "1 free-text answers to mark" in capsys.readouterr().out
    marks = tmp_path / "grades-answers.csv"
    marks.write_text(marks.read_text().replace(",2,,", ",2,1.5,"))
    assert grade(tmp_path, source) == 0
    assert "1 of 1 submissions were graded before and are kept" in capsys.readouterr().out
    row = next(row for row in rows(tmp_path) if row["exercise"] == "why_keep")
    assert (row["points"], row["status"], row["needs_manual"]) == ("1.5", "marked", "")
    assert rows(tmp_path, "grades-summary")[0]["points"] == "9.5"
    marks.write_text(marks.read_text().replace("1.5", "7"))
    assert grade(tmp_path, source) == 2
    assert "0 to 2 are possible" in capsys.readouterr().err
    marks.write_text(marks.read_text().replace(",7,", ",2,"))
    write(path, answer(released(source), **{**RIGHT, "why_keep": "I changed my mind."}))
    assert grade(tmp_path, source) == 0
    row = next(row for row in rows(tmp_path) if row["exercise"] == "why_keep")
    assert row["status"] == "needs marking"


@pytest.mark.slow
def test_a_solution_that_fails_here_stops_the_grading(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = source / f"{CHAPTER}.py"
    path.write_text(path.read_text().replace("return 2 * x", "return 3 * x"))
    write(tmp_path / "in" / "ada" / "03_sums.ipynb", released(source))
    assert grade(tmp_path, source) == 2
    said = capsys.readouterr().err
    assert "own solution of 03_sums does not score full here (double: 0 of 2" in said
    assert not (tmp_path / "grades.csv").exists()


def _started(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if marker in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end children with parents")
def test_a_kernel_whose_parent_went_while_it_started_does_not_start(tmp_path: Path) -> None:
    for parent, starts in ((os.getpid(), True), (os.getpid() + 1, False)):
        mark = tmp_path / str(parent)
        settings = {"prefix": ["mkdir", "-p", str(mark), "--"], "parent": parent}
        line = [sys.executable, str(LAUNCH), "outer", json.dumps(settings)]
        subprocess.run(line, cwd=tmp_path, check=False)
        assert mark.is_dir() == starts


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end children with parents")
def test_a_killed_run_leaves_nothing_and_goes_on(
    tmp_path: Path, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path / "in"
    sleepy = "import time\nwhile True:\n    time.sleep(977)"
    write(folder / "a" / "03_sums.ipynb", answer(released(source), **RIGHT))
    nb = answer(released(source), **{**RIGHT, "double": sleepy})
    write(folder / "b" / "03_sums.ipynb", nb)
    script = (
        "import sys, grading_course as c; from course_utils import exercises;"
        "exercises.all_exercises = lambda: c.EXERCISES;"
        "from course_utils.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    scratch = tmp_path_factory.mktemp("t")
    line = [sys.executable, "-c", script, "grade", str(folder), "--out"]
    line += [str(tmp_path / "grades.csv"), "--source", str(source)]
    env = {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    env["PYTHONPATH"] = f"{PACKAGE.parent}{os.pathsep}{TESTS}"
    first = subprocess.Popen(
        [*line, "--timeout", "300"], env=env, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout
    said = ""
    while "[1 of 2]" not in said:
        said = first.stdout.readline()
        assert said, "it ended early"
    deadline = time.monotonic() + 30
    while not [p for p in _started("_launch.py") if str(scratch) in " ".join(p.cmdline())]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    first.kill()
    first.wait()
    first.stdout.close()
    deadline = time.monotonic() + 10
    while _started(str(scratch)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _started(str(scratch)) == []
    write(folder / "b" / "03_sums.ipynb", answer(released(source), **RIGHT))
    again = subprocess.run(
        [*line, "--timeout", "300"], env=env, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "1 of 2 submissions were graded before and are kept." in again.stdout
    assert [r["points"] for r in rows(tmp_path, "grades-summary")] == ["8", "8"]
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_without_namespaces_nothing_is_left_running_either(tmp_path: Path, source: Path) -> None:
    left = (
        "def double(x):\n    import subprocess\n"
        "    subprocess.Popen(['sleep', '976.5'], start_new_session=True)\n    return 2 * x"
    )
    nb = answer(released(source), **{**RIGHT, "double": left})
    write(tmp_path / "in" / "ada" / "03_sums.ipynb", nb)
    assert grade(tmp_path, source, "--network") == 0
    assert rows(tmp_path, "grades-summary")[0]["points"] == "8"
    assert _started("976.5") == []


@pytest.mark.slow
def test_nbgrader_itself_opens_and_grades_the_course_folder(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nbgrader"
    assert main(["grade", "--source", str(source), "--export-nbgrader", str(folder)]) == 0
    made = nbformat.read(folder / "release" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    ours = released(source)
    assert [found.source for found in made.cells] == [found.source for found in ours.cells]
    nb = answer(released(source), **{**RIGHT, "total": "def total(values):\n    return 0"})
    write(folder / "submitted" / "ada" / CHAPTER / f"{CHAPTER}.ipynb", nb)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    python_path = f"{PACKAGE.parent}{os.pathsep}{TESTS}"
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", "autograde", CHAPTER, "--student=ada"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path, "PYTHONPATH": python_path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "rlhf-course") as book:
        found = book.find_submission_notebook(CHAPTER, CHAPTER, "ada")
        grades = {grade.name: grade.auto_score for grade in found.grades}
    # the sum of nothing is 0 in `total` as it was answered: 2 of its 3 points
    assert grades == {"test_double": 2, "test_masked_mean": 3, "test_total": 2, "why_keep": None}


@pytest.mark.slow
def test_another_version_grades_with_its_own_checks(tmp_path: Path, source: Path) -> None:
    old = tmp_path / "course-0.0.1"
    shutil.copytree(PACKAGE, old / "course_utils", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (old / "course_utils" / "exercises").glob("ch*.py"):
        path.unlink()
    (old / "notebooks" / "source").mkdir(parents=True)
    text = (source / f"{CHAPTER}.py").read_text().replace("add things up", "take old sums")
    text = text.replace(course.SETUP, "from course_utils.checks import check\n")
    text = text.replace("course_value = 10", "course_value = 1").replace("return 2 * x", "return x")
    (old / "notebooks" / "source" / f"{CHAPTER}.py").write_text(text)
    (old / "course_utils" / "exercises" / "ch03.py").write_text(
        "from dataclasses import replace\nimport grading_course as c\n"
        "double = replace(c.EXERCISES['double'], check=c._number(lambda x: x), points=2)\n"
        "EXERCISES = [double, c.EXERCISES['masked_mean'], c.EXERCISES['total']]\n"
    )
    nb = nbformat.v4.new_notebook()
    exported = tmp_path / "exported"
    done = subprocess.run(
        [sys.executable, "-m", "course_utils", "grade", "--export-nbgrader", str(exported)],
        cwd=old, env={**os.environ, "PYTHONPATH": f"{old}{os.pathsep}{TESTS}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    nb = nbformat.read(exported / "release" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    # in the old version `double` was to return its argument
    nb = answer(nb, **{**RIGHT, "double": "def double(x):\n    return x"})
    write(tmp_path / "in" / "ada" / "03_sums.ipynb", nb)
    assert grade(tmp_path, source, "--version", str(old)) == 0
    found = {row["exercise"]: row for row in rows(tmp_path)}
    assert found["double"]["chapter"] == "03_sums-course-0.0.1"
    assert {name: row["points"] for name, row in found.items()} == {
        "double": "2", "masked_mean": "3", "why_keep": "0", "total": "3"}  # fmt: skip
