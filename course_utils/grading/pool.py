"""Runs submissions in worker processes, several at once; whatever happens, ends them all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from course_utils.grading.execute import kill_tree
from course_utils.grading.sandbox import allowed_environment
from course_utils.paths import PACKAGE

GRACE_SECONDS = 60  # for the worker's own start and end, beyond the submission's time


@dataclass
class Job:
    """One notebook to run.

    Attributes:
        nb: the notebook.
        settings: what ``worker`` reads from job.json.
        context: whatever the caller needs afterwards.
    """

    nb: NotebookNode
    settings: dict[str, Any]
    context: Any = None
    folder: Path = field(default_factory=Path)
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0


Done = Callable[[Job, NotebookNode, dict[str, Any]], None]


def run_jobs(jobs: Iterator[Job], parallel: int, scratch: Path, done: Done) -> None:
    """Run the jobs, `parallel` at once, and hand each result to `done` as it comes.

    Processes and folders are gone when this returns, also by an exception or Ctrl-C.
    """
    running: list[Job] = []
    number = 0
    more = True
    try:
        while more or running:
            while more and len(running) < parallel:
                job = next(jobs, None)
                if job is None:
                    more = False
                    break
                number += 1
                _start(job, scratch / str(number), environment(parallel))
                running.append(job)
            for job in [job for job in running if _finished(job)]:
                running.remove(job)
                nb, outcome = _result(job)
                shutil.rmtree(job.folder, ignore_errors=True)
                done(job, nb, outcome)
            time.sleep(0.05)
    finally:
        for job in running:
            _end(job)


def environment(parallel: int) -> dict[str, str]:
    """What a worker may see, and its share of the cores: threads of two would wait for each other.

    A number of threads that the instructor set is kept.
    """
    share = max(1, (os.cpu_count() or 1) // parallel)
    return {"OMP_NUM_THREADS": str(share), **allowed_environment(str(PACKAGE.parent))}


def _start(job: Job, folder: Path, env: dict[str, str]) -> None:
    job.folder = folder
    folder.mkdir(parents=True)
    nbformat.write(job.nb, folder / "notebook.ipynb")
    (folder / "job.json").write_text(json.dumps(job.settings), encoding="utf-8")
    line = [sys.executable, "-m", "course_utils.grading.worker", str(folder), str(os.getpid())]
    with (folder / "worker.log").open("wb") as log:
        job.process = subprocess.Popen(
            line,
            env={**env, "HOME": str(folder)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    job.began = time.monotonic()


def _finished(job: Job) -> bool:
    assert job.process is not None
    late = time.monotonic() - job.began > job.settings["seconds"] + GRACE_SECONDS
    if late:
        _end(job, keep_folder=True)
    return job.process.poll() is not None


def _end(job: Job, keep_folder: bool = False) -> None:
    assert job.process is not None
    kill_tree(job.process.pid)
    job.process.wait()
    if not keep_folder:
        shutil.rmtree(job.folder, ignore_errors=True)


def _result(job: Job) -> tuple[NotebookNode, dict[str, Any]]:
    try:
        outcome = json.loads((job.folder / "outcome.json").read_text(encoding="utf-8"))
        return nbformat.read(job.folder / "executed.ipynb", as_version=4), outcome
    except (OSError, ValueError):
        lines = (job.folder / "worker.log").read_text("utf-8", "replace").strip().splitlines()
        error = f"the grading process ended early ({(lines or ['no reason given'])[-1][:200]})"
        seconds = round(time.monotonic() - job.began, 2)
        return job.nb, {"seconds": seconds, "incidents": [], "error": error}
