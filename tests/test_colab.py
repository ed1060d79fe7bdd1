"""On Colab only what is missing is installed, and what Colab runs on is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy
import pytest

from course_utils import colab
from course_utils.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent

# What a Colab runtime has, more or less: an old ipywidgets, torch with a build label, no trl.
COLAB = {
    "torch": "2.9.0+cu126",
    "torchvision": "0.24.0+cu126",
    "numpy": "2.0.2",
    "ipywidgets": "7.7.1",
    "ipykernel": "6.17.1",
    "ipython": "7.34.0",
    "Jinja2": "3.1.6",
    "matplotlib": "3.10.0",
    "scipy": "1.16.3",
    "scikit-learn": "1.6.1",
    "statsmodels": "0.14.5",
    "mistune": "3.1.4",
    "psutil": "5.9.5",
    "transformers": "5.23.0",
    "tokenizers": "0.23.1",
    "huggingface_hub": "2.4.0",
    "datasets": "4.0.0",
    "accelerate": "1.11.0",
    "peft": "0.18.0",
    "safetensors": "0.7.0",
    "openai": "1.109.1",
    "filelock": "3.20.0",
    "packaging": "25.0",
    "tqdm": "4.67.1",
    "nvidia-cublas-cu12": "12.6.4.1",
    "sympy": "1.13.3",
    "mpmath": "1.3.0",
    "requests": "2.32.4",
    "fastapi": "0.118.3",
    "uvicorn": "0.38.0",
}


def names(requirements: list[str]) -> set[str]:
    return {text.split(">")[0].split("=")[0] for text in requirements}


def test_only_what_is_missing_or_too_old_is_asked_for() -> None:
    asked = colab.missing_requirements(colab.course_requirements(), COLAB)
    assert names(asked) == {
        "trl",
        "krippendorff",
        "datasets",
    }  # absent twice; 4.0 is older than 4.7
    assert "trl>=1.16,<1.17" in asked


def test_nothing_is_asked_for_when_all_is_there() -> None:
    have = {**COLAB, "trl": "1.16.3", "datasets": "5.2.0", "krippendorff": "0.9.0"}
    assert colab.missing_requirements(colab.course_requirements(), have) == []


@pytest.mark.parametrize("name", ["torch", "numpy", "ipywidgets", "matplotlib", "IPython"])
def test_protected_packages_are_never_asked_for_while_installed(name: str) -> None:
    assert colab.missing_requirements([f"{name}>=99"], {name: "1.0"}) == []
    assert colab.missing_requirements([f"{name}>=99"], {}) == [f"{name}>=99"]


def test_names_markers_and_unneeded_packages() -> None:
    have = {"huggingface_hub": "2.0"}
    assert colab.missing_requirements(["huggingface-hub>=1"], have) == []
    assert colab.missing_requirements(["huggingface-hub>=3"], have) == ["huggingface-hub>=3"]
    assert colab.missing_requirements(["a; python_version < '3'", "jupyterlab>=4"], {}) == []
    assert colab.missing_requirements(["trl<1.17"], {"trl": "1.17.0"}) == ["trl<1.17"]


def test_everything_torch_needs_is_frozen_too() -> None:
    needs = {"torch": ["nvidia_cublas_cu12", "sympy", "torch"], "sympy": ["mpmath"]}
    lines = colab.frozen(COLAB, lambda name: needs.get(name, []))
    for pin in (
        "torch==2.9.0+cu126",
        "torchvision==0.24.0+cu126",
        "numpy==2.0.2",
        "ipywidgets==7.7.1",
        "nvidia-cublas-cu12==12.6.4.1",
        "mpmath==1.3.0",
    ):
        assert pin in lines
    assert not [line for line in lines if line.startswith(("transformers", "datasets", "requests"))]


def test_frozen_reads_the_real_torch() -> None:
    lines = colab.frozen(colab.installed_versions())
    assert [line for line in lines if line.startswith("sympy==")], "torch needs sympy"
    assert len(lines) == len(set(lines))


def test_pip_cannot_change_what_is_frozen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`install` hands pip the missing requirements and a file that pins the rest."""
    seen: dict[str, object] = {}

    def fake_run(command: list[str], **kwargs: object) -> subprocess.CompletedProcess[str]:
        seen["command"] = command
        seen["kept"] = Path(command[command.index("--constraint") + 1]).read_text().splitlines()
        return subprocess.CompletedProcess(command, int(seen.get("code", 0)))  # type: ignore[call-overload]

    monkeypatch.setattr(colab, "installed_versions", lambda: COLAB)
    monkeypatch.setattr(subprocess, "run", fake_run)
    assert colab.install() == 0
    command = seen["command"]
    assert isinstance(command, list) and "trl>=1.16,<1.17" in command
    assert not [word for word in command if word.startswith(("torch", "numpy", "ipywidgets"))]
    assert isinstance(seen["kept"], list) and "ipywidgets==7.7.1" in seen["kept"]
    assert "Installing" in capsys.readouterr().out
    seen["code"] = 1
    assert colab.install() == 1
    assert "run this cell again" in capsys.readouterr().out


@pytest.mark.parametrize(("kept", "works"), [(numpy.__version__, True), ("1.0.0", False)])
def test_pip_installs_nothing_that_would_replace_a_frozen_package(
    tmp_path: Path, kept: str, works: bool
) -> None:
    """pip's own resolver, offline and without installing anything."""
    keep = tmp_path / "keep.txt"
    keep.write_text(f"numpy=={kept}\n")
    command = [*colab.pip_command(["numpy>=1.26"], keep), "--no-index", "--dry-run"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode == 0) is works, result.stderr


def test_repository_address_is_pyprojects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert colab.repository_url() == project["urls"]["Repository"]


def test_repository_address_of_an_installed_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "rlhf_course-0.1.0.dist-info"
    info.mkdir()
    head = "Metadata-Version: 2.4\nName: rlhf-course\nVersion: 0.1.0\n"
    (info / "METADATA").write_text(f"{head}Project-URL: Repository, https://example.org/a/b\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(colab, "PYPROJECT", tmp_path / "none.toml")
    assert colab.repository_url() == "https://example.org/a/b"
    (info / "METADATA").write_text(head)
    with pytest.raises(CourseError, match="names no repository"):
        colab.repository_url()


def test_the_block_is_short_and_the_address_stands_nowhere_else_in_the_package() -> None:
    source = colab.bootstrap_source("https://example.org/a/b", "v1")
    compile(source, "cell", "exec")
    assert len(source.splitlines()) <= 15
    assert max(map(len, source.splitlines())) <= 100
    assert "%" not in source and "https://example.org/a/b" in source and '"v1"' in source
    address = colab.repository_url()
    for path in (ROOT / "course_utils").rglob("*.py"):
        assert address not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("bad", ["", 'a"b', "a\nb", "{x}"])
def test_an_address_that_would_break_the_block_is_refused(bad: str) -> None:
    with pytest.raises(CourseError):
        colab.bootstrap_source(bad)
    with pytest.raises(CourseError):
        colab.bootstrap_source("https://example.org/a/b", bad)


def make_repository(folder: Path) -> Path:
    """A git repository that stands in for the course and notes how it was called."""
    package = folder / "course_utils"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    (package / "__init__.py").write_text("HERE = __file__\n")
    (package / "colab.py").write_text(
        "import sys\nopen('calls', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
    )
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["add", "."],
        [*identity, "commit", "--quiet", "--message", "x"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def run_block(block: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The block in a Python without site-packages, so that no installed course_utils helps."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    code = f"{block}\nimport course_utils\nprint(course_utils.HERE)"
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_on_colab_the_block_clones_once_installs_and_imports(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "origin")
    fake = tmp_path / "site" / "google" / "colab"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    content = tmp_path / "content"
    content.mkdir()
    block = colab.bootstrap_source(f"file://{repository}")
    for _ in range(2):
        result = run_block(block, content, tmp_path / "site")
        assert result.returncode == 0, result.stderr
        clone = content / "rlhf-course"
        assert Path(result.stdout.strip()) == clone / "course_utils" / "__init__.py"
        (clone / "mine").write_text("kept")  # the second time finds the clone and keeps it
    assert (clone / "calls").read_text() == "--install\n--install\n"
    assert (clone / "mine").exists()


def test_elsewhere_the_block_only_finds_the_clone_above_the_notebooks(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "course")
    (repository / "notebooks").mkdir()
    block = colab.bootstrap_source("https://example.invalid/a/b")
    result = run_block(block, repository / "notebooks")
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == repository / "course_utils" / "__init__.py"
    assert not (repository / "calls").exists() and not (repository / "rlhf-course").exists()


def test_elsewhere_an_installed_package_is_left_as_it_is(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "course")
    (repository / "notebooks").mkdir()
    installed = make_repository(tmp_path / "installed")
    block = colab.bootstrap_source("https://example.invalid/a/b")
    result = run_block(block, repository / "notebooks", installed)
    assert Path(result.stdout.strip()) == installed / "course_utils" / "__init__.py"


def test_a_clone_that_fails_stops_the_cell(tmp_path: Path) -> None:
    fake = tmp_path / "site" / "google" / "colab"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    block = colab.bootstrap_source(f"file://{tmp_path}/nowhere")
    result = run_block(block, tmp_path, tmp_path / "site")
    assert result.returncode != 0 and "git" in result.stderr


def test_install_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colab, "install", lambda: 7)
    assert colab.main(["--install"]) == 7
    assert colab.main([]) == 0
