"""Recorded experiments: what is written, what an interruption leaves, and that the record holds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from course_utils import __main__, runs, sweeps
from course_utils._setup import Course
from course_utils.errors import CourseError


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep named "fake" whose record goes to a temporary folder."""

    def rows(course: Course) -> Iterator[dict[str, Any]]:
        for seed in (0, 1):
            yield {"variant": "full", "seed": seed, "values": [0.5, seed]}

    monkeypatch.setattr(sweeps, "SWEEPS", {"fake": (lambda course: {"rate": 3}, rows)})
    monkeypatch.setattr(sweeps, "record_path", lambda name: tmp_path / "records" / f"{name}.jsonl")
    monkeypatch.setattr(runs, "base_fingerprint", lambda course: "base0")
    monkeypatch.setattr(runs, "data_fingerprint", lambda course: "data0")
    return tmp_path / "records" / "fake.jsonl"


def test_a_record_comes_back(record: Path, course: Course) -> None:
    assert sweeps.run_sweep("fake", course) == record
    header, rows = sweeps.load_record("fake")
    assert rows == [{"variant": "full", "seed": s, "values": [0.5, s]} for s in (0, 1)]
    assert header["sweep"] == "fake" and header["profile"] == "tiny"
    assert (header["config"], header["base"], header["data"]) == ({"rate": 3}, "base0", "data0")
    assert header["versions"] == course.versions and "torch" in header["versions"]
    assert len(header["date"].split("-")) == 3
    assert [json.loads(line) for line in record.read_text().splitlines()] == [header, *rows]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("nan")])
def test_an_interrupted_sweep_keeps_the_old_record(
    record: Path, course: Course, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    sweeps.run_sweep("fake", course)
    old = record.read_bytes()

    def stops(course: Course) -> Iterator[dict[str, Any]]:
        yield {"variant": "full", "seed": 9, "values": []}
        raise error

    monkeypatch.setitem(sweeps.SWEEPS, "fake", (lambda course: {}, stops))
    with pytest.raises(type(error)):
        sweeps.run_sweep("fake", course)
    assert record.read_bytes() == old
    assert [path.name for path in record.parent.iterdir()] == ["fake.jsonl"]


def test_unknown_and_missing_records(record: Path, course: Course) -> None:
    for ask in (
        lambda: sweeps.load_record("nonsense"),
        lambda: sweeps.run_sweep("nonsense", course),
    ):
        with pytest.raises(CourseError, match=r"nonsense.*fake"):
            ask()
    with pytest.raises(CourseError, match=r"python -m course_utils sweep fake"):
        sweeps.load_record("fake")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["sweep", "nonsense"]) == 2
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1 and "sft" in told
    assert __main__.main(["sweep"]) == 0
    assert "sft" in capsys.readouterr().out.split()


@pytest.mark.parametrize("name", sweeps.SWEEPS)
def test_the_shipped_records_belong_to_the_shipped_model_data_and_settings(
    course: Course, name: str
) -> None:
    header, _ = sweeps.load_record(name)
    assert header["base"] == runs.base_fingerprint(course), "record it again: another base model"
    assert header["data"] == runs.data_fingerprint(course), "record it again: other data"
    assert header["config"] == json.loads(json.dumps(sweeps.SWEEPS[name][0](course)))


def test_the_sft_record_is_complete() -> None:
    _, rows = sweeps.load_record("sft")
    made = {(row["variant"], row["seed"]) for row in rows}
    assert made == {(v, s) for v in ("base", "full", "lora") for s in sweeps.SEEDS}
    for row in rows:
        assert row["mean"] == pytest.approx(sum(row["values"]) / len(row["values"]), abs=2e-3)


def test_the_reward_record_is_complete_and_good_enough() -> None:
    """0.85 on clean pairs is what the course promises of a model trained on clean labels."""
    _, rows = sweeps.load_record("reward")
    keys = [(row["pairs"], row["labels"], row["seed"]) for row in rows]
    labels = tuple(sweeps.REWARD_LABELS)
    assert keys == list(itertools.product(sweeps.REWARD_PAIRS, labels, sweeps.SEEDS))
    most = max(sweeps.REWARD_PAIRS)
    best = [row["clean"] for row in rows if (row["pairs"], row["labels"]) == (most, "clean")]
    assert sum(best) / len(best) >= 0.85


@pytest.mark.slow
@pytest.mark.heavy
def test_a_row_of_the_reward_record_can_be_made_again(course: Course) -> None:
    _, rows = sweeps.load_record("reward")
    again = sweeps.reward_row(course, "clean", min(sweeps.REWARD_PAIRS), 0)
    recorded = next(row for row in rows if row["labels"] == "clean" and row["seed"] == 0)
    assert again["used"] == recorded["used"] == min(sweeps.REWARD_PAIRS)
    assert again["clean"] == pytest.approx(recorded["clean"], abs=0.06)
    assert again["votes"] == pytest.approx(recorded["votes"], abs=0.06)


@pytest.mark.slow
@pytest.mark.heavy
def test_a_row_of_the_shipped_record_can_be_made_again(course: Course) -> None:
    _, rows = sweeps.load_record("sft")
    recorded = next(row for row in rows if (row["variant"], row["seed"]) == ("full", 0))
    again = sweeps.sft_row(course, "full", 0)
    assert len(again["values"]) == len(recorded["values"])
    assert again["mean"] == pytest.approx(recorded["mean"], abs=0.15)
