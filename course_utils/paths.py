"""Where the course keeps its files, in a clone, in an installed wheel and on Colab."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def repo_root() -> Path | None:
    """The clone this package stands in, or None when it was installed as a wheel."""
    root = PACKAGE.parent
    return root if (root / "notebooks" / "source").is_dir() else None


def data_dir() -> Path:
    """The shipped data: ``data/`` in a clone, ``course_utils/_data`` in a wheel."""
    root = repo_root()
    return root / "data" if root else PACKAGE / "_data"


def _writable(variable: str, name: str) -> Path:
    if variable in os.environ:
        return Path(os.environ[variable]).expanduser()
    root = repo_root()
    return root / name if root else Path.home() / ".cache" / "rlhf-course" / name


def runs_dir() -> Path:
    """Trained models. ``COURSE_RUNS`` overrides (Google Drive on Colab, a scratch disk)."""
    return _writable("COURSE_RUNS", "runs")


def labels_path(profile: str, size: str = "full") -> Path | None:
    """The log of the preferences that somebody labelled here, for one profile.

    ``COURSE_LABELS`` names another file; ``none`` says to ignore all labels, and then this is None.
    """
    given = os.environ.get("COURSE_LABELS")
    if given == "none":
        return None
    if given:
        return Path(given).expanduser()
    # The answers of a model trained for a quick test must not get among the others.
    name = profile if size == "full" else f"{profile}-{size}"
    return runs_dir() / "labels" / f"{name}.jsonl"


def build_dir() -> Path:
    """Executed notebooks and reports. ``COURSE_BUILD`` overrides."""
    return _writable("COURSE_BUILD", "build")


def notebooks_dir() -> Path:
    """The chapters. In a wheel there are none, so the current folder is used."""
    root = repo_root()
    return root / "notebooks" if root else Path.cwd()
