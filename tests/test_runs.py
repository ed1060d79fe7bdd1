"""Trained models on disk: trained once, trusted only when whole, whatever interrupts."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from course_utils import __main__, runs
from course_utils._setup import Course
from course_utils.errors import CourseError
from course_utils.profiles import TINY

COURSE = Course("test", TINY, versions={"python": "3"})
SHIPPED = dict(runs.STAGES)
Trainer = Callable[[Course, Path, int, runs.Progress], None]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder and no stages; the folder where this profile's runs go."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(runs, "STAGES", {})
    return tmp_path / "runs" / "tiny"


class Fake:
    """A stage that writes two files and counts how often it is trained."""

    def __init__(self, name: str = "fake", needs: tuple[str, ...] = (), before: Any = None) -> None:
        self.settings: dict[str, Any] = {"rate": 1}
        self.trained: list[int] = []
        self.before = before  # called when the first file is written and the second is not
        runs.register(runs.Stage(name, "for a test", lambda _: self.settings, self.train, needs))

    def train(self, course: Course, out: Path, seed: int, progress: runs.Progress) -> None:
        (out / "model.safetensors").write_bytes(b"weights %d" % seed)
        progress(1, 2)
        if self.before:
            self.before()
        (out / "more").mkdir()
        (out / "more" / "tokenizer.json").write_text("{}")
        self.trained.append(seed)
        progress(2, 2)


def left_in(disk: Path) -> list[str]:
    """What stands beside the runs' lock files."""
    return sorted(p.name for p in disk.iterdir() if p.suffix != ".lock") if disk.exists() else []


def test_trains_once_and_says_so(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake()
    folder = runs.ensure("fake", COURSE, 3)
    told = capsys.readouterr().out
    assert "Training fake (seed 3): for a test" in told and "fake is ready after" in told
    assert runs.ensure("fake", COURSE, 3) == folder == runs.run_path("fake", COURSE, 3)
    assert fake.trained == [3] and capsys.readouterr().out == ""
    assert (folder / "model.safetensors").read_bytes() == b"weights 3"
    manifest = json.loads((folder / "run.json").read_text())
    assert set(manifest["files"]) == {"model.safetensors", "more/tokenizer.json"}
    assert manifest["recipe"]["seed"] == 3 and manifest["versions"] == {"python": "3"}
    assert left_in(disk) == [folder.name]
    assert folder.stat().st_mode & 0o555 == 0o555, "others must be able to read it"


def test_what_changes_the_recipe_makes_another_run(disk: Path) -> None:
    fake = Fake()
    first = runs.ensure("fake", COURSE)
    small = Course("test", TINY, "small", versions=COURSE.versions)
    others = {runs.ensure("fake", COURSE, 1), runs.ensure("fake", small)}
    fake.settings = {"rate": 2}
    others.add(runs.ensure("fake", COURSE))
    assert len({first, *others}) == 4 == len(fake.trained)
    fake.settings = {"rate": 1}
    assert runs.ensure("fake", COURSE) == first and len(fake.trained) == 4
    # The chapter that asks does not matter: later chapters get the same model.
    assert runs.ensure("fake", Course("other", TINY, versions={})) == first


def test_needs_come_first_and_belong_to_the_recipe(disk: Path) -> None:
    order: list[str] = []
    base = Fake("base", before=lambda: order.append("base"))
    Fake("middle", ("base",), before=lambda: order.append("middle"))
    Fake("top", ("middle",), before=lambda: order.append("top"))
    first = runs.ensure("top", COURSE)
    assert order == ["base", "middle", "top"]
    base.settings = {"rate": 2}
    assert runs.ensure("top", COURSE) != first
    assert order == ["base", "middle", "top"] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("nan"), SystemExit(1)])
def test_an_interrupted_training_leaves_nothing(disk: Path, error: BaseException) -> None:
    def stop() -> None:
        raise error

    fake = Fake(before=stop)
    with pytest.raises(type(error)):
        runs.ensure("fake", COURSE)
    assert left_in(disk) == []
    fake.before = None
    runs.ensure("fake", COURSE)
    assert fake.trained == [0]


def test_an_interrupt_between_weights_and_manifest_leaves_nothing(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fake()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        runs.ensure("fake", COURSE)
    assert left_in(disk) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # safetensors says it like this, and its error is no OSError
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_sentence(disk: Path, error: Exception) -> None:
    def full() -> None:
        raise error

    Fake(before=full)
    with pytest.raises(CourseError, match=r"No space left on device\. Free some disk space, or"):
        runs.ensure("fake", COURSE)
    assert left_in(disk) == []


def test_other_errors_are_not_blamed_on_the_disk(disk: Path) -> None:
    def offline() -> None:
        raise ConnectionError("the hub cannot be reached")  # an OSError, too

    Fake(before=offline)
    with pytest.raises(ConnectionError, match="hub"):
        runs.ensure("fake", COURSE)
    assert left_in(disk) == []


def test_a_runs_folder_that_cannot_be_made_is_one_sentence(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fake()
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "file"))
    with pytest.raises(CourseError, match="set COURSE_RUNS to another folder"):
        runs.ensure("fake", COURSE)


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"wei")


def flip(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"Weights 0")


def lose(folder: Path) -> None:
    (folder / "more" / "tokenizer.json").unlink()


def manifest(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "run.json").write_text(text)

    write.__name__ = repr(text)
    return write


DAMAGES = [
    cut,
    flip,
    lose,
    lambda folder: (folder / "run.json").unlink(),
    manifest(""),
    manifest('{"recipe": {}, "files": {"model.saf'),
    manifest("[]"),
    manifest("{}"),
    manifest('{"files": {}}'),
    manifest('{"files": []}'),
    manifest('{"files": null}'),
    lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x00"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_run_is_trained_again(disk: Path, damage: Callable[[Path], Any]) -> None:
    fake = Fake()
    folder = runs.ensure("fake", COURSE)
    assert runs.is_complete(folder)
    damage(folder)
    assert not runs.is_complete(folder)
    assert runs.ensure("fake", COURSE) == folder and runs.is_complete(folder)
    assert fake.trained == [0, 0]
    assert (folder / "model.safetensors").read_bytes() == b"weights 0"


def test_unknown_stage_lists_the_legal_ones(disk: Path) -> None:
    Fake("sft")
    Fake("reward")
    for ask in (runs.ensure, runs.run_path):
        with pytest.raises(CourseError, match=r"nonsense.*reward, sft"):
            ask("nonsense", COURSE)
    assert left_in(disk) == []


def test_the_command_refuses_nonsense_in_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert __main__.main(["train", "nonsense"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.strip().splitlines()) == 1
    assert "nonsense" in told.err and "sft" in told.err


def test_the_command_lists_the_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["train"]) == 0
    assert "sft" in capsys.readouterr().out


def test_the_shipped_recipe_names_settings_base_and_data(course: Course) -> None:
    settings = runs.recipe("sft", course, 0)["settings"]
    assert {"epochs", "learning_rate", "adapter", "max_length", "base", "data"} <= set(settings)
    json.dumps(settings)


def test_the_reward_stages_differ_by_their_labels_and_build_on_sft(course: Course) -> None:
    voted, clean = (runs.recipe(name, course, 0) for name in ("reward", "reward_clean"))
    assert set(voted["needs"]) == set(clean["needs"]) == {"sft"}
    assert voted["needs"]["sft"] == runs.recipe("sft", course, 0)
    assert (voted["settings"]["labels"], clean["settings"]["labels"]) == ("votes", "clean")
    assert {**voted["settings"], "labels": "clean"} == clean["settings"]
    wanted = {"epochs", "learning_rate", "use_margin", "center", "data"}
    assert wanted <= set(voted["settings"])
    assert voted["settings"]["data"] != voted["needs"]["sft"]["settings"]["data"]
    json.dumps(voted)


@pytest.mark.parametrize(("stage", "labels"), [("reward", "votes"), ("reward_clean", "clean")])
def test_a_reward_stage_trains_on_its_labels_and_leaves_a_scorer(
    stage: str, labels: str, disk: Path, course: Course, tokenizer: Any,
    new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("torch")
    from course_utils import data, models, reward

    def train_sft(course: Course, out: Path, seed: int, progress: runs.Progress) -> None:
        models.save(new_model(seed), tokenizer, out)

    asked: list[tuple[str, str]] = []
    load = data.load_preferences

    def few(course: Course, split: str = "train", labels: str = "votes") -> Any:
        asked.append((split, labels))
        return load(course, split, labels).select(range(8))

    monkeypatch.setattr(data, "load_preferences", few)
    runs.register(runs.Stage("sft", "for a test", lambda _: {}, train_sft))
    runs.register(SHIPPED[stage])
    folder = runs.ensure(stage, course)
    assert asked == [("train", labels), ("validation", labels)]
    assert (folder / "tokenizer.json").is_file() and (folder / "reward.json").is_file()
    history = runs.history(folder)
    assert "loss" in history[0] and "eval_accuracy" in history[-1]
    (score,) = reward.load_scorer(folder, course)(["Where?"], ["In the reeds."])
    assert score == score  # not a NaN
    assert runs.ensure(stage, course) == folder and len(asked) == 2


# What follows needs processes of its own: one is killed, or two work at once.
SCRIPT = """
import sys, time
from pathlib import Path
from course_utils import runs
from course_utils._setup import Course
from course_utils.profiles import TINY
counter, seconds = Path(sys.argv[1]), float(sys.argv[2])
def train(course, out, seed, progress):
    (out / "model.safetensors").write_bytes(b"half")
    with counter.open("a") as file:
        file.write("trained\\n")
    time.sleep(seconds)
    (out / "model.safetensors").write_bytes(b"whole")
runs.STAGES.clear()
runs.register(runs.Stage("slow", "slowly", lambda _: {}, train))
folder = runs.ensure("slow", Course("test", TINY))
assert (folder / "model.safetensors").read_bytes() == b"whole"
"""


def start(counter: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(counter), str(seconds)],
        env=os.environ.copy(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_training_is_ignored_and_swept_up(disk: Path, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    victim = start(counter, 60)
    wait_for(counter.exists)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    (scratch,) = left_in(disk)
    assert scratch.startswith(".slow-seed0-"), "a killed process cannot tidy up"
    stranger = disk / ".slow-seed1-0123456789-x"  # of another run, which may be training now
    stranger.mkdir()

    second = start(counter, 0)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert counter.read_text().count("trained") == 2
    assert scratch.removeprefix(".").startswith(left_in(disk)[1])
    assert left_in(disk) == [stranger.name, left_in(disk)[1]]


@pytest.mark.slow
def test_two_processes_train_once(disk: Path, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    both = [start(counter, 1.5) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert counter.read_text() == "trained\n"
    (folder,) = left_in(disk)
    assert runs.is_complete(disk / folder)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.slow
def test_a_disk_that_fills_up_for_real(disk: Path, tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk's end: safetensors meets it while writing.
    pytest.importorskip("safetensors")
    script = """
import resource, signal, sys
import torch
from safetensors.torch import save_file
from course_utils import runs
from course_utils.errors import CourseError
from course_utils._setup import Course
from course_utils.profiles import TINY
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
def train(course, out, seed, progress):
    save_file({"w": torch.zeros(10000)}, out / "model.safetensors")
runs.register(runs.Stage("big", "big", lambda _: {}, train))
try:
    runs.ensure("big", Course("test", TINY))
except CourseError as error:
    sys.exit(f"told: {error}")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert "told: Could not write the run big-seed0-" in done.stderr
    assert "File too large. Free some disk space" in done.stderr
    assert left_in(disk) == []
