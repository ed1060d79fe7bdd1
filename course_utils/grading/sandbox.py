"""What a submission's kernel gets: few environment variables, an empty home, limits, no network.

The file system is not isolated: what the grader may read, a submission may read. Use a container
for an untrusted class (docs/instructor-guide.md has the command).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

LAUNCH = Path(__file__).with_name("_launch.py")
UNSHARE = ("unshare", "-rnpf", "--kill-child", "--mount-proc")
FILE_MB = 1024  # the largest file a submission may write

# An allow-list: a variable that is not named here does not reach a submission.
ALLOWED = (
    "PATH",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "SYSTEMROOT",
    "WINDIR",
    "COMSPEC",
    "PATHEXT",
)


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Attributes:
        seconds: for the whole submission, every new start included.
        cell_seconds: for one cell.
        memory_mb: address space of one process, and memory of all its processes together.
        disk_mb: what its temporary folders may hold.
        processes: how many it may have at once.
        output_bytes: output kept of one cell.
        isolate: use namespaces where the machine permits them.
    """

    seconds: float = 600
    cell_seconds: float = 120
    memory_mb: int = 8192
    disk_mb: int = 2048
    processes: int = 100
    output_bytes: int = 200_000
    isolate: bool = True


@cache
def can_unshare() -> bool:
    """True where this user may make namespaces: then a submission has no network."""
    if sys.platform != "linux" or not shutil.which(UNSHARE[0]):
        return False
    try:
        done = subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def allowed_environment(pythonpath: str = "") -> dict[str, str]:
    """The part of our environment that a grading process and its submission may see."""
    env = {name: os.environ[name] for name in ALLOWED if name in os.environ}
    if pythonpath:
        parts = [pythonpath, env.get("PYTHONPATH", "")]
        env["PYTHONPATH"] = os.pathsep.join(part for part in parts if part)
    return env


class Sandbox:
    """Temporary folders of one submission, and the kernels that run in them."""

    def __init__(self, folder: Path, limits: Limits, runs: Path | None, share_runs: bool) -> None:
        self.folder, self.limits = folder, limits
        self.runs, self.share_runs = runs, share_runs
        self.starts = 0

    def start(self, settings: dict[str, str]) -> tuple[dict[str, str], Path]:
        """Fresh folders for a fresh kernel: its environment and its working folder."""
        self.clear()
        self.starts += 1
        self.now = self.folder / str(self.starts)
        home, work, tmp = (self.now / name for name in ("home", "work", "tmp"))
        for path in (home, work, tmp):
            path.mkdir(parents=True)
        env = allowed_environment()
        env.update(
            HOME=str(home),
            USERPROFILE=str(home),
            TMPDIR=str(tmp),
            TEMP=str(tmp),
            TMP=str(tmp),
            JUPYTER_RUNTIME_DIR=str(tmp),
            IPYTHONDIR=str(home / ".ipython"),
            PYTHONUNBUFFERED="1",
            PYTHONDONTWRITEBYTECODE="1",
            HF_HUB_OFFLINE="1",
            NBGRADER_EXECUTION="autograde",
            COURSE_PROGRESS="off",
            COURSE_RUNS=str(self._runs(settings["COURSE_PROFILE"])),
            COURSE_BUILD=str(self.now / "build"),
            **settings,
        )
        return env, work

    def _runs(self, profile: str) -> Path:
        """The course's own solution trains into the shared folder; submissions get a copy."""
        if self.share_runs and self.runs:
            return self.runs
        own = self.now / "runs"
        own.mkdir()
        if self.runs and (self.runs / profile).is_dir():
            # locks, and folders whose training has not ended, stay behind
            skip = shutil.ignore_patterns("*.lock", ".*")
            shutil.copytree(self.runs / profile, own / profile, ignore=skip)
        return own

    def clear(self) -> None:
        """Remove what the last kernel wrote."""
        if self.starts:
            shutil.rmtree(self.now, ignore_errors=True)

    def manager(self, **kwargs: Any) -> AsyncKernelManager:
        """A kernel manager whose kernel starts under the limits."""
        return KernelManager(self, **kwargs)


class KernelManager(AsyncKernelManager):
    """Starts a limited kernel; its sockets are files, for it may have no network."""

    def __init__(self, sandbox: Sandbox, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        connection = sandbox.now / "k.json"  # absolute: the kernel's folder is another one
        if sys.platform != "win32":
            self.transport = "ipc"
        self.connection_file = str(connection)
        limits = sandbox.limits
        prefix = list(UNSHARE) if limits.isolate and can_unshare() else []
        settings = {
            "prefix": prefix,
            "parent": os.getpid(),
            "memory_mb": limits.memory_mb,
            "file_mb": min(FILE_MB, limits.disk_mb),
            "connection_file": str(connection),
        }
        stage = "outer" if prefix else "inner"
        argv = [sys.executable, str(LAUNCH), stage, json.dumps(settings)]
        self._kernel_spec = KernelSpec(argv=argv, display_name="submission", language="python")
