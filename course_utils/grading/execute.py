"""nbgrader's Execute, made for submissions that crash, hang, flood or eat memory.

A cell that ends the kernel, or that cannot be interrupted, costs itself: the notebook is run again
in a fresh kernel without it. Everything stays within `seconds` in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode, v4
from nbgrader import utils
from nbgrader.preprocessors import Execute as NbGraderExecute
from traitlets import Float, Integer, Unicode

from course_utils.grading.sandbox import Limits, Sandbox

AGAIN_SECONDS = 5.0  # for a cell that was already too slow once
FRESH_STARTS = 12
RESULT_BYTES = 2_000

# Run silently before each test cell: the learner may have a `check` of their own, or a setting of
# IPython that shows no result or several.
BEFORE_TEST = """
from course_utils.checks import check
get_ipython().ast_node_interactivity = "last_expr"
"""
# `exit` would end the kernel during the next cell, an innocent one.
AT_START = """
def exit(*args):
    raise SystemExit("exit() is not run while grading")
quit = exit
"""

SAYS = {
    "timeout": "took longer than allowed and was stopped",
    "deaf": "took longer than allowed and could not be interrupted; the rest ran without it",
    "died": "ended the kernel (an exit, a crash, or no memory left); the rest ran without it",
    "memory": "used more memory than allowed; the rest ran without it",
    "processes": "started too many processes; the rest ran without it",
    "disk": "wrote more to the disk than allowed; the rest ran without it",
    "flood": "wrote more output than could be read; the rest ran without it",
    "output": "wrote so much output that it was cut",
    "budget": "was not run, the time for the whole submission had run out",
    "no grade": "gave no result that is a number of points",
}


@dataclass(frozen=True)
class Incident:
    """Something that went wrong in a cell; `kind` is a key of SAYS."""

    cell: int
    kind: str


class Execute(NbGraderExecute):
    """Runs a notebook under limits; `incidents` says afterwards what went wrong.

    nbgrader's own commands and the formgrader use it too, through the course directory's
    nbgrader_config.py.
    """

    seconds = Float(600.0, help="for the whole notebook").tag(config=True)
    cell_seconds = Float(120.0, help="for one cell").tag(config=True)
    memory_mb = Integer(8192, help="for all of its processes together").tag(config=True)
    runs = Unicode("", help="trained models that the notebook gets a copy of").tag(config=True)
    profile = Unicode("tiny").tag(config=True)
    size = Unicode("small").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.incidents: list[Incident] = []
        self.folder: Path | None = None
        self.share_runs = False
        self.isolate = True
        self.extra_environment: dict[str, str] = {}

    def preprocess(
        self, nb: NotebookNode, resources: Any = None, km: Any = None
    ) -> tuple[NotebookNode, Any]:
        """Execute the notebook in place."""
        limits = Limits(
            seconds=self.seconds,
            cell_seconds=self.cell_seconds,
            memory_mb=self.memory_mb,
            isolate=self.isolate,
        )
        with contextlib.ExitStack() as stack:
            folder = self.folder or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="course-grade-"))
            )
            runs = Path(self.runs) if self.runs else None
            sandbox = Sandbox(folder, limits, runs, self.share_runs)
            stack.callback(sandbox.clear)
            run_sync(self._run)(nb, sandbox)
        for index, cell in enumerate(nb.cells):
            if is_test(cell) and settle(cell):
                self._note(index, "no grade")
        nb.metadata.pop("widgets", None)
        return nb, resources

    async def _run(self, nb: NotebookNode, sandbox: Sandbox) -> None:
        self.incidents = []
        self.limits, self.sandbox = sandbox.limits, sandbox
        self.deadline = time.monotonic() + self.limits.seconds
        self.stopped: set[int] = set()
        self.slow: set[int] = set()
        self.done: set[int] = set()
        for _ in range(FRESH_STARTS):
            self.current, self.killed_for, self.timed_out = -1, "", False
            try:
                await self._attempt(nb)
                return
            except DeadKernelError:
                kind = self.killed_for or "died"
            except CellTimeoutError:
                kind = "deaf" if self.timed_out else "flood"
            self._stop(nb, kind)
        for index, cell in enumerate(nb.cells):
            self._give_up(index, cell)

    async def _attempt(self, nb: NotebookNode) -> None:
        # as ExecutePreprocessor.preprocess does it: the client's state is set by its constructor
        NotebookClient.__init__(self, nb, None)
        self.shutdown_kernel = "immediate"
        self.startup_timeout = 120
        self.allow_errors = True
        self.timeout_func = self._seconds_for
        self.on_notebook_start = self._ready
        self.resources: dict[str, Any] = {}
        watch: list[asyncio.Task[None]] = []
        self._watches = watch
        try:
            await self.async_execute()
        finally:
            for task in watch:
                task.cancel()

    def _stop(self, nb: NotebookNode, kind: str) -> None:
        """Leave the current cell out from now on."""
        self.stopped.add(self.current)
        self._note(self.current, kind)
        if 0 <= self.current < len(nb.cells):
            nb.cells[self.current].outputs = [error_output(kind)]

    def _give_up(self, index: int, cell: NotebookNode) -> None:
        if cell.cell_type != "code" or not cell.source.strip():
            return
        if index not in self.done and index not in self.stopped:
            self._note(index, "budget")
            cell.outputs = [error_output("budget")]

    def _note(self, index: int, kind: str) -> None:
        incident = Incident(index, kind)
        if incident not in self.incidents:
            self.incidents.append(incident)

    # --- what NotebookClient asks ----------------------------------------------------------------

    def create_kernel_manager(self) -> Any:
        """A kernel in the sandbox."""
        settings = {"COURSE_PROFILE": self.profile, "COURSE_SIZE": self.size}
        settings.update(self.extra_environment)
        self._environment, self._folder = self.sandbox.start(settings)
        self.km = self.sandbox.manager(config=self.config)
        return self.km

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """With the allowed environment, in the empty folder."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        await super().async_start_new_kernel(
            env=self._environment, cwd=str(self._folder), **quiet, **kwargs
        )

    def _ready(self, **_: Any) -> None:
        # nbclient's own handlers would turn a signal to us into a dead kernel
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(RuntimeError, NotImplementedError):
                asyncio.get_running_loop().remove_signal_handler(number)
        self.kc.execute(AT_START, silent=True, store_history=False)
        pid = int(getattr(self.km.provisioner, "pid", 0) or 0)
        self._watches.append(asyncio.ensure_future(self._watch(pid)))

    def _seconds_for(self, cell: NotebookNode) -> float:
        allowed = AGAIN_SECONDS if self.current in self.slow else self.limits.cell_seconds
        return max(0.5, min(allowed, self.deadline - time.monotonic()))

    async def async_execute_cell(
        self, cell: NotebookNode, cell_index: int, *args: Any, **kwargs: Any
    ) -> NotebookNode:
        """One cell, unless it was stopped before or the time has run out."""
        if cell.cell_type != "code" or cell_index in self.stopped:
            return cell
        if time.monotonic() >= self.deadline:
            self._give_up(cell_index, cell)
            return cell
        self.current, self.timed_out = cell_index, False
        self.room = self.limits.output_bytes
        if is_test(cell):
            self.kc.execute(BEFORE_TEST, silent=True, store_history=False)
        await super().async_execute_cell(cell, cell_index, *args, **kwargs)
        self.done.add(cell_index)
        return cell

    async def _async_handle_timeout(self, timeout: int, cell: NotebookNode | None = None) -> Any:
        self.timed_out = True
        self.slow.add(self.current)
        self._note(self.current, "timeout")
        return await super()._async_handle_timeout(timeout, cell)

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        """Keep what a page can show; widgets are not needed for grading."""
        kind, content = msg["msg_type"], msg["content"]
        if kind.startswith("comm") or kind == "update_display_data" or not tidy(kind, content):
            return None
        if kind == "error":
            content["evalue"] = cut(str(content["evalue"]), RESULT_BYTES)
            content["traceback"] = [cut(str(line), RESULT_BYTES) for line in content["traceback"]]
        elif kind in ("stream", "display_data", "execute_result"):
            grade = kind == "execute_result" and size_of(content) < RESULT_BYTES
            if not grade and not self._has_room(content, cell_index):
                return None
        return super().process_message(msg, cell, cell_index)

    def _has_room(self, content: dict[str, Any], cell_index: int) -> bool:
        """Take an output's size off what the cell may still show."""
        if isinstance(content.get("text"), str) and len(content["text"]) > max(self.room, 0):
            self._note(cell_index, "output")
            content["text"] = content["text"][: max(self.room, 0)]
        size = size_of(content)
        self.room -= size
        if self.room < 0:
            self._note(cell_index, "output")
        return self.room >= 0 and size > 0

    # --- limits that only an observer can hold ---------------------------------------------------

    async def _watch(self, pid: int) -> None:
        began = folder_bytes(self.sandbox.now)
        for tick in range(10**9):
            await asyncio.sleep(0.2)
            reason = tree_excess(pid, self.limits)
            if not reason and tick % 10 == 0:
                grown = folder_bytes(self.sandbox.now) - began
                reason = "disk" if grown > self.limits.disk_mb * 2**20 else ""
            if reason:
                self.killed_for = reason
                kill_tree(pid)
                return


def is_test(cell: NotebookNode) -> bool:
    """True for a cell that nbgrader grades by its output."""
    return bool(cell.cell_type == "code" and utils.is_grade(cell) and not utils.is_solution(cell))


def settle(cell: NotebookNode) -> bool:
    """Leave one grade in a test cell: its last result, if that is a number of points.

    nbgrader takes the first result, and gives full points to a cell that shows none; both would
    let a setting of IPython, or an output of the learner's, stand for the grade. True when there
    was neither a grade nor an error.
    """
    results = [out for out in cell.outputs if out.output_type == "execute_result"]
    cell.outputs = [out for out in cell.outputs if out not in results[:-1]]
    if any(out.output_type == "error" for out in cell.outputs):
        return False
    if results and is_points(results[-1], float(cell.metadata.nbgrader.points)):
        return False
    cell.outputs = [out for out in cell.outputs if out.output_type != "execute_result"]
    cell.outputs.append(error_output("no grade"))
    return True


def tidy(kind: str, content: dict[str, Any]) -> bool:
    """Leave in an output what a notebook may hold and a page can show; False if that is nothing."""
    if kind == "stream":
        return content.get("name") in ("stdout", "stderr") and isinstance(content.get("text"), str)
    if kind in ("display_data", "execute_result"):
        data = content.get("data")
        found = data.items() if isinstance(data, dict) else ()
        content["data"] = {mime: value for mime, value in found if isinstance(value, str)}
        content["metadata"] = {}
        return bool(content["data"])
    return True


def is_points(output: NotebookNode, most: float) -> bool:
    """True when a result's text is a number from 0 to `most`."""
    try:
        value = float(output.data.get("text/plain", ""))
    except (TypeError, ValueError):
        return False
    return math.isfinite(value) and 0.0 <= value <= most


def error_output(kind: str) -> NotebookNode:
    """An error for people and for nbgrader, which then gives no points."""
    text = f"This cell {SAYS[kind]}."
    return v4.new_output("error", ename="NotGraded", evalue=text, traceback=[text])


def cut(text: str, limit: int) -> str:
    """The text, or its beginning."""
    return text if len(text) <= limit else text[:limit] + " … (cut)"


def size_of(content: dict[str, Any]) -> int:
    """Characters of an output message, roughly."""
    if "text" in content:
        return 20 + len(content["text"])
    values = content["data"].values()
    return 100 + sum(len(value) if isinstance(value, str) else 1000 for value in values)


def folder_bytes(folder: Path) -> int:
    """What a folder holds; links are not followed."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def tree_excess(pid: int, limits: Limits) -> str:
    """Which limit a process and its children have passed: "memory", "processes" or ""."""
    processes = tree(pid)
    used = sum(_try(lambda p=p: p.memory_info().rss) for p in processes)  # type: ignore[misc]
    if used > limits.memory_mb * 2**20:
        return "memory"
    return "processes" if len(processes) > limits.processes else ""


def _try(measure: Callable[[], int]) -> int:
    try:
        return int(measure())
    except psutil.Error:
        return 0


def tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants, as many as are still there."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def kill_tree(pid: int, root: bool = True) -> None:
    """End a process and its descendants, those started meanwhile included."""
    for _ in range(20):
        left = [p for p in tree(pid) if (root or p.pid != pid) and _alive(p)]
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.5)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def as_json(incidents: list[Incident]) -> list[dict[str, Any]]:
    """Incidents as plain data."""
    return [asdict(incident) for incident in incidents]
