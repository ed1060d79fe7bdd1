"""The thin package the chapters call. Names load on first use, so importing this is instant."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

# What `from course_utils import NAME` gives: the module that holds the name.
_EXPORTS = {
    "setup": "_setup",  # the module has another name, so that `setup` can only be the function
    "Course": "_setup",
    "Profile": "profiles",
    "PROFILES": "profiles",
    "choose_profile": "profiles",
    "check": "checks",
    "progress": "_progress_view",
    "report_metric": "report",
    "CourseError": "errors",
    "unknown_name": "errors",
}

# Modules that `course_utils.NAME` gives without an import of their own.
_MODULES = (
    "best_of_n",
    "checks",
    "colab",
    "constitution",
    "data",
    "doctor",
    "errors",
    "evaluation",
    "generation",
    "judge",
    "labeling",
    "logprobs",
    "models",
    "paths",
    "plotting",
    "ppo",
    "preference",
    "pretrain",
    "profiles",
    "report",
    "reward",
    "runs",
    "sft",
    "smollm",
    "spin",
    "sweeps",
    "world",
)

__all__ = ["__version__", *_EXPORTS, *_MODULES]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from course_utils._python import require_python

    require_python()
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
