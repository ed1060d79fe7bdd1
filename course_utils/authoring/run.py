"""``python -m course_utils run``: execute the chapters in order and leave a report.

Writes ``executed/NN.ipynb``, ``html/NN.html``, ``index.html`` and ``summary.json`` under ``--out``.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from course_utils.authoring.chapters import BADGE, list_chapters, select, write_atomically
from course_utils.authoring.execute import CELL_SECONDS, Outcome, execute, kernel_env
from course_utils.errors import CourseError, unknown_name
from course_utils.paths import build_dir, notebooks_dir

SIZES = ("full", "small")


def run(
    chapters: dict[str, Path],
    out: Path,
    profile: str = "tiny",
    size: str = "full",
    timeout: int = CELL_SECONDS,
    keep_going: bool = False,
) -> dict[str, Any]:
    """Execute notebooks in order; returns the summary, which is also written after each chapter.

    Args:
        chapters: notebook files by stem.
        out: the report's folder.
        profile: sets COURSE_PROFILE for the kernels.
        size: ``"full"`` or ``"small"``, sets COURSE_SIZE.
        timeout: seconds one cell may take.
        keep_going: go on after a chapter that failed.
    """
    from course_utils._setup import versions

    begun = time.monotonic()
    summary: dict[str, Any] = {
        "profile": profile, "versions": versions(), "seconds": 0.0, "chapters": {},
    }  # fmt: skip
    titles = {stem: _title(_read(path), stem) for stem, path in chapters.items()}
    _report(out, summary, titles)
    for stem, path in chapters.items():
        try:
            entry = _run_one(stem, path, out, profile, size, timeout)
        except _Interrupted as stop:
            summary["chapters"][stem] = stop.entry
            raise KeyboardInterrupt from None
        else:
            summary["chapters"][stem] = entry
        finally:
            summary["seconds"] = round(time.monotonic() - begun, 2)
            _report(out, summary, titles)
        if entry["status"] != "ok" and not keep_going:
            break
    return summary


class _Interrupted(Exception):
    """Ctrl-C during a chapter; carries what is known about it."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__("interrupted")
        self.entry = entry


def _run_one(
    stem: str, path: Path, out: Path, profile: str, size: str, timeout: int
) -> dict[str, Any]:
    nb = _read(path)
    begun = time.monotonic()
    outcome, interrupted = Outcome(), False
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        metrics = Path(folder) / "metrics.jsonl"
        env = kernel_env(profile=profile, size=size, metrics_file=str(metrics))
        with tqdm(total=len(nb.cells), desc=stem, unit="cell", file=sys.stderr) as bar:
            try:
                outcome = execute(nb, env, timeout, on_cell=bar.update)
            except KeyboardInterrupt:
                outcome, interrupted = Outcome("interrupted", "by Ctrl-C"), True
        entry: dict[str, Any] = {
            "status": "failed" if outcome.error else "ok",
            "seconds": round(time.monotonic() - begun, 2),
            "peak_rss_mb": outcome.peak_rss_mb,
            "metrics": _metrics(metrics),
        }
    if outcome.error:
        entry |= {"error": outcome.error, "cell": outcome.cell}
    _write_pages(nb, stem, out)
    if interrupted:
        raise _Interrupted(entry)
    return entry


def _write_pages(nb: NotebookNode, stem: str, out: Path) -> None:
    from course_utils.authoring.outputs import clean
    from course_utils.authoring.render import page

    clean(nb)
    write_atomically(out / "executed" / f"{stem}.ipynb", nbformat.writes(nb) + "\n")
    write_atomically(out / "html" / f"{stem}.html", page(_linked(nb), _title(nb, stem)))


def _linked(nb: NotebookNode) -> NotebookNode:
    """The links between chapters pointed at their pages; the badge as plain text."""
    linked = copy.deepcopy(nb)
    if linked.cells and linked.cells[0].cell_type == "markdown":
        lines = linked.cells[0].source.split("\n")
        linked.cells[0].source = "\n".join(
            _page_links(line) if BADGE in line else line for line in lines
        )
    return linked


def _page_links(line: str) -> str:
    badge, *links = line.split(" | ")
    badge = badge.replace(f"[![Open in Colab]({BADGE})]", "[Open in Colab]")
    return " | ".join([badge, *(link.replace(".ipynb)", ".html)") for link in links)])


def _report(out: Path, summary: dict[str, Any], titles: dict[str, str]) -> None:
    from course_utils.authoring.render import index

    write_atomically(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    write_atomically(out / "index.html", index(summary, titles))


def _read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise CourseError(
            f"{path.name} is not a notebook ({' '.join(str(error).split())[:100]}): "
            "run `python -m course_utils build`."
        ) from error


def _title(nb: NotebookNode, stem: str) -> str:
    first = nb.cells[0].source.partition("\n")[0] if nb.cells else ""
    return first[2:].strip() if first.startswith("# ") else stem


def _metrics(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {entry["name"]: entry["value"] for entry in entries}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("chapters", nargs="*", help="such as 2 or 02_sft; default: all")
    parser.add_argument("--profile", help="default: COURSE_PROFILE, else tiny")
    parser.add_argument("--size", help="full or small; default: COURSE_SIZE, else full")
    parser.add_argument("--out", type=Path, help="the report's folder (default build)")
    parser.add_argument("--timeout", type=int, default=CELL_SECONDS, help="seconds for one cell")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failed chapter")
    parser.add_argument("--solved", action="store_true", help="run with the exercises solved")
    parser.add_argument("--notebooks", type=Path, help="folder of notebooks")


def main(args: argparse.Namespace) -> int:
    """Run the chapters; the exit code is 1 when one failed."""
    from course_utils.profiles import named_profile

    chosen = named_profile(args.profile)
    size = args.size or os.environ.get("COURSE_SIZE") or "full"
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    out = args.out or build_dir()
    notebooks = args.notebooks or notebooks_dir()
    with tempfile.TemporaryDirectory(prefix="course-solved-") as folder:
        if args.solved:
            chapters = _solved(select(args.chapters, list_chapters(notebooks / "source", ".py")),
                               Path(folder))  # fmt: skip
        else:
            chapters = select(args.chapters, list_chapters(notebooks, ".ipynb"))
        profile = chosen.name if chosen else "tiny"
        try:
            summary = run(chapters, out, profile, size, args.timeout, args.keep_going)
        finally:
            print(f"report: {out / 'index.html'}")
    failed = {k: v for k, v in summary["chapters"].items() if v["status"] != "ok"}
    for stem, entry in failed.items():
        print(f"{stem} failed in {entry['cell']}: {entry['error']}", file=sys.stderr)
    return 1 if failed else 0


def _solved(sources: dict[str, Path], folder: Path) -> dict[str, Path]:
    from course_utils.authoring.build import build_notebook, dumps

    for stem, source in sources.items():
        write_atomically(folder / f"{stem}.ipynb", dumps(build_notebook(source, solved=True)))
    return list_chapters(folder, ".ipynb")
