"""One source of pins: pyproject's ranges, constraints.txt and environment.yml agree."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILES = ("pyproject.toml", "constraints.txt", "environment.yml")
TESTED_EXTRAS = ("instructor", "laptop", "dev")  # `gpu` chooses its own builds


def direct_requirements(pyproject: str) -> dict[str, Requirement]:
    """Canonical name -> requirement, of the course itself and of the tested extras."""
    project = tomllib.loads(pyproject)["project"]
    texts = list(project["dependencies"])
    for extra in TESTED_EXTRAS:
        texts += project["optional-dependencies"][extra]
    parsed = [Requirement(text) for text in texts]
    own = canonicalize_name(project["name"])
    return {canonicalize_name(r.name): r for r in parsed if canonicalize_name(r.name) != own}


def pinned(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """``name==version`` lines as canonical name -> version, and the lines that are none."""
    pins, odd = {}, []
    for line in lines:
        text = line.partition("#")[0].strip()
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)", text)
        if match:
            pins[canonicalize_name(match[1])] = match[2]
        elif text:
            odd.append(text)
    return pins, odd


def disagreements(pyproject: str, constraints: str, environment: str) -> list[str]:
    """One sentence for everything in which the three files differ."""
    found = []
    direct = direct_requirements(pyproject)
    pins, odd = pinned(constraints.splitlines())
    found += [f"constraints.txt: {line!r} is no exact version" for line in odd]

    dependencies = yaml.safe_load(environment)["dependencies"]
    conda, odd = pinned(next(d["pip"] for d in dependencies if isinstance(d, dict)))
    found += [
        f"environment.yml: {line!r} is no exact version"
        for line in odd
        if line not in ("-e .", "-c constraints.txt")
    ]
    found += [f"environment.yml: {need!r} is missing" for need in ("-e .",) if need not in odd]
    python = tomllib.loads(pyproject)["project"]["requires-python"].removeprefix(">=")
    if f"python={python}" not in dependencies:
        found.append(f"environment.yml: python={python} is missing")

    for name, requirement in direct.items():
        if name not in pins:
            found.append(f"constraints.txt: {name} is missing")
        elif not requirement.specifier.contains(pins[name]):
            found.append(f"pyproject.toml: {requirement} excludes the tested {pins[name]}")
        if conda.get(name) != pins.get(name):
            found.append(
                f"environment.yml: {name} is {conda.get(name)}, not {pins.get(name)} as tested"
            )
    found += [f"environment.yml: {name} is no requirement" for name in conda if name not in direct]
    for line in environment.splitlines():
        if re.match(r"\s+- \S+==", line) and not re.search(r"# (chapters? \d\d|no chapter)", line):
            found.append(f"environment.yml: {line.strip()!r} does not say which chapter needs it")
    return found


@pytest.fixture
def texts() -> list[str]:
    return [(ROOT / name).read_text(encoding="utf-8") for name in FILES]


def test_the_three_files_agree(texts: list[str]) -> None:
    assert disagreements(*texts) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (0, "trl>=1.16,<1.17", "trl>=1.17,<1.18", "excludes the tested 1.16.0"),
        (0, '"tqdm>=4.66",', '"tqdm>=4.66", "rich>=13",', "rich is None"),
        (0, '">=3.11"', '">=3.12"', "python=3.12 is missing"),
        (1, "trl==1.16.0", "trl==1.16.1", "trl is 1.16.0, not 1.16.1"),
        (1, "trl==1.16.0", "trl>=1.16.0", "is no exact version"),
        (1, "torch==2.13.0", "torch==2.13.0+cpu", "is no exact version"),
        (1, "peft==", "left==", "peft is missing"),
        (2, "torch==2.13.0 ", "torch==2.12.0 ", "torch is 2.12.0, not 2.13.0"),
        (2, "torch==2.13.0 ", "torch ", "is no exact version"),
        (2, "# chapters 02-13: LoRA", "# LoRA", "does not say which chapter"),
        (2, "      - -e .", "      # -e .", "'-e .' is missing"),
        (2, "- gguf==", "- gguff==", "gguff is no requirement"),
    ],
)
def test_each_kind_of_disagreement_is_found(
    texts: list[str], file: int, old: str, new: str, complaint: str
) -> None:
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new)
    assert any(complaint in sentence for sentence in disagreements(*texts))


def test_constraints_are_sorted_out_of_paths_hosts_and_the_project_itself(texts: list[str]) -> None:
    pins, _ = pinned(texts[1].splitlines())
    assert "rlhf-course" not in pins
    assert not re.search(r"@|://|^-", texts[1], flags=re.MULTILINE)


def test_makefile_and_conda_use_the_constraints(texts: list[str]) -> None:
    assert "-c constraints.txt -e" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "- -c constraints.txt" in texts[2]


def third_party_imports(folder: str) -> dict[str, set[str]]:
    """Import name -> files under ``folder`` that import it, without the standard library."""
    ours = {"course_utils", *(p.stem for p in (ROOT / "tests").glob("*.py")), "tests", "google"}
    found: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in ours:
                    found.setdefault(top, set()).add(path.name)
    return found


@pytest.mark.parametrize("folder", ["course_utils", "tests", "notebooks/source", "benchmarks"])
def test_everything_imported_is_a_stated_requirement(texts: list[str], folder: str) -> None:
    """What only another package brings along can vanish with that package's next release."""
    direct = set(direct_requirements(texts[0]))
    distributions = importlib.metadata.packages_distributions()
    unstated = {
        name: sorted(files)
        for name, files in third_party_imports(folder).items()
        if not {canonicalize_name(d) for d in distributions.get(name, [name])} & direct
    }
    assert unstated == {}


def test_imports_are_found_wherever_they_stand() -> None:
    """`yaml` stands at the top of this file, `psutil` only inside functions."""
    assert "yaml" in third_party_imports("tests")
    assert "psutil" in third_party_imports("course_utils")
