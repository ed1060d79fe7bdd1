"""Running chapters: the report, the summary, failures, time limits, Ctrl-C, the right kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from course_utils.__main__ import main
from course_utils.authoring import lab, testing
from course_utils.authoring.chapters import list_chapters, select, write_atomically
from course_utils.authoring.render import page
from course_utils.authoring.run import run
from course_utils.errors import CourseError

METRICS = """\
from course_utils.report import report_metric, set_chapter
set_chapter("00_good")
report_metric("gold", 1.5)
report_metric("ci95", [0.1, 0.2])
report_metric("gold", 2.5)"""


def write(folder: Path, stem: str, *code: str) -> None:
    title = f"# {stem[:2]} · {stem[3:].title()}\n\nThe loss $x^2$."
    cells = [nbformat.v4.new_markdown_cell(title), *map(nbformat.v4.new_code_cell, code)]
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{stem}.ipynb")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Three chapters, the second of which fails; run once for the tests below."""
    folder = tmp_path_factory.mktemp("course")
    about = "import os, sys\nprint(os.environ['COURSE_PROFILE'], os.environ['COURSE_SIZE'])"
    memory = "import time\nblock = b'1' * (200 * 2**20)\ntime.sleep(0.3)\nprint(sys.executable)"
    write(folder, "00_good", METRICS, about, memory)
    write(folder, "01_bad", "print('first')", "raise ValueError('two\\nlines')", "print('never')")
    write(folder, "02_last", "print('last')")
    where = ["--notebooks", str(folder), "--out", str(folder / "build")]
    return folder / "build", main(["run", *where, "--keep-going", "--size", "small"])


def test_summary(report: tuple[Path, int]) -> None:
    out, code = report
    summary = json.loads((out / "summary.json").read_text())
    assert code == 1
    assert list(summary) == ["profile", "versions", "seconds", "chapters"]
    assert summary["profile"] == "tiny" and summary["versions"]["python"]
    good, bad, last = summary["chapters"].values()
    assert list(good) == ["status", "seconds", "peak_rss_mb", "metrics"]
    assert good["status"] == "ok" and good["metrics"] == {"gold": 2.5, "ci95": [0.1, 0.2]}
    assert 0 < good["seconds"] <= summary["seconds"] and 200 < good["peak_rss_mb"] < 1000
    assert bad["status"] == "failed" and bad["error"] == "ValueError: two lines"
    assert bad["cell"].startswith("cell 3 (raise ValueError") and last["status"] == "ok"


def test_executed_notebooks_and_pages(report: tuple[Path, int]) -> None:
    out, _ = report
    nb = nbformat.read(out / "executed" / "00_good.ipynb", as_version=4)
    assert nb.cells[2].outputs[0].text == "tiny small\n"
    assert Path(sys.executable).name in nb.cells[3].outputs[0].text
    bad = nbformat.read(out / "executed" / "01_bad.ipynb", as_version=4)
    assert bad.cells[1].outputs and bad.cells[2].outputs[0].ename == "ValueError"
    index = (out / "index.html").read_text()
    for text in ("00 · Good", "html/00_good.html", "2 of 3 chapters", "ValueError: two lines"):
        assert text in index
    page = (out / "html" / "00_good.html").read_text()
    assert "<script src=" not in page and "cdnjs" not in page and "tiny small" in page
    assert not [path for path in out.rglob(".*")]


@pytest.mark.slow
def test_stops_at_the_first_failure_and_names_the_slow_cell(tmp_path: Path) -> None:
    write(tmp_path, "00_slow", "import time; time.sleep(60)")
    write(tmp_path, "01_next", "1")
    summary = run(list_chapters(tmp_path, ".ipynb"), tmp_path / "build", timeout=1)
    assert list(summary["chapters"]) == ["00_slow"]
    assert "more than 1 seconds" in summary["chapters"]["00_slow"]["error"]
    assert "not run" in (tmp_path / "build" / "index.html").read_text()


@pytest.mark.slow
def test_a_dead_kernel_is_a_failure(tmp_path: Path) -> None:
    write(tmp_path, "00_dead", "import os; os._exit(1)")
    entry = run(list_chapters(tmp_path, ".ipynb"), tmp_path / "build")["chapters"]["00_dead"]
    assert entry["status"] == "failed" and "kernel died" in entry["error"]


@pytest.mark.slow
def test_ctrl_c_leaves_what_is_done_and_a_valid_summary(tmp_path: Path) -> None:
    marker = tmp_path / "running"
    write(tmp_path, "00_done", "print('done')")
    write(tmp_path, "01_long", f"open({str(marker)!r}, 'w')\nimport time; time.sleep(300)")
    out = tmp_path / "build"
    line = [sys.executable, "-m", "course_utils", "run", "--out", str(out)]
    process = subprocess.Popen([*line, "--notebooks", str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    chapters = json.loads((out / "summary.json").read_text())["chapters"]
    assert chapters["00_done"]["status"] == "ok"
    assert (chapters["01_long"]["status"], chapters["01_long"]["error"]) == (
        "failed",
        "interrupted",
    )
    assert (out / "html" / "00_done.html").exists()


def test_pages_need_no_network_for_formulas() -> None:
    pytest.importorskip("latex2mathml")
    markdown = r"$$\mathcal{L} = -\log \sigma(\beta x)$$ and $x < y$"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(markdown)])
    text = page(nb, "t")
    assert text.count("<math ") == 2 and "cdnjs" not in text
    nb.cells[0].source = r"$\nosuchthing{$"
    assert "mathjax" in page(nb, "t")  # stays TeX, so MathJax may set it


@pytest.mark.parametrize("name", ["2", "02", "02_sft", "02_sft.ipynb", "notebooks/02_sft.ipynb"])
def test_a_chapter_may_be_named_in_several_ways(name: str) -> None:
    chapters = {stem: Path(f"{stem}.ipynb") for stem in ("00_start", "02_sft", "12_deploy")}
    assert list(select([name], chapters)) == ["02_sft"]
    assert list(select([], chapters)) == list(chapters)


def test_bad_names_say_what_is_legal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "00_good", "1")
    where = ["--notebooks", str(tmp_path)]
    assert main(["run", "7", *where]) == 2 and main(["run", *where, "--size", "big"]) == 2
    assert main(["run", *where, "--profile", "huge"]) == 2
    errors = capsys.readouterr().err
    assert "Legal chapter names: 00_good" in errors and "Legal size names: full, small" in errors
    assert "Legal profile names" in errors
    assert main(["run", "--notebooks", str(tmp_path / "none")]) == 2
    (tmp_path / "00_good.ipynb").write_text("{half")
    assert main(["run", *where]) == 2
    assert "00_good.ipynb is not a notebook" in capsys.readouterr().err


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_lab_command_line_and_tests_without_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "00_start", "1")
    write(tmp_path, "02_sft", "1")
    monkeypatch.setattr(lab, "notebooks_dir", lambda: tmp_path)
    assert lab.command(None, [])[1:] == ["-m", "jupyterlab", str(tmp_path / "00_start.ipynb")]
    assert lab.command("2", ["--no-browser"])[-2:] == [
        str(tmp_path / "02_sft.ipynb"),
        "--no-browser",
    ]
    monkeypatch.setattr(testing, "repo_root", lambda: None)
    with pytest.raises(CourseError, match="not with the installed package"):
        testing.main(None)  # type: ignore[arg-type]
