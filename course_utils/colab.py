"""Colab: fetch the course, install only what is missing, and leave what Colab runs on alone.

``bootstrap_source`` is the block at the top of each chapter. It clones the course and then runs
``python -m course_utils.colab --install`` from the clone. Everything at import time here is
standard library, because this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from course_utils._python import require_python
from course_utils.errors import CourseError

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
DISTRIBUTION = "rlhf-course"

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
