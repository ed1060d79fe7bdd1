"""The log: nothing acknowledged is lost, whatever else stands in the file or writes to it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from course_utils.errors import CourseError
from course_utils.labeling.log import SCHEMA, PreferenceLog, current_labels

UNICODE = "line\u2028separator, next\u0085line, \r\n return, \x1c, عربي, 字"


def label(pair_id: str = "p", choice: str = "a", annotator: str = "ana", **more: Any) -> dict:
    return {
        "type": "label",
        "pair_id": pair_id,
        "annotator": annotator,
        "choice": choice,
        "strength": None,
        "prompt": "Q",
        "response_a": "A",
        "response_b": "B",
        **more,
    }


@pytest.fixture
def log(tmp_path: Path) -> PreferenceLog:
    return PreferenceLog(tmp_path / "labels.jsonl")


def choices(log: PreferenceLog) -> dict[str, str]:
    return {event["pair_id"]: event["choice"] for event in log.labels()}


def test_an_event_is_one_line_of_json_with_schema_id_and_time(log: PreferenceLog) -> None:
    written = log.append(label(prompt=UNICODE))
    lines = log.path.read_bytes().split(b"\n")
    assert len(lines) == 2 and lines[1] == b""
    stored = json.loads(lines[0])
    assert stored == written
    assert stored["schema"] == SCHEMA and len(stored["event_id"]) == 32
    assert stored["ts"].endswith("+00:00")
    assert log.read()[0] == [written]


def test_half_a_surrogate_pair_is_kept(log: PreferenceLog) -> None:
    log.append(label(response_a="\ud83d broken"))
    assert log.labels()[0]["response_a"] == "\ud83d broken"


def test_a_missing_file_is_an_empty_log_and_is_not_made_by_reading(log: PreferenceLog) -> None:
    assert log.labels() == [] and str(log.report()) == "0 events"
    assert not log.path.exists()


@pytest.mark.parametrize("cut", [1, 5, 60], ids=["newline", "brace", "half"])
def test_a_torn_last_line_is_closed_off_and_what_follows_counts(
    cut: int, log: PreferenceLog
) -> None:
    log.append(label("first"))
    log.append(label("torn"))
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-cut])
    alive = {"first", "torn"} if cut == 1 else {"first"}  # only the line end is missing
    damaged = int(cut != 1)
    for _ in range(2):  # before and after it is closed off
        assert set(choices(log)) == alive
        assert log.report().damaged == damaged
        alive = alive | {"next"}
        log.append(label("next"))
    assert log.path.read_bytes().startswith(whole[:-cut] + b"\n")


def test_a_writer_that_dies_between_look_and_write_costs_no_event(
    log: PreferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(label("first"))
    real = os.write

    def die_before(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        real(file, b'{"torn": ')  # somebody else's write, cut short, after we looked
        return real(file, data)

    monkeypatch.setattr(os, "write", die_before)
    log.append(label("second"))
    assert choices(log) == {"first": "a", "second": "a"}
    assert log.report().damaged == 1


def test_a_line_that_stands_twice_counts_once(log: PreferenceLog) -> None:
    log.append(label())
    log.path.write_bytes(log.path.read_bytes() * 2)
    assert log.report().events == 1


def test_foreign_lines_stay_are_skipped_counted_and_reported(log: PreferenceLog) -> None:
    strangers = [
        b'{"prompt": "a", "chosen": "b", "rejected": "c"}',  # foreign: somebody's data
        b"[1, 2]",  # foreign
        b'"text"',  # foreign
        b'{"schema": 2, "type": "novelty", "event_id": "x"}',  # another version
        b"\xff\xfe not text",  # damaged
        b'{"schema": 1, "type": "label", "event_id": "y", "annotator": "ana"}',  # fields missing
        json.dumps(
            {"schema": 1, "event_id": "z", **label(choice="left")}  # no such choice
        ).encode(),
        json.dumps({"schema": 1, "event_id": "s", **label(strength="3")}).encode(),
        b"[" * 100_000,  # damaged: deeper than Python reads
    ]
    log.append(label("first"))
    with log.path.open("ab") as file:
        file.write(b"\n".join(strangers) + b"\n\n")
    log.append(label("second"))

    assert choices(log) == {"first": "a", "second": "a"}
    report = log.report()
    assert (report.events, report.foreign, report.damaged, report.other_schema) == (2, 6, 2, 1)
    assert report.first == {"foreign": 2, "other_schema": 5, "damaged": 6}
    assert "9 lines kept but skipped" in str(report) and "first: line 5" in str(report)
    data = log.path.read_bytes()
    assert all(stranger in data for stranger in strangers)


def test_labels_are_what_undo_and_amend_leave(log: PreferenceLog) -> None:
    log.append(label("kept"))
    taken = log.append(label("taken"))
    log.append({"type": "undo", "annotator": "ana", "target": taken["event_id"]})
    old = log.append(label("again", "a"))
    log.append(label("again", "b"))
    log.append(label("again", "tie", annotator="bo"))
    changed = log.append(label("changed", rationale="wh"))
    log.append(
        {
            "type": "amend",
            "annotator": "ana",
            "target": changed["event_id"],
            "changes": {"rationale": "why", "choice": "b"},
        }
    )
    found = {(e["annotator"], e["pair_id"]): e for e in log.labels()}
    assert {key: event["choice"] for key, event in found.items()} == {
        ("ana", "kept"): "a",
        ("ana", "again"): "b",  # the later one
        ("bo", "again"): "tie",
        ("ana", "changed"): "a",  # an amendment never changes a choice
    }
    assert found["ana", "changed"]["rationale"] == "why"
    assert old["event_id"] != found["ana", "again"]["event_id"]


def test_nobody_takes_back_what_somebody_else_said(log: PreferenceLog) -> None:
    event = log.append(label(annotator="ana"))
    log.append({"type": "undo", "annotator": "bo", "target": event["event_id"]})
    log.append({"type": "undo", "annotator": "ana", "target": "no such event"})
    assert choices(log) == {"p": "a"}
    assert log.report().unmatched == 2
    assert "2 undo or amend events without their label" in str(log.report())


def test_ratings_and_labels_share_a_file(log: PreferenceLog) -> None:
    log.append(label())
    log.append(
        {
            "type": "rating",
            "pair_id": "r",
            "annotator": "ana",
            "choice": "up",
            "prompt": "Q",
            "response": "A",
        }
    )
    assert [e["choice"] for e in log.labels()] == ["a"]
    assert [e["choice"] for e in log.labels("rating")] == ["up"]
    assert current_labels(log.read()[0]) == log.labels()


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # holds for root, too
    with pytest.raises(CourseError, match=r"cannot be saved.*folder you can write to"):
        PreferenceLog(tmp_path / "file" / "labels.jsonl").require_writable()


def test_a_file_that_cannot_be_written_is_an_error_at_once(
    log: PreferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CourseError, match="Permission denied"):
        log.require_writable()


@pytest.mark.parametrize("failing", ["write", "fsync", "short"])
def test_an_event_that_does_not_reach_the_disk_is_an_error(
    failing: str, log: PreferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def short(file: int, data: bytes) -> int:
        return real(file, data[:20])

    log.append(label("first"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync" if failing == "fsync" else "write", fail)
        if failing == "short":
            patch.setattr(os, "write", short)
        with pytest.raises(CourseError, match=r"not saved.*No space left"):
            log.append(label("second"))
    log.append(label("third"))
    assert {"first", "third"} <= set(choices(log))
    assert log.report().damaged == int(failing == "short")


def test_appending_does_not_read_the_file_again(
    log: PreferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(50):
        log.append(label())
    real, read = os.read, []

    def counted(file: int, count: int) -> bytes:
        read.append(count)
        return real(file, count)

    monkeypatch.setattr(os, "read", counted)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("the file was read"))
    log.append(label())
    assert sum(read) <= 2


def test_every_event_is_synced_after_it_is_written(
    log: PreferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.require_writable()
    order: list[str] = []
    for name in ("write", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, real=real, name=name: (order.append(name), real(*args))[1]
        )
    log.append(label())
    assert order == ["write", "fsync"]


WRITERS = """
import os, sys
from course_utils.labeling.log import PreferenceLog
log = PreferenceLog(sys.argv[1])
children = []
for writer in range(3):
    child = os.fork()
    if child == 0:
        for number in range(1000):
            log.append({
                "type": "label", "pair_id": f"{writer}-{number}", "annotator": f"w{writer}",
                "choice": "a", "prompt": "x" * (number % 97) * 100, "response_a": "A",
                "response_b": "\\u2028",
            })
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_three_writers_at_once_lose_and_tear_nothing(log: PreferenceLog) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, str(log.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[0, 0, 0]"
    events, report = log.read()
    assert (report.events, report.skipped) == (3000, 0)
    for writer in range(3):  # every writer's events are there, in its order
        own = [e["pair_id"] for e in events if e["annotator"] == f"w{writer}"]
        assert own == [f"{writer}-{number}" for number in range(1000)]


KILLED = """
import json, os, random, signal, sys, time
import ipywidgets, mistune  # here, or every child would load them
from course_utils.labeling import PreferenceLabeler, PreferenceLog

path, rounds = sys.argv[1], 200
pairs = [{"prompt": f"Q{i}", "response_a": f"A{i}", "response_b": "B" * (i % 50 + 1)}
         for i in range(600)]
rng = random.Random(0)

def label(pipe, seed):
    rng = random.Random(seed)
    labeler = PreferenceLabeler(pairs, path, levels=1, criteria=(), min_seconds=0)
    say = lambda *words: os.write(pipe, (json.dumps(words) + "\\n").encode())
    say("shown", labeler.progress.value)
    while True:
        if rng.random() < 0.2 and labeler.session.labels:
            say("undo", labeler.session.labels[-1]["pair_id"])
            labeler.buttons["undo"].click()
        else:
            item = labeler.session.current
            button = rng.choice(["left-1", "right-1", "tie", "both_bad", "skip"])
            side = button.removesuffix("-1")
            choice = item.content(side) if side in ("left", "right") else button
            say("label", item.pair.pair_id, choice)
            labeler.buttons[button].click()
        say("shown", labeler.progress.value, labeler.counter.value)

def apply(labels, action):
    labels = dict(labels)
    if action and action[0] == "undo":
        del labels[action[1]]
    elif action:
        labels[action[1]] = action[2]
    return labels

shown_to_person, exact, in_flight, clicks = {}, 0, 0, 0
for number in range(rounds):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        try:
            label(into, number)
        finally:
            os._exit(1)
    os.close(into)
    lines = os.fdopen(out, "rb")
    said = [lines.readline()]  # the child has resumed
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said += lines.read().splitlines()
    pending = None
    for line in said:
        word, *rest = json.loads(line)
        if word == "shown":
            shown_to_person = apply(shown_to_person, pending)
            clicks += pending is not None
            pending = None
            assert rest[0] == len(shown_to_person), (number, rest, len(shown_to_person))
            assert len(rest) == 1 or f"{rest[0]} of 600 saved" in rest[1]
        else:
            pending = (word, *rest)
    stored = {e["pair_id"]: e["choice"] for e in PreferenceLog(path).labels()}
    if stored == shown_to_person:
        exact += 1
    else:  # the click that was never answered may have been saved, and nothing else
        assert pending and stored == apply(shown_to_person, pending), number
        in_flight += 1
    shown_to_person = stored
print(json.dumps({"exact": exact, "in_flight": in_flight, "clicks": clicks}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_killed_200_times_has_saved_what_its_counter_had_shown(tmp_path: Path) -> None:
    pytest.importorskip("ipywidgets")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "labels.jsonl")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["exact"] + found["in_flight"] == 200
    assert found["clicks"] > 200  # it was killed at work
    assert found["in_flight"] > 0  # and not between clicks only
