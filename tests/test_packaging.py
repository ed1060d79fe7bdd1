"""The package imports instantly, its names are what they should be, and the wheel is whole."""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import course_utils
from course_utils import __main__ as cli
from course_utils._python import MINIMUM, require_python, require_torch
from course_utils.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "trl", "datasets", "matplotlib", "numpy", "huggingface_hub")


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        timeout=60,
    )


def test_import_loads_nothing_heavy() -> None:
    code = f"""
import json, sys
import course_utils
loaded = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([loaded, course_utils.__version__]))
"""
    assert json.loads(run_python(code).stdout) == [[], course_utils.__version__]


@pytest.mark.parametrize("first", ["course_utils._setup", "course_utils.profiles", "sys"])
def test_setup_is_the_function_whatever_was_imported_before(first: str) -> None:
    code = f"import {first}; from course_utils import setup; print(type(setup).__name__)"
    assert run_python(code).stdout.strip() == "function"


def test_no_module_shadows_an_exported_name() -> None:
    names = {path.stem for path in (ROOT / "course_utils").iterdir()}
    assert not names & set(course_utils._EXPORTS)


def test_exports_resolve_and_are_listed() -> None:
    assert course_utils.setup.__module__ == "course_utils._setup"
    assert course_utils.CourseError is CourseError
    assert inspect.ismodule(course_utils.paths)
    assert {"setup", "check", "report_metric", "runs", "world"} <= set(dir(course_utils))
    with pytest.raises(AttributeError, match="no attribute 'sutep'"):
        course_utils.sutep  # noqa: B018


@pytest.mark.parametrize("name", sorted([*course_utils._EXPORTS, *course_utils._MODULES]))
def test_every_promised_name_has_its_module(name: str) -> None:
    stem = course_utils._EXPORTS.get(name, name)
    package = ROOT / "course_utils"
    assert (package / f"{stem}.py").exists() or (package / stem / "__init__.py").exists()


@pytest.mark.parametrize("file", ["__init__.py", "__main__.py", "_python.py", "errors.py"])
def test_an_old_python_can_read_what_tells_it_that_it_is_old(file: str) -> None:
    source = (ROOT / "course_utils" / file).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imports = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert "tomllib" not in imports


def test_python_too_old_is_one_sentence_with_the_command() -> None:
    require_python(MINIMUM)
    with pytest.raises(CourseError, match=r"3\.11 or newer and this is Python 3\.9.*make lab"):
        require_python((3, 9))


def test_minimum_python_is_the_one_pyproject_states() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={MINIMUM[0]}.{MINIMUM[1]}"


def test_torch_missing_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    require_torch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CourseError, match=r"PyTorch is not installed.*pip install -e \."):
        require_torch()


def test_setup_without_torch_says_so_in_one_sentence() -> None:
    code = """
import sys
sys.modules["torch"] = None
from course_utils import CourseError, setup
try:
    setup("scratch", profile="tiny")
except CourseError as error:
    print(error)
"""
    result = run_python(code)
    assert result.stdout.startswith("PyTorch is not installed in this Python"), result.stderr
    assert result.stderr == ""


def test_cli_prints_course_errors_as_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--profile", "lpatop"]) == 2
    shown = capsys.readouterr().err
    assert "Did you mean 'laptop'?" in shown and "Traceback" not in shown

    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("course_utils.doctor.main", interrupted)
    assert cli.main(["doctor"]) == 130


def test_cli_names_the_legal_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["docter"])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in cli.COMMANDS)


def test_cli_help_imports_no_command() -> None:
    code = (
        "import sys; from course_utils.__main__ import build_parser; build_parser(); "
        "print([m for m in sys.modules if m.startswith('course_utils.')])"
    )
    loaded = run_python(code).stdout
    assert "authoring" not in loaded and "doctor" not in loaded and "errors" in loaded


def test_repository_files_name_no_machine_and_no_package_host() -> None:
    files = ["pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run"]
    for name in files:
        text = (ROOT / name).read_text(encoding="utf-8")
        for forbidden in ("/root", "/work", "file://", "index-url", "find-links", "pypi."):
            assert forbidden not in text, (name, forbidden)


def test_ci_script_is_executable_and_stops_at_the_first_error() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and text.rstrip().endswith("make test")
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_with_an_old_python_says_one_sentence_with_the_command(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "oldpython"
    old.write_text("#!/bin/sh\nexit 1\n")  # what `sys.exit(True)` of an old Python comes to
    old.chmod(0o755)
    result = subprocess.run(
        ["make", "--no-print-directory", "lab", f"PYTHON={old}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stdout
    assert "make lab PYTHON=python3.11" in result.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_makes_the_environment_again_only_when_the_pins_change(tmp_path: Path) -> None:
    """A stand-in for python shows what make would do, without installing gigabytes."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    fake = tmp_path / "python"
    fake.write_text(
        '#!/bin/sh\necho "$@" >>calls\n'
        'if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi\n'
        'case "$*" in *"course_utils test"*) exit 3;; esac\n'
    )
    fake.chmod(0o755)

    def make(target: str) -> tuple[int, str]:
        (tmp_path / "calls").write_text("")
        command = ["make", "--no-print-directory", target, f"PYTHON={fake}"]
        code = subprocess.run(command, cwd=tmp_path, capture_output=True).returncode
        return code, (tmp_path / "calls").read_text()

    install = "-m pip install -c constraints.txt -e .[dev,instructor,laptop]"
    code, calls = make("course")
    assert code == 0 and install in calls and "-m course_utils run" in calls
    code, calls = make("course")
    assert code == 0 and install not in calls
    later = (tmp_path / ".venv" / ".made").stat().st_mtime + 5
    os.utime(tmp_path / "constraints.txt", (later, later))
    code, calls = make("lab")
    assert code == 0 and install in calls
    code, _ = make("test")
    assert code != 0, "make test must fail when the tests fail"


def test_wheel_holds_the_code_the_data_and_the_licences(tmp_path: Path) -> None:
    """Built from a copy of a few files, so that other work in the tree cannot disturb it."""
    copy = tmp_path / "copy"
    (copy / "course_utils").mkdir(parents=True)
    (copy / "data" / "english").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT.md", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    shutil.copy(ROOT / "course_utils" / "__init__.py", copy / "course_utils")
    (copy / "data" / "english" / "one.jsonl").write_text("{}\n")
    (copy / "data" / "model.safetensors").write_bytes(b"x")
    shutil.copy(ROOT / "data" / "constitution.json", copy / "data")
    shutil.copytree(ROOT / "configs", copy / "configs")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=copy, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    wheel = tmp_path / result.stdout.strip().splitlines()[-1]
    names = zipfile.ZipFile(wheel).namelist()
    assert "course_utils/_data/english/one.jsonl" in names
    assert "course_utils/_data/model.safetensors" in names
    assert "course_utils/_data/constitution.json" in names
    assert "course_utils/_configs/accelerate/fsdp.yaml" in names
    assert not [n for n in names if n.startswith("data/")]
    assert [n for n in names if n.endswith("licenses/LICENSE-TEXT.md")]
    assert wheel.name.startswith(f"rlhf_course-{course_utils.__version__}-")


def test_nothing_under_data_is_ignored_by_git() -> None:
    """The wheel and the clone leave out what git ignores, so .gitignore must not match data."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    files = [str(p.relative_to(ROOT)) for p in (ROOT / "data").rglob("*") if p.is_file()]
    assert files
    result = subprocess.run(
        ["git", "check-ignore", "--no-index", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stdout == ""
