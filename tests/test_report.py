"""Headline numbers: printed, collected, written, and refused when they are no numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from course_utils import report
from course_utils.errors import CourseError


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_metrics", {})
    monkeypatch.setattr(report, "_chapter", "")
    monkeypatch.delenv("COURSE_METRICS_FILE", raising=False)


def test_prints_collects_and_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    monkeypatch.setenv("COURSE_METRICS_FILE", str(path))
    report.set_chapter("02_sft")
    report.report_metric("gold_sft", np.float32(1.5))
    report.report_metric("ci95", (0.25, np.array(0.75)))
    report.report_metric("model", "tiny")
    report.report_metric("ok", True)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "metric gold_sft = 1.5",
        "metric ci95 = [0.25, 0.75]",
    ]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"chapter": "02_sft", "name": "gold_sft", "value": 1.5}
    assert report.metrics() == {
        "gold_sft": 1.5,
        "ci95": [0.25, 0.75],
        "model": "tiny",
        "ok": True,
    }
    assert report.metrics("01_why") == {}


@pytest.mark.parametrize(
    "value", [float("nan"), np.inf, [1.0, float("nan")], None, {"a": 1}, np.zeros(3), object()]
)
def test_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(CourseError, match="'gold' is"):
        report.report_metric("gold", value)
    assert report.metrics() == {}


def test_needs_a_name() -> None:
    with pytest.raises(CourseError, match="needs a name"):
        report.report_metric("", 1)
