"""Colab: fetch the course, install only what is missing, and leave what Colab runs on alone.

``bootstrap_source`` is the block at the top of each chapter. It clones the course and then runs
``python -m course_utils.colab --install`` from the clone. Everything at import time here is
standard library, because this runs before anything is installed.

Colab's disk is emptied when the session ends. ``use_drive()`` keeps trained models and labels in
the learner's Google Drive; ``download()`` hands out a single file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from course_utils import paths
from course_utils._python import require_python
from course_utils.errors import CourseError

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
DISTRIBUTION = "rlhf-course"
DRIVE = Path("/content/drive")  # where Colab mounts Google Drive

# The running kernel has these loaded, or is built on them: never replaced, whatever their version.
PROTECTED = (
    "torch",
    "torchvision",
    "torchaudio",
    "torchao",
    "triton",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "pillow",
    "ipywidgets",
    "widgetsnbextension",
    "jupyterlab-widgets",
    "ipykernel",
    "ipython",
    "jupyter-client",
    "tornado",
    "traitlets",
    "pyzmq",
    "psutil",
    "google-colab",
)
# Colab has its own page, so nothing that serves or converts notebooks is needed there.
UNNEEDED = ("jupyter-client", "jupyterlab", "latex2mathml", "nbclient", "nbconvert", "nbformat")

# From the top of the notebook: a clone on Colab; elsewhere the folder above notebooks/, if needed.
_BOOTSTRAP = """\
# Colab only: fetch the course and install what is missing. Elsewhere this changes nothing.
import importlib.util, subprocess, sys
from pathlib import Path
try:
    import google.colab  # noqa: F401
    course_root = Path("{folder}").resolve()
    if not (course_root / "pyproject.toml").exists():
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", "--branch", "{ref}",
                        "{repository}", str(course_root)], check=True)
    subprocess.run([sys.executable, "-m", "course_utils.colab", "--install"],
                   cwd=course_root, check=True)
except ImportError:
    course_root = Path.cwd().parent
if importlib.util.find_spec("course_utils") is None and (course_root / "course_utils").is_dir():
    sys.path.insert(0, str(course_root))
"""


def bootstrap_source(repository: str, ref: str = "main") -> str:
    """The block at the top of a chapter's setup cell: at most 15 lines of Python, no ``%%``.

    Args:
        repository: the address to clone from, see ``repository_url``.
        ref: branch or tag.
    """
    for value in (repository, ref):
        if not value or any(character in value for character in "\"'\\\n{}"):
            raise CourseError(f"{value!r} cannot be a repository address or a branch.")
    return _BOOTSTRAP.format(repository=repository, ref=ref, folder=DISTRIBUTION)


def repository_url() -> str:
    """The repository's address: from pyproject.toml in a clone, else from the installed wheel."""
    if PYPROJECT.exists():
        return str(_pyproject()["project"]["urls"]["Repository"])
    for line in importlib.metadata.metadata(DISTRIBUTION).get_all("Project-URL") or ():
        label, _, url = line.partition(", ")
        if label == "Repository":
            return url
    raise CourseError("The installed rlhf-course names no repository: install it again.")


def course_requirements() -> list[str]:
    """The course's own requirements, as pyproject.toml states them."""
    return list(_pyproject()["project"]["dependencies"])


def installed_versions() -> dict[str, str]:
    """Every installed distribution: canonical name -> version."""
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and distribution.version:  # a broken leftover has none
            found.setdefault(canonicalize_name(name), distribution.version)
    return found


def missing_requirements(requirements: Iterable[str], installed: Mapping[str, str]) -> list[str]:
    """Those of ``requirements`` that must be installed: absent, or of a version out of range.

    Requirements that Colab does not need are left out, and so are protected ones that are
    installed, whatever their version.

    Args:
        requirements: as in pyproject.toml, for example ``"trl>=1.16,<1.17"``.
        installed: name -> version.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    have = {canonicalize_name(name): version for name, version in installed.items()}
    asked = []
    for text in requirements:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in UNNEEDED or (requirement.marker and not requirement.marker.evaluate()):
            continue
        if name in have and (
            name in PROTECTED or requirement.specifier.contains(have[name], prereleases=True)
        ):
            continue
        asked.append(text)
    return asked


def frozen(
    installed: Mapping[str, str], needs: Callable[[str], Iterable[str]] | None = None
) -> list[str]:
    """pip constraints that pin every protected package and all that torch needs, as installed.

    Args:
        installed: name -> version.
        needs: gives the names of what a package requires; by default, reads its metadata.
    """
    from packaging.utils import canonicalize_name

    have: dict[str, str] = {canonicalize_name(name): v for name, v in installed.items()}
    of_torch: set[str] = set()
    queue = ["torch"]
    while queue:
        name = canonicalize_name(queue.pop())
        if name not in of_torch:
            of_torch.add(name)
            queue.extend((needs or _needs)(name))
    return [f"{name}=={have[name]}" for name in sorted({*PROTECTED, *of_torch}) if name in have]


def install() -> int:
    """Install what is missing and return pip's exit code; says what it does in one line."""
    installed = installed_versions()
    wanted = missing_requirements(course_requirements(), installed)
    if not wanted:
        print("Everything the course needs is installed.")
        return 0
    print(f"Installing {', '.join(wanted)} (about a minute, once per session) ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "keep.txt"
        constraints.write_text("\n".join(frozen(installed)) + "\n")
        code = subprocess.run(pip_command(wanted, constraints)).returncode
    if code:
        print("pip could not install them: restart the session and run this cell again.")
    return code


def pip_command(wanted: Iterable[str], constraints: Path) -> list[str]:
    """The pip call that installs ``wanted`` and changes nothing that ``constraints`` pins."""
    head = [sys.executable, "-m", "pip", "install", "--quiet"]
    return [*head, "--constraint", str(constraints), *wanted]


def on_colab() -> bool:
    """Whether this Python is a Colab session: its kernel loads ``google.colab`` at its start."""
    return "google.colab" in sys.modules


def offer() -> str:
    """What to tell a learner about this disk; empty where there is nothing to tell."""
    if not on_colab() or paths.runs_dir().is_relative_to(DRIVE):
        return ""
    return (
        "Colab's disk is emptied when the session ends: course_utils.colab.use_drive() keeps "
        "trained models and labels in your Google Drive."
    )


def use_drive(folder: str = DISTRIBUTION) -> Path | None:
    """Keep trained models and labels in Google Drive from now on; Colab asks for permission.

    Labels made in this session are taken along; models trained before stay where they are. Call it
    below a chapter's first cell: what a cell has opened already stays open where it was.

    Args:
        folder: its name in My Drive; it is made if it is missing.

    Returns:
        The folder, or None when permission was not given: then nothing changes.

    Raises:
        CourseError: this is no Colab session.
    """
    if not on_colab():
        raise CourseError(
            "use_drive() works on Colab only: elsewhere set COURSE_RUNS to a folder that lasts."
        )
    from google.colab import drive

    try:
        drive.mount(str(DRIVE))
        home = DRIVE / "MyDrive" / folder
        runs = home / "runs"
        runs.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # a refusal comes as whatever Colab raises that day
        print(
            f"Google Drive is not connected ({type(error).__name__}): models and labels stay on "
            "this session's disk."
        )
        return None
    if paths.runs_dir() != runs:
        _take_labels_along(paths.runs_dir(), runs)
    os.environ["COURSE_RUNS"] = str(runs)
    print(f"Trained models and labels are kept in My Drive/{folder}.")
    return home


def _take_labels_along(before: Path, runs: Path) -> None:
    """Add the logs of labels to those on Drive; a line that stands there twice counts once."""
    for log in sorted((before / "labels").glob("*.jsonl")):
        target = runs / "labels" / log.name
        target.parent.mkdir(exist_ok=True)
        with log.open("rb") as source, target.open("ab") as sink:
            if sink.tell():
                sink.write(b"\n")  # its last line may be torn
            shutil.copyfileobj(source, sink)


def download(path: str | os.PathLike[str]) -> None:
    """Hand a file to the learner: through the browser on Colab; elsewhere say where it stands."""
    file = Path(path)
    if not file.is_file():
        raise CourseError(f"There is no file {file.name} yet: label something first.")
    if not on_colab():
        print(f"The file stands on this machine: {file}")
        return
    from google.colab import files

    files.download(str(file))


def main(argv: list[str] | None = None) -> int:
    """``python -m course_utils.colab --install``."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.colab", description=__doc__)
    parser.add_argument("--install", action="store_true", help="install what is missing")
    args = parser.parse_args(argv)
    try:
        require_python()
        return install() if args.install else 0
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2


def _needs(name: str) -> list[str]:
    """The names of what an installed package requires here, extras left out."""
    from packaging.requirements import Requirement

    try:
        texts = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(text) for text in texts]
    return [r.name for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _pyproject() -> dict[str, Any]:
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
