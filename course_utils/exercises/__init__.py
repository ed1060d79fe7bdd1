"""The registry of exercises: every ``chNN.py`` beside this file holds a list ``EXERCISES``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from course_utils.checks import Exercise
from course_utils.errors import CourseError, unknown_name


@cache
def all_exercises() -> dict[str, Exercise]:
    """Every registered exercise by name, in the order of the chapters."""
    found: dict[str, Exercise] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if not name.startswith("ch"):
            continue
        for exercise in importlib.import_module(f"{__name__}.{name}").EXERCISES:
            if exercise.name in found:
                raise CourseError(f"Exercise {exercise.name!r} is registered twice, see {name}.py.")
            found[exercise.name] = exercise
    return found


def get_exercise(name: str) -> Exercise:
    """The exercise of that name; a CourseError lists the legal names otherwise."""
    registry = all_exercises()
    if name not in registry:
        raise unknown_name("exercise", name, registry)
    return registry[name]
