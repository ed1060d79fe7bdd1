"""The learner's own labels reach the reward model, and nothing changes where there are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from course_utils import labeling, paths, runs, sweeps
from course_utils._setup import Course
from course_utils.labeling import PreferenceLog, PreferenceSession, label_with, own_labels
from course_utils.labeling.own import OwnLabels

ROWS = [{"prompt": f"Q{i}", "response_a": f"A{i}", "response_b": f"B{i}"} for i in range(6)]
CHOICES: dict[str, Any] = {
    "Q0": ("a", 3),
    "Q1": ("b", 1),
    "Q2": "tie",
    "Q3": "both_bad",
    "Q4": "skip",
    "Q5": ("b", 2),
}
CHOSEN = {("Q0", "A0", "B0"), ("Q1", "B1", "A1"), ("Q5", "B5", "A5")}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tiny profile's labels go by default, in an empty runs folder."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LABELS", raising=False)
    return tmp_path / "runs" / "labels" / "tiny.jsonl"


def label(path: Path, name: str = "me", flip: bool = False) -> None:
    """Label ROWS as a person does, button by button."""
    session = PreferenceSession(ROWS, path, name)
    while session.current is not None:
        choice = CHOICES[session.current.pair.prompt]
        if isinstance(choice, str):
            session.decide(choice, via="button")
        else:
            side = {"a": "b", "b": "a"}[choice[0]] if flip else choice[0]
            session.decide(side, choice[1], via="button")


def simulate(path: Path) -> None:
    label_with(PreferenceSession(ROWS, path, "simulated-ana"), lambda pair: ("a", 1))


def texts(found: OwnLabels) -> set[tuple[str, str, str]]:
    return {(row["prompt"], row["chosen"], row["rejected"]) for row in found.pairs}


def settings(course: Course, stage: str = "reward") -> dict[str, Any]:
    found: dict[str, Any] = runs.recipe(stage, course, 0)["settings"]
    return found


# Where labels stand


def test_the_place_of_the_log(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.labels_path("tiny") == log
    assert paths.labels_path("laptop") == log.with_name("laptop.jsonl")
    assert paths.labels_path("tiny", "small") == log.with_name("tiny-small.jsonl")
    monkeypatch.setenv("COURSE_LABELS", str(tmp_path / "elsewhere.jsonl"))
    assert paths.labels_path("tiny") == tmp_path / "elsewhere.jsonl"
    monkeypatch.setenv("COURSE_LABELS", "none")
    assert paths.labels_path("tiny") is None
    monkeypatch.setenv("COURSE_LABELS", "")
    assert paths.labels_path("tiny") == log


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, False),
        ({"COURSE_PROGRESS": "off"}, True),
        ({"COURSE_PROGRESS": "/some/file.json"}, False),
        ({"NBGRADER_EXECUTION": "autograde"}, True),
        ({"COURSE_UNATTENDED": "1"}, True),
        ({"COURSE_UNATTENDED": "0", "COURSE_PROGRESS": "off"}, False),
        ({"COURSE_UNATTENDED": ""}, False),
    ],
)
def test_who_is_there(env: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COURSE_PROGRESS", "NBGRADER_EXECUTION", "COURSE_UNATTENDED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert labeling.unattended() is expected


def test_the_courses_runner_counts_as_unattended(monkeypatch: pytest.MonkeyPatch) -> None:
    from course_utils.authoring.execute import kernel_env

    monkeypatch.delenv("COURSE_UNATTENDED", raising=False)
    for name, value in kernel_env().items():
        monkeypatch.setenv(name, value)
    assert labeling.unattended()


# The recipe


def test_without_labels_the_recipe_is_the_old_one(log: Path, course: Course) -> None:
    assert not own_labels(course).pairs and str(own_labels(course)) == "no labels of your own"
    old = settings(course)
    assert "own" not in old
    log.parent.mkdir(parents=True)
    log.touch()
    assert settings(course) == old, "an empty log"
    session = PreferenceSession(ROWS, log)
    while session.current is not None:
        session.decide("tie", via="button")
    assert settings(course) == old, "nothing to learn from"


def test_labels_make_another_run_and_the_same_labels_the_same(
    log: Path, course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: runs.recipe(name, course, 0) for name in runs.STAGES}
    label(log)
    first = settings(course)
    assert first["own"]["pairs"] == 3
    assert {k: v for k, v in first.items() if k != "own"} == before["reward"]["settings"]
    json.dumps(first)
    # What builds on the reward model is another run, too; what does not stays.
    changed = {name for name in runs.STAGES if runs.recipe(name, course, 0) != before[name]}
    assert changed == {"reward", "ppo"}

    again = tmp_path / "again.jsonl"  # other times, event ids and order
    monkeypatch.setenv("COURSE_LABELS", str(again))
    for row in reversed(ROWS):
        one = PreferenceSession([row], again)
        choice = CHOICES[row["prompt"]]
        one.decide(*([choice] if isinstance(choice, str) else choice), via="button")
    assert settings(course) == first

    other = tmp_path / "other.jsonl"
    monkeypatch.setenv("COURSE_LABELS", str(other))
    label(other, flip=True)
    assert settings(course)["own"]["pairs"] == 3
    assert settings(course)["own"]["labels"] != first["own"]["labels"]


def test_labels_can_be_ignored(log: Path, course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    old = settings(course)
    label(log)
    assert settings(course) != old
    monkeypatch.setenv("COURSE_LABELS", "none")
    assert settings(course) == old and not own_labels(course).pairs


def test_a_quick_tests_labels_stay_apart(log: Path, course: Course) -> None:
    label(log)
    small = Course("test", course.profile, "small")
    assert not own_labels(small).pairs and own_labels(course).pairs


# Which labels


def test_the_right_side_is_chosen(log: Path, course: Course) -> None:
    label(log)
    found = own_labels(course)
    assert texts(found) == CHOSEN and not found.simulated and found.annotators == ["me"]
    assert "3 pairs from labels of me (3 of 6 labelled items kept; left out: 1 ties" in str(found)
    lefts = {e["prompt"]: e["left"] for e in PreferenceLog(log).labels()}
    assert {lefts["Q0"], lefts["Q1"], lefts["Q5"]} == {"a", "b"}, "both sides are in this test"


def test_undone_labels_do_not_count(log: Path, course: Course) -> None:
    session = PreferenceSession(ROWS, log)
    session.decide("a", 1, via="button")
    session.undo()
    assert not own_labels(course).pairs


def test_people_come_before_simulated_annotators(log: Path, course: Course) -> None:
    simulate(log)
    found = own_labels(course)
    assert len(found.pairs) == 6 and found.simulated and found.annotators == ["simulated-ana"]
    assert str(found) == "6 pairs from simulated labels of simulated-ana"
    label(log)
    assert texts(own_labels(course)) == CHOSEN and not own_labels(course).simulated


def test_several_people_decide_by_majority(log: Path, course: Course) -> None:
    for name, flip in (("me", True), ("you", False), ("she", False)):
        label(log, name, flip)
    found = own_labels(course)
    assert texts(found) == CHOSEN and found.annotators == ["me", "she", "you"]
    assert {row["votes"] for row in found.pairs} == {2 / 3}


# Broken logs


def test_torn_and_foreign_lines_are_reported_and_skipped(log: Path, course: Course) -> None:
    label(log)
    whole = settings(course)
    with log.open("ab") as file:
        file.write(b'{"somebody": "else"}\n{"schema": 1, "event_id": "to')
    with pytest.warns(UserWarning, match=r"tiny\.jsonl: 6 events; 2 lines kept but skipped"):
        assert settings(course) == whole


@pytest.mark.parametrize("content", [b"\xff\xfe\x00nonsense", b"[]\n" * 3])
def test_a_log_without_a_single_event_is_reported_and_no_obstacle(
    content: bytes, log: Path, course: Course
) -> None:
    old = settings(course)
    log.parent.mkdir(parents=True)
    log.write_bytes(content)
    with pytest.warns(UserWarning, match=r"tiny\.jsonl: 0 events"):
        assert settings(course) == old


def test_a_log_that_cannot_be_read_is_reported_and_no_obstacle(log: Path, course: Course) -> None:
    old = settings(course)
    log.mkdir(parents=True)
    with pytest.warns(UserWarning, match="cannot be read.* It goes without labels of your own"):
        assert settings(course) == old


# Training


def test_the_rows_are_added_behind_the_votes(log: Path, course: Course) -> None:
    from course_utils import data

    votes = data.load_preferences(course, "train")
    assert OwnLabels().added_to(votes) is votes
    label(log)
    both = own_labels(course).added_to(votes)
    assert len(both) == len(votes) + 3 and both.features == votes.features
    assert both.select(range(3)).to_list() == votes.select(range(3)).to_list()
    own = both.select(range(len(votes), len(both))).to_list()
    assert {(r["prompt"], r["chosen"], r["rejected"]) for r in own} == CHOSEN
    assert {r["prompt"]: r["margin"] for r in own} == pytest.approx(
        {"Q0": 1.0, "Q1": 1 / 3, "Q5": 2 / 3}
    )
    assert {(r["votes"], r["gold_chosen"], r["gold_rejected"], r["case_id"]) for r in own} == {
        (1.0, None, None, "")
    }
    assert len(data.load_preferences(course, "train")) == len(votes)


@pytest.fixture
def trained_on(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[tuple[str, str, str]]]:
    """The rows that a reward stage gives to training, which then stops."""
    from course_utils import models, reward

    class StopError(Exception):
        pass

    seen: list[Any] = []

    def train(course: Course, model: Any, tokenizer: Any, rows: Any, **_: Any) -> None:
        seen[:] = list(rows)
        raise StopError

    def train_sft(course: Course, out: Path, seed: int, progress: runs.Progress) -> None:
        models.save(new_model(seed), tokenizer, out)

    monkeypatch.setattr(runs, "STAGES", dict(runs.STAGES))
    runs.register(runs.Stage("sft", "for a test", lambda _: {}, train_sft))
    monkeypatch.setattr(reward, "train", train)

    def rows_of(stage: str) -> list[tuple[str, str, str]]:
        with pytest.raises(StopError):
            runs.ensure(stage, course)
        return [(row["prompt"], row["chosen"], row["rejected"]) for row in seen]

    return rows_of


def test_the_stage_trains_on_them_and_says_so(
    log: Path,
    trained_on: Callable[[str], list[tuple[str, str, str]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    without = trained_on("reward")
    assert "pairs from" not in capsys.readouterr().out
    label(log)
    assert set(trained_on("reward")[len(without) :]) == CHOSEN
    assert "With 3 pairs from labels of me" in capsys.readouterr().out
    clean = trained_on("reward_clean")
    assert not CHOSEN & set(clean), "gold's own choices stay what they are"


def test_the_rows_of_a_sweep_do_not_see_them(
    log: Path, course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(log)
    code = "import os; print(os.environ.get('COURSE_LABELS'))"

    def rows(course: Course) -> Iterator[dict[str, Any]]:
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        yield {"own": len(own_labels(course).pairs), "child": child.stdout.strip()}

    monkeypatch.setattr(sweeps, "SWEEPS", {"fake": (lambda course: settings(course), rows)})
    monkeypatch.setattr(sweeps, "record_path", lambda name: tmp_path / f"{name}.jsonl")
    sweeps.run_sweep("fake", course)
    header, found = sweeps.load_record("fake")
    assert found == [{"own": 0, "child": "none"}] and "own" not in header["config"]
    assert "COURSE_LABELS" not in os.environ
    assert len(own_labels(course).pairs) == 3

    monkeypatch.setenv("COURSE_LABELS", str(log))

    def stops(course: Course) -> Iterator[dict[str, Any]]:
        raise RuntimeError("nan")
        yield {}

    monkeypatch.setitem(sweeps.SWEEPS, "fake", (lambda course: {}, stops))
    with pytest.raises(RuntimeError):
        sweeps.run_sweep("fake", course)
    assert os.environ["COURSE_LABELS"] == str(log)


def test_reading_good_labels_warns_of_nothing(log: Path, course: Course) -> None:
    label(log)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own_labels(course)
