"""The committed chapters: built from their sources, clean, linked, and green both ways."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils.authoring import build
from course_utils.authoring.chapters import list_chapters, write_atomically
from course_utils.paths import notebooks_dir, repo_root

ROOT = repo_root()
SOURCES = list_chapters(notebooks_dir() / "source", ".py")
NOTEBOOKS = list_chapters(notebooks_dir(), ".ipynb")

each_source = pytest.mark.parametrize("stem", SOURCES)
each_notebook = pytest.mark.parametrize("stem", NOTEBOOKS)


def test_there_are_chapters() -> None:
    assert SOURCES, "notebooks/source holds no chapter"
    assert list(NOTEBOOKS) == list(SOURCES)


@each_source
def test_matches_its_source(stem: str) -> None:
    """The same as `python -m course_utils build --check`."""
    assert build.check({stem: SOURCES[stem]}, notebooks_dir()) == []


@each_notebook
def test_is_clean(stem: str) -> None:
    text = NOTEBOOKS[stem].read_text(encoding="utf-8")
    nb = nbformat.reads(text, as_version=4)
    nbformat.validate(nb)
    assert "widgets" not in nb.metadata and "widget-state" not in text
    for cell in nb.cells:
        assert cell.get("execution_count") is None and "execution" not in cell.metadata
    for secret in (str(ROOT), str(Path.home()), "BEGIN SOLUTION", "BEGIN HIDDEN"):
        assert secret not in text


@each_notebook
def test_links_resolve(stem: str) -> None:
    first = nbformat.read(NOTEBOOKS[stem], as_version=4).cells[0].source
    assert f"/notebooks/{stem}.ipynb)" in first  # the badge opens this chapter
    linked = re.findall(r"\]\((\d\d_\w+)\.ipynb\)", first)
    stems = list(NOTEBOOKS)
    here = stems.index(stem)
    assert linked == [*stems[max(here - 1, 0) : here], *stems[here + 1 : here + 2]]


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["unsolved", "solved"])
@each_source
def test_runs(stem: str, kind: str, tmp_path: Path) -> None:
    """nbval executes every cell; the solved version must score full in every check."""
    nb = build.build_notebook(SOURCES[stem], solved=kind == "solved")
    path = tmp_path / f"{stem}.ipynb"
    write_atomically(path, build.dumps(nb))
    env = {**os.environ, "COURSE_SIZE": "small", "COURSE_PROFILE": "tiny"}
    env |= {"COURSE_PROGRESS": "off", "PYTHONPATH": str(ROOT)}
    if kind == "solved":
        env["COURSE_CHECK_STRICT"] = "1"
    line = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env"]
    line += ["--nbval-cell-timeout", "300", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*line, str(path)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
