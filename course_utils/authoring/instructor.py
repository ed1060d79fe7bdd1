"""The instructor extra: nbgrader and jupytext, needed to build and to grade, not to learn."""

from __future__ import annotations

import importlib.util

from course_utils.errors import CourseError


def require_nbgrader(task: str) -> None:
    """Raise CourseError when nbgrader is not installed; `task` begins the sentence."""
    if importlib.util.find_spec("nbgrader") is None:
        raise CourseError(
            f"{task} needs the instructor extra: run `pip install -e '.[instructor]'`."
        )
