"""Run a notebook in a fresh kernel of the running interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

from course_utils.paths import PACKAGE, repo_root

SAMPLE_SECONDS = 0.2
STARTUP_SECONDS = 120
CELL_SECONDS = 900


class _OwnKernelManager(AsyncKernelManager):
    """Starts this interpreter's kernel, whatever a registered "python3" kernelspec points to."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["kernel_spec_manager"] = KernelSpecManager(kernel_dirs=[])
        super().__init__(**kwargs)


@dataclass
class Outcome:
    """How a run of one notebook went. `peak_rss_mb` is the kernel's process tree, in MiB."""

    error: str | None = None
    cell: str | None = None
    peak_rss_mb: float = 0.0


def kernel_env(**course: str | None) -> dict[str, str]:
    """The environment of a chapter's kernel: ours, plus ``COURSE_…`` settings by short name."""
    env = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    env["COURSE_PROGRESS"] = "off"  # a rehearsal is not the learner's progress
    if repo_root():
        env["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(PACKAGE.parent), os.environ.get("PYTHONPATH")) if part
        )
    env.update({f"COURSE_{key.upper()}": value for key, value in course.items() if value})
    return env


def execute(
    nb: NotebookNode,
    env: dict[str, str],
    timeout: int = CELL_SECONDS,
    on_cell: Callable[[], None] = lambda: None,
) -> Outcome:
    """Execute a notebook in place, in an empty working folder.

    Args:
        nb: the notebook; outputs up to a failing cell stay in it.
        env: the kernel's environment.
        timeout: seconds one cell may take.
        on_cell: called after each cell.

    Raises:
        KeyboardInterrupt: Ctrl-C; the kernel is gone and the outputs so far stay.
    """
    outcome = Outcome()
    memory = _Memory()
    started = -1

    def starting(cell: NotebookNode, cell_index: int) -> None:
        nonlocal started
        if started >= 0:
            on_cell()
        started = cell_index

    def ready(notebook: NotebookNode) -> None:
        # nbclient's own handler turns Ctrl-C into a "dead kernel"
        with contextlib.suppress(RuntimeError, NotImplementedError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        memory.start(client)

    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        client = NotebookClient(
            nb,
            timeout=timeout,
            startup_timeout=STARTUP_SECONDS,
            kernel_name="python3",
            kernel_manager_class=_OwnKernelManager,
            store_widget_state=False,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],  # else a warning per kernel about TCP
            resources={"metadata": {"path": folder}},
            on_notebook_start=ready,
            on_cell_start=starting,
        )
        try:
            asyncio.run(client.async_execute(env=env))
            on_cell()
        except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
            outcome.error, outcome.cell = _one_line(error, timeout), describe(nb, started)
        finally:
            outcome.peak_rss_mb = memory.stop()
    return outcome


def _one_line(error: Exception, timeout: int) -> str:
    if isinstance(error, CellExecutionError):
        text = f"{error.ename}: {error.evalue}"
    elif isinstance(error, CellTimeoutError):
        text = f"TimeoutError: the cell took more than {timeout} seconds"
    else:
        text = "DeadKernelError: the kernel died (out of memory, or the cell ended it)"
    return " ".join(text.split())[:300]


def describe(nb: NotebookNode, index: int) -> str:
    """A cell for people: its number, counted from 1, its exercise if any, and its first line."""
    cell = nb.cells[index] if 0 <= index < len(nb.cells) else None
    if cell is None:
        return "before the first cell"
    name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
    lines = [line for line in cell.source.splitlines() if line.strip()]
    first = lines[0][:60] if lines else "empty"
    return f"cell {index + 1} ({name + ': ' if name else ''}{first})"


class _Memory:
    """Peak memory of the kernel and its children, sampled in a thread."""

    def __init__(self) -> None:
        self._peak = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, client: NotebookClient) -> None:
        pid = getattr(getattr(client.km, "provisioner", None), "pid", None)
        if pid:
            self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
            self._thread.start()

    def stop(self) -> float:
        self._done.set()
        if self._thread:
            self._thread.join()
        return round(self._peak / 2**20, 1)

    def _watch(self, pid: int) -> None:
        try:
            root = psutil.Process(pid)
            while not self._done.is_set():
                self._peak = max(self._peak, _tree_rss(root), _high_water(pid))
                self._done.wait(SAMPLE_SECONDS)
        except psutil.Error:
            pass  # the kernel has ended


def _tree_rss(root: psutil.Process) -> int:
    total = root.memory_info().rss
    for child in root.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:
            continue
    return int(total)


def _high_water(pid: int) -> int:
    """The kernel's own peak since its start (Linux), which sampling could miss."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0
