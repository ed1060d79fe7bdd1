"""The record of labelling: an append-only file of events, from which labels are derived.

One JSON object per line. Nothing is ever rewritten: taking a label back is an event of its own.

label    a choice between two answers (fields: see `session.PreferenceSession`)
rating   a thumb for one answer (see `session.RatingSession`)
undo     takes back the label or rating whose event_id is `target`
amend    changes fields of the label or rating `target`, for text that arrived after the click

An event is one write to a file opened for appending, then fsync, so several processes may write to
the same file without a lock. A process killed in the middle of a write leaves a torn last line; the
next event closes it off, and reading skips and counts it. So are lines of other programs and of
other versions of this format: they stay in the file.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError

SCHEMA = 1
CHOICES = ("a", "b", "tie", "both_bad", "skip")
THUMBS = ("up", "down", "skip")
AMENDABLE = ("rationale", "criteria")

Event = dict[str, Any]

# What a line must hold to be one of our events, and the type of each field.
_COMMON: dict[str, type] = {"event_id": str, "annotator": str}
_ITEM: dict[str, type] = {**_COMMON, "pair_id": str, "choice": str, "prompt": str}
_FIELDS: dict[str, dict[str, type]] = {
    "label": {**_ITEM, "response_a": str, "response_b": str},
    "rating": {**_ITEM, "response": str},
    "undo": {**_COMMON, "target": str},
    "amend": {**_COMMON, "target": str, "changes": dict},
}
# May be missing; if they are there they are of these types.
_OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "strength": (int, type(None)),
    "levels": int,
    "rationale": str,
    "criteria": dict,
    "gold": (str, type(None)),
    "meta": dict,
}
_LEGAL_CHOICES = {"label": CHOICES, "rating": THUMBS}


@dataclass(frozen=True)
class LogReport:
    """What reading a log found. Lines that are not events are skipped and stay in the file.

    Attributes:
        events: lines that count.
        damaged: lines that are not JSON, such as one torn by a crash.
        foreign: JSON that is no event of this log.
        other_schema: events of another version of this format.
        unmatched: undo and amend events whose target is not in the log; they have no effect.
        first: for each kind of skipped line that occurs, the number of its first line, from 1.
    """

    events: int
    damaged: int = 0
    foreign: int = 0
    other_schema: int = 0
    unmatched: int = 0
    first: dict[str, int] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        return self.damaged + self.foreign + self.other_schema

    def __str__(self) -> str:
        kinds = {
            "damaged": "damaged (not JSON)",
            "foreign": "foreign (no event of this log)",
            "other_schema": f"of another version of this format (not {SCHEMA})",
        }
        why = [
            f"{getattr(self, kind)} {says}, first: line {self.first[kind]}"
            for kind, says in kinds.items()
            if getattr(self, kind)
        ]
        text = f"{self.events} events"
        if why:
            text += f"; {self.skipped} lines kept but skipped: {'; '.join(why)}"
        if self.unmatched:
            text += f"; {self.unmatched} undo or amend events without their label"
        return text


class PreferenceLog:
    """An append-only file of labelling events.

    Nothing is read or created before it is needed, and appending never reads the file again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"PreferenceLog({self.path.name!r})"

    def require_writable(self) -> None:
        """Create the file if it is missing and try to open it for writing.

        Raises:
            CourseError: the file cannot be written to. A session asks before the first label.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            os.close(self._open())
            if new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise self._error("Labels cannot be saved in", error) from error

    def append(self, event: Mapping[str, Any]) -> Event:
        """Write one event and return it as written, once it is safely on disk.

        Args:
            event: without ``schema``, ``event_id`` and ``ts``, which are added.

        Raises:
            CourseError: the event did not reach the disk.
        """
        return self.append_all([event])[0]

    def append_all(self, events: Iterable[Mapping[str, Any]]) -> list[Event]:
        """Write several events with one write and one fsync, for imports; see `append`."""
        whole = [
            {
                "schema": SCHEMA,
                "event_id": uuid.uuid4().hex,
                "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
                **event,
            }
            for event in events
        ]
        lines = b"".join(_encode(event) + b"\n" for event in whole)
        try:
            file = self._open()
            try:
                _write_lines(file, lines)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise self._error("This was not saved in", error) from error
        return whole

    def read(self) -> tuple[list[Event], LogReport]:
        """(events in the order they were written, what was skipped). A missing file is empty."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return [], LogReport(0)
        except OSError as error:
            raise self._error("Labels cannot be read from", error) from error
        events: dict[str, Event] = {}
        counts: Counter[str] = Counter()
        first: dict[str, int] = {}
        # On \n only: str.splitlines would also break at U+2028 inside a text.
        for number, line in enumerate(data.split(b"\n"), start=1):
            if not line.strip():
                continue
            event, problem = _decode(line)
            if problem:
                counts[problem] += 1
                first.setdefault(problem, number)
            else:
                events.setdefault(event["event_id"], event)  # a repeated line counts once
        _, unmatched = derive(events.values())
        return list(events.values()), LogReport(
            len(events), unmatched=unmatched, first=first, **counts
        )

    def report(self) -> LogReport:
        """What the file holds now, with counts of the lines that are skipped."""
        return self.read()[1]

    def labels(self, kind: str = "label") -> list[Event]:
        """The labels (or, with ``kind="rating"``, ratings) that hold: see `current_labels`."""
        return current_labels(self.read()[0], kind)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        return os.open(self.path, flags, 0o644)

    def _error(self, what: str, error: OSError) -> CourseError:
        reason = error.strerror or type(error).__name__
        return CourseError(
            f"{what} {self.path} ({reason}): choose a file in a folder you can write to."
        )


def _write_lines(file: int, lines: bytes) -> None:
    """Append in one write, beginning on a line of its own.

    Another process may have died inside its write. That is looked for before the write, and after
    it once more, since it may have died in between; then it is written again, and reading counts
    what stands twice once.
    """
    end = os.lseek(file, 0, os.SEEK_END)
    data = lines if _ends_line(file, end) else b"\n" + lines
    _write(file, data)
    start = os.lseek(file, 0, os.SEEK_CUR) - len(data)
    if data is lines and not _ends_line(file, start):
        _write(file, b"\n" + lines)


def _write(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _ends_line(file: int, position: int) -> bool:
    """Whether the byte before `position` ends a line (the file's beginning counts as well)."""
    if position == 0:
        return True
    os.lseek(file, position - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power failure; not every system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _encode(event: Event) -> bytes:
    try:
        return json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which a model can produce
        return json.dumps(event, allow_nan=False).encode()


def _decode(line: bytes) -> tuple[Event, str]:
    """(event, why it is skipped); the reason is empty for an event of this log."""
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}, "damaged"
    if not isinstance(event, dict) or not {"schema", "event_id", "type"} <= event.keys():
        return {}, "foreign"
    if event["schema"] != SCHEMA:
        return {}, "other_schema"
    if not isinstance(event["type"], str) or event["type"] not in _FIELDS:
        return {}, "foreign"
    return (event, "") if _is_ours(event) else ({}, "foreign")


def _is_ours(event: Event) -> bool:
    """Whether an event has the fields that reading and exporting rely on."""
    for name, kind in _FIELDS[event["type"]].items():
        if not isinstance(event.get(name), kind):
            return False
    for name, kinds in _OPTIONAL.items():
        if name in event and not isinstance(event[name], kinds):
            return False
    legal = _LEGAL_CHOICES.get(event["type"])
    return legal is None or event["choice"] in legal


def derive(events: Iterable[Event]) -> tuple[list[Event], int]:
    """(labels and ratings as they stand after every undo and amend, unmatched events).

    Only the annotator who made a label can take it back or change it.
    """
    standing: dict[str, Event] = {}
    unmatched = 0
    for event in events:
        if event["type"] in _LEGAL_CHOICES:
            standing[event["event_id"]] = event
            continue
        target = standing.get(event["target"])
        if target is None or target["annotator"] != event["annotator"]:
            unmatched += 1
        elif event["type"] == "undo":
            del standing[event["target"]]
        else:
            allowed = {k: v for k, v in event["changes"].items() if k in AMENDABLE}
            standing[event["target"]] = {**target, **allowed}
    return list(standing.values()), unmatched


def current_labels(events: Iterable[Event], kind: str = "label") -> list[Event]:
    """What holds: per annotator and pair the last label that was not taken back."""
    latest: dict[tuple[str, str], Event] = {}
    for event in derive(events)[0]:
        if event["type"] == kind:
            latest[event["annotator"], event["pair_id"]] = event
    return list(latest.values())
