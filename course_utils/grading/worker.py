"""One submission in one process: ``python -m course_utils.grading.worker JOB``.

JOB is a folder with ``notebook.ipynb`` and ``job.json``; ``executed.ipynb`` and ``outcome.json``
are written into it. The process was started with the allowed environment only, and dies with
the grader.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def work(job: Path) -> None:
    """Execute the job's notebook and say how it went."""
    import nbformat

    from course_utils.grading.execute import Execute, as_json

    settings: dict[str, Any] = json.loads((job / "job.json").read_text(encoding="utf-8"))
    nb = nbformat.read(job / "notebook.ipynb", as_version=4)
    runner = Execute(
        **{key: settings[key] for key in ("seconds", "cell_seconds", "memory_mb")},
        **{key: settings[key] for key in ("runs", "profile", "size")},
    )
    runner.folder = job
    runner.share_runs, runner.isolate = settings["share_runs"], settings["isolate"]
    if settings["pythonpath"]:
        runner.extra_environment = {"PYTHONPATH": settings["pythonpath"]}
    runner.log.disabled = True
    began, error = time.monotonic(), ""
    try:
        runner.preprocess(nb, {})
    except Exception as problem:  # the kernel did not start: not the submission's fault
        error = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
    nbformat.write(nb, job / "executed.ipynb")
    outcome = {
        "seconds": round(time.monotonic() - began, 2),
        "incidents": as_json(runner.incidents),
        "error": error,
    }
    (job / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")


def main() -> None:
    """The process: tied to the grader above it and to what it starts below it."""
    # half of this process's start goes into jsonschema's parser of web addresses; it does without
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    from course_utils.grading._launch import die_with_parent
    from course_utils.grading.execute import kill_tree

    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grader's to handle
    adopt_orphans()
    try:
        work(Path(sys.argv[1]))
    finally:
        kill_tree(os.getpid(), root=False)


def adopt_orphans() -> None:
    """On Linux: processes that left their parents come to us, so that we can end them."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


if __name__ == "__main__":
    main()
