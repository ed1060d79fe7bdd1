"""Starts a submission's kernel: limits first, then (on Linux) namespaces, then ipykernel.

Run as a file by the interpreter, not imported, so that it works whatever PYTHONPATH says:
``python _launch.py outer|inner JSON``. `outer` becomes ``unshare … python _launch.py inner``.
"""

import json
import os
import signal
import sys


def limit(memory_mb: int, file_mb: int) -> None:
    """Address space and file size; a breach is an error inside the submission."""
    import resource

    for kind, value in (
        (resource.RLIMIT_AS, memory_mb * 2**20),
        (resource.RLIMIT_FSIZE, file_mb * 2**20),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):  # macOS has no such limit of the address space
            pass


def die_with_parent(parent: int) -> None:
    """On Linux: when the process `parent` is gone, even by SIGKILL, so is this one."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it went before we said so
            sys.exit()


def main() -> None:
    """Become the kernel."""
    stage, settings = sys.argv[1], json.loads(sys.argv[2])
    if stage == "outer":
        die_with_parent(settings["parent"])
        again = [sys.executable, __file__, "inner", sys.argv[2]]
        os.execvp(settings["prefix"][0], [*settings["prefix"], *again])
    if not settings["prefix"]:
        die_with_parent(settings["parent"])
    if sys.platform != "win32":
        limit(settings["memory_mb"], settings["file_mb"])
    sys.path.pop(0)  # this folder's modules are not the submission's
    sys.argv = ["ipykernel", "-f", settings["connection_file"], "--log-level=CRITICAL"]
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
