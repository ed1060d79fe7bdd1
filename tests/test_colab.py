"""On Colab only what is missing is installed, and what Colab runs on is left alone."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_utils import colab, paths
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


# pip's own resolver in an environment like Colab's, with the real requirements of every package


def needed(names: Iterator[str] | list[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions of these names and of all that they require."""
    found: dict[str, importlib.metadata.Distribution] = {}
    queue = list(names)
    while queue:
        name = canonicalize_name(queue.pop())
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        queue += colab._needs(name)
    return found


def metadata(name: str, version: str, requires: list[str]) -> str:
    lines = "".join(f"Requires-Dist: {text}\n" for text in requires)
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}"


def write_wheel(folder: Path, name: str, version: str, requires: list[str]) -> None:
    """A wheel with nothing in it but its requirements."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata(name, version, requires))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a Python environment with Colab's packages, a folder of wheels as tested in this course).

    Neither holds any code: only names, versions and requirements, which is all pip looks at. What
    Colab has is older than the wheels, so pip could upgrade all of it.
    """
    root = tmp_path_factory.mktemp("simulated")
    venv.create(root / "colab", with_pip=False)
    (site,) = (root / "colab").glob("lib/python*/site-packages")
    wheels = root / "wheels"
    wheels.mkdir()
    tested = needed([Requirement(text).name for text in colab.course_requirements()])
    for name, distribution in tested.items():
        version = distribution.version.partition("+")[0]
        write_wheel(wheels, name, version, distribution.requires or [])
    have = {canonicalize_name(name): version for name, version in COLAB.items()}
    for name, distribution in tested.items():  # what stands on neither list is as tested
        if name not in ("trl", "krippendorff", "latex2mathml", *colab.UNNEEDED):
            have.setdefault(name, distribution.version)
    for name, version in have.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        requires = (tested[name].requires or []) if name == "torch" else []
        (info / "METADATA").write_text(metadata(name, version, requires))
        (info / "INSTALLER").write_text("pip\n")
        files = ("METADATA", "INSTALLER", "RECORD")
        (info / "RECORD").write_text("".join(f"{info.name}/{file},,\n" for file in files))
    return root / "colab", wheels


def versions_in(environment: Path) -> dict[str, str]:
    (site,) = environment.glob("lib/python*/site-packages")
    found = importlib.metadata.distributions(path=[str(site)])
    return {canonicalize_name(d.metadata["Name"]): d.version for d in found}


def use_pip_in(monkeypatch: pytest.MonkeyPatch, environment: Path, wheels: Path) -> None:
    """pip, as this Python calls it, works on that environment and knows only those wheels."""
    monkeypatch.setenv("PIP_PYTHON", str(environment / "bin" / "python"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))


@pytest.mark.slow
def test_pip_changes_nothing_that_colab_runs_on(
    simulated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, wheels = simulated
    before = versions_in(environment)
    use_pip_in(monkeypatch, environment, wheels)
    monkeypatch.setattr(colab, "installed_versions", lambda: before)
    assert colab.install() == 0
    after = versions_in(environment)
    for name in ("torch", "numpy", "ipywidgets"):
        assert after[name] == before[name] == COLAB[name]
    changed = {name for name in before if after.get(name) != before[name]}
    assert not changed & {canonicalize_name(name) for name in colab.PROTECTED}
    assert after["trl"] == importlib.metadata.version("trl") and "krippendorff" in after
    assert "jupyterlab" not in after, "Colab has a page of its own"
    assert colab.missing_requirements(colab.course_requirements(), after) == []


@pytest.mark.slow
def test_without_the_first_cell_pip_would_change_them(
    simulated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So the test above can fail: a plain upgrade in the same place replaces all three."""
    environment, wheels = simulated
    use_pip_in(monkeypatch, environment, wheels)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--upgrade"]
    command += ["--report", str(report), "torch", "numpy", "ipywidgets"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = set(re.findall(r'"name": "([^"]+)"', report.read_text()))
    assert {"torch", "numpy", "ipywidgets"} <= found


# A Colab session: every chapter's first cell, Drive, downloads


class FakeColab:
    """What ``google.colab`` does for the course, noted.

    Attributes:
        mounted, downloaded: what it was asked for.
        refuses: the learner says no to Drive.
    """

    def __init__(self) -> None:
        self.mounted: list[str] = []
        self.downloaded: list[str] = []
        self.refuses = False

    def mount(self, folder: str) -> None:
        self.mounted.append(folder)
        if self.refuses:
            raise ValueError("mount failed")
        (Path(folder) / "MyDrive").mkdir(parents=True, exist_ok=True)

    def download(self, file: str) -> None:
        self.downloaded.append(file)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeColab:
    """This process, as if it were a Colab session with an empty disk."""
    fake = FakeColab()
    google, inside = ModuleType("google"), ModuleType("google.colab")
    inside.drive = ModuleType("google.colab.drive")  # type: ignore[attr-defined]
    inside.files = ModuleType("google.colab.files")  # type: ignore[attr-defined]
    inside.drive.mount = fake.mount  # type: ignore[attr-defined]
    inside.files.download = fake.download  # type: ignore[attr-defined]
    google.colab = inside  # type: ignore[attr-defined]
    for module in (google, inside, inside.drive, inside.files):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "disk" / "runs"))
    monkeypatch.delenv("COURSE_LABELS", raising=False)
    content = tmp_path / "content"
    content.mkdir()
    monkeypatch.chdir(content)
    return fake


@pytest.fixture
def untouched_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `setup` sets for its process is undone."""
    torch = pytest.importorskip("torch")
    from huggingface_hub import constants

    before, threads, offline = dict(os.environ), torch.get_num_threads(), constants.HF_HUB_OFFLINE
    for name in ("COURSE_PROFILE", "COURSE_SIZE", "COURSE_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(threads)
    constants.HF_HUB_OFFLINE = offline
    for name in set(os.environ) - set(before):
        del os.environ[name]


CHAPTERS = sorted((ROOT / "notebooks" / "source").glob("[0-9]*.py"))


def setup_cell(source: Path) -> str:
    """The first code cell that the builder makes of a chapter."""
    pytest.importorskip("nbgrader")
    from course_utils.authoring.build import build_notebook

    cells = build_notebook(source).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert first.id == "setup"
    return str(first.source)


@pytest.mark.parametrize("source", CHAPTERS, ids=[path.stem for path in CHAPTERS])
def test_every_chapters_first_cell_runs_on_colab(
    source: Path,
    session: FakeColab,
    untouched_settings: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The cell as learners get it; git and pip are asked for, and answer without a network."""
    asked: list[list[str]] = []
    kept: list[str] = []

    def answer(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        code = 0
        if command[0] == "git":
            Path(command[-1]).symlink_to(ROOT)
        elif "pip" in command:
            kept.extend(Path(command[command.index("--constraint") + 1]).read_text().splitlines())
        else:
            assert Path(options["cwd"]) == Path("rlhf-course").absolute() and options["check"]
            code = colab.main(command[3:])
        return subprocess.CompletedProcess(command, code)

    cell = setup_cell(source)
    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(colab, "installed_versions", lambda: dict(COLAB))
    page: dict[str, Any] = {}
    exec(compile(cell, source.name, "exec"), page)

    clone, install, pip = asked
    assert clone[:2] == ["git", "clone"] and colab.repository_url() in clone
    assert install == [sys.executable, "-m", "course_utils.colab", "--install"]
    wanted = [word for word in pip if ">" in word]
    assert names(wanted) == {"trl", "krippendorff", "datasets"}
    for name in ("torch", "numpy", "ipywidgets"):
        assert f"{name}=={COLAB[name]}" in kept and name not in names(wanted)
    course = page["course"]
    assert (course.chapter, course.profile.name) == (source.stem, "tiny")
    said = [line for line in capsys.readouterr().out.splitlines() if "use_drive()" in line]
    assert len(said) == 1 and "emptied when the session ends" in said[0]


def test_drive_keeps_models_and_labels(
    session: FakeColab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from course_utils.labeling import PreferenceLog

    before = paths.labels_path("tiny")
    assert before is not None
    event = {"type": "undo", "annotator": "me", "target": "x"}
    PreferenceLog(before).require_writable()
    (first,) = [PreferenceLog(before).append(event)]
    for _ in range(2):  # the second time changes nothing
        home = colab.use_drive()
        assert home == tmp_path / "drive" / "MyDrive" / "rlhf-course"
        assert "My Drive/rlhf-course" in capsys.readouterr().out
        assert paths.runs_dir() == home / "runs" and colab.offer() == ""
        log = paths.labels_path("tiny")
        assert log == home / "runs" / "labels" / "tiny.jsonl"
        assert PreferenceLog(log).read()[0] == [first]
    assert session.mounted == [str(tmp_path / "drive")] * 2


def test_labels_of_the_session_are_added_to_those_on_drive(
    session: FakeColab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from course_utils.labeling import PreferenceLog

    old = tmp_path / "drive" / "MyDrive" / "rlhf-course" / "runs" / "labels" / "tiny.jsonl"
    new = tmp_path / "disk" / "runs" / "labels" / "tiny.jsonl"
    event = {"type": "undo", "annotator": "me", "target": "x"}
    for path in (old, new):
        PreferenceLog(path).require_writable()
        PreferenceLog(path).append(event)
    with old.open("a") as file:
        file.write('{"torn')
    colab.use_drive()
    events, report = PreferenceLog(old).read()
    assert len(events) == 2 and report.damaged == 1
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "disk" / "runs"))
    colab.use_drive()  # the same labels once more
    assert PreferenceLog(old).read()[0] == events


def test_nothing_changes_when_drive_is_refused(
    session: FakeColab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.refuses = True
    before, offered = paths.runs_dir(), colab.offer()
    assert colab.use_drive() is None
    assert "stay on this session's disk" in capsys.readouterr().out
    assert paths.runs_dir() == before and colab.offer() == offered != ""
    assert not (tmp_path / "drive").exists()


def test_elsewhere_there_is_no_drive_and_nothing_is_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not colab.on_colab() and colab.offer() == ""
    with pytest.raises(CourseError, match="on Colab only: elsewhere set COURSE_RUNS"):
        colab.use_drive()
    with pytest.raises(CourseError, match=r"no file labels\.jsonl yet: label something"):
        colab.download(tmp_path / "labels.jsonl")
    (tmp_path / "labels.jsonl").write_text("")
    colab.download(tmp_path / "labels.jsonl")
    assert str(tmp_path / "labels.jsonl") in capsys.readouterr().out


def test_a_button_downloads_the_labels_on_colab(session: FakeColab, tmp_path: Path) -> None:
    pytest.importorskip("ipywidgets")
    from course_utils.labeling import PreferenceLabeler, RatingLabeler

    log = tmp_path / "labels.jsonl"
    pair = {"prompt": "Q", "response_a": "one", "response_b": "two"}
    answer = {"prompt": "Q", "response": "one"}
    for kind, row in ((PreferenceLabeler, pair), (RatingLabeler, answer)):
        labeler: Any = kind([row], log, shortcuts=False, min_seconds=0)
        button = labeler.root.children[0].children[-1]
        assert button.description == "Download labels"
        session.downloaded.clear()
        button.click()
        assert session.downloaded == [str(log)], labeler.status.value
        log.unlink()
        button.click()
        assert "no file labels.jsonl yet" in labeler.status.value


def test_elsewhere_there_is_no_such_button(tmp_path: Path) -> None:
    pytest.importorskip("ipywidgets")
    from course_utils.labeling import RatingLabeler

    labeler = RatingLabeler([{"prompt": "Q", "response": "one"}], tmp_path / "labels.jsonl")
    assert len(labeler.root.children[0].children) == 2
