"""What one training takes, in seconds and memory, measured in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from course_utils._setup import set_threads

if TYPE_CHECKING:
    from course_utils._setup import Course

T = TypeVar("T")


def in_fresh_process(work: Callable[..., T], course: Course, *arguments: Any) -> T:
    """``work(course, *arguments)`` in a process that has done nothing before."""
    with ProcessPoolExecutor(1, get_context("spawn"), set_threads, (course.profile,)) as pool:
        return pool.submit(work, course, *arguments).result()


def load_libraries(trainers: Iterable[str]) -> float:
    """Import these trainers of TRL, so that it counts as nobody's time; the MB held by then."""
    import trl

    for name in trainers:
        getattr(trl, name)
    return peak_mb()


def spent(began: float, libraries: float) -> dict[str, float]:
    """``seconds`` since `began`; ``peak_mb`` of the process, ``libraries_mb`` of it from the start.

    Both memories are 0 where the system does not tell (anywhere but on Linux).

    Args:
        began: by `time.perf_counter`.
        libraries: what `load_libraries` returned.
    """
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": round(peak_mb(), 1),
        "libraries_mb": round(libraries, 1),
    }


def peak_mb() -> float:
    """The most memory this process has held so far. `getrusage` would count its parent's, too."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
