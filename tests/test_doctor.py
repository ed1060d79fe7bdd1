"""The doctor says what a machine can run, and its exit code says whether it can run anything."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from course_utils import doctor, profiles
from course_utils.__main__ import main

NAMES = list(profiles.PROFILES)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "hub_state", lambda: "switched off for this test")


def only_these_run(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(
        doctor, "missing", lambda p: [] if p.name in names else [f"{p.name} needs a: do b."]
    )


def test_report_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_these_run(monkeypatch, "tiny", "laptop")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("python", "platform", "cores", "GiB memory", "free on disk", "gpu", "hub"):
        assert word in shown
    assert f"torch         {importlib.metadata.version('torch').partition('+')[0]}" in shown
    lines = [line.split() for line in shown.partition("profiles")[2].splitlines()]
    assert ["tiny", "can", "run"] in lines and ["full", "cannot", "run"] in lines
    assert "full needs a: do b." in shown and "laptop needs a" not in shown


def test_report_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_these_run(monkeypatch, "tiny")
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["profiles"]) == NAMES
    assert report["profiles"]["tiny"] == {"can_run": True, "missing": []}
    assert report["profiles"]["full"] == {"can_run": False, "missing": ["full needs a: do b."]}
    assert report["memory_gb"] > 0 and report["disk_free_gb"] > 0 and report["cores"] > 0


@pytest.mark.parametrize(
    ("running", "arguments", "code"),
    [
        (["tiny"], [], 0),
        ([], [], 1),
        (["tiny"], ["--profile", "full"], 1),
        (["full"], ["--profile", "full"], 0),
        (["tiny"], ["--profile", "fulll"], 2),
    ],
)
def test_exit_code(
    monkeypatch: pytest.MonkeyPatch, running: list[str], arguments: list[str], code: int
) -> None:
    only_these_run(monkeypatch, *running)
    assert main(["doctor", *arguments]) == code


def test_named_profile_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_these_run(monkeypatch, "tiny")
    main(["doctor", "--json", "--profile", "tiny"])
    assert list(json.loads(capsys.readouterr().out)["profiles"]) == ["tiny"]


def test_without_torch_the_doctor_still_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (doctor, profiles):
        monkeypatch.setattr(module, "is_installed", lambda name: name != "torch")
    monkeypatch.setattr(profiles, "hub_problem", lambda *a, **k: None)
    assert main(["doctor"]) == 1
    assert "packages torch: run `pip install" in capsys.readouterr().out


def test_versions_are_compared_without_the_build_label(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"torch": "2.13.0+cpu", "trl": "1.15.0"}

    def version(name: str) -> str:
        if name not in have:
            raise importlib.metadata.PackageNotFoundError(name)
        return have[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    rows = doctor.versions_against({"torch": "2.13.0", "trl": "1.16.0", "left-pad": "1.0"})
    assert doctor._state(rows["torch"]) == "as tested"
    assert doctor._state(rows["trl"]) == "tested with 1.16.0"
    assert rows["left-pad"] == {"installed": None, "tested": "1.0"}
    assert doctor._state(rows["peft"]) == ""  # nothing is known of it


def test_constraints_are_read() -> None:
    assert doctor.parse_constraints("# note\n\na==1\nb_c==2.0  # why\n") == {"a": "1", "b_c": "2.0"}
    assert doctor.tested_versions()["torch"][0].isdigit()


def test_free_space_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert doctor.disk_free_gb(tmp_path / "a" / "b") == pytest.approx(
        doctor.disk_free_gb(tmp_path), rel=0.1
    )
