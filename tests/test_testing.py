"""The test command: what it leaves out, and in how many processes it runs."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

from course_utils.authoring import testing


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda count: monkeypatch.setattr(os, "cpu_count", lambda: count)


def test_two_processes_on_two_cores(cores: Any) -> None:
    cores(2)
    assert testing.command(False, [])[1:] == ["-m", "pytest", "-n", "2"]
    fast = testing.command(True, ["-x"])
    assert fast[3:] == ["-m", "not slow and not heavy and not browser", "-n", "2", "-x"]
    cores(1)
    assert testing.command(False, [])[1:] == ["-m", "pytest"]


def test_whoever_says_how_many_gets_them(cores: Any) -> None:
    cores(8)
    assert testing.command(False, ["-n", "4"])[1:] == ["-m", "pytest", "-n", "4"]
    assert testing.command(False, ["-n0", "-x"])[1:] == ["-m", "pytest", "-n0", "-x"]


def test_without_xdist_pytest_runs_alone(cores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cores(8)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "xdist" else found(name)
    )
    assert testing.command(False, [])[1:] == ["-m", "pytest"]


def test_a_thread_for_each_process(cores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cores(2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert testing.environment()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert testing.environment()["OMP_NUM_THREADS"] == "3"
