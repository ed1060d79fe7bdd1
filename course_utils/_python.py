"""Is this Python new enough, and is torch there? An old Python can still read this file."""

from __future__ import annotations

import importlib.util
import sys

from course_utils.errors import CourseError

MINIMUM = (3, 11)


def require_python(version: tuple[int, ...] = tuple(sys.version_info[:2])) -> None:
    """Raise CourseError when ``version`` is older than the course needs."""
    if tuple(version[:2]) < MINIMUM:
        have, need = ".".join(map(str, version[:2])), ".".join(map(str, MINIMUM))
        raise CourseError(
            f"This course needs Python {need} or newer and this is Python {have}: "
            f"run `make lab PYTHON=python{need}` in the course's folder."
        )


def require_torch() -> None:
    """Raise CourseError when torch is not installed; imports nothing."""
    try:
        found = importlib.util.find_spec("torch") is not None
    except ValueError:  # sys.modules holds something that is no module
        found = False
    if not found:
        raise CourseError(
            "PyTorch is not installed in this Python "
            f"({sys.executable}): run `make lab`, or `pip install -e .` in the course's folder."
        )
