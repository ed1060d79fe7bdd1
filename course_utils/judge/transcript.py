"""Every answered call, one JSON line each: the record of a run, and its cache.

A record's key is the hash of (base URL, model, messages, parameters, salt): whatever changes the
question changes the key, so that a file written under another rubric simply does not match. Only
replies that could be used are written, never a failure, and never the API key.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError

from .wire import bare_url


def request_key(
    base_url: str,
    model: str,
    messages: Sequence[Mapping[str, str]],
    parameters: Mapping[str, Any],
    salt: str = "",
) -> str:
    """SHA-256 of what was asked, and of whom, in hexadecimal."""
    question = [bare_url(base_url), model, list(messages), dict(parameters), salt]
    text = json.dumps(question, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Transcript:
    """Answered calls by key, in memory and, with a path, in an append-only file.

    Attributes:
        path: the JSONL file, or None to remember only while this object lives.
        records: key -> record.
        source: who made the file, from its first line, where that says so.
        torn: lines of the file that could not be read, such as the last one of a killed run.
        used: keys that this session has asked for and found.
    """

    path: Path | None = None
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    source: str = ""
    torn: int = 0
    used: set[str] = field(default_factory=set)
    _loaded: int = 0
    _ends_torn: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, path: str | Path | None) -> Transcript:
        """A transcript over `path`; the file need not exist yet.

        Raises:
            CourseError: the path is a folder or cannot be read.
        """
        transcript = cls(Path(path).expanduser() if path is not None else None)
        if transcript.path is not None:
            transcript._load(transcript.path)
        return transcript

    def _load(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise CourseError(
                f"The transcript {path} cannot be read ({error.strerror}): name another file."
            ) from error
        for line in content.splitlines():
            if line.strip():
                self._take(line)
        self._loaded = len(self.records)
        self._ends_torn = bool(content) and not content.endswith(b"\n")

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            if "transcript" in record:
                self.source = str(record.get("source", ""))
            elif isinstance(record["text"], str):
                self.records[record["key"]] = record
            else:
                self.torn += 1
        except (ValueError, KeyError, TypeError):
            self.torn += 1

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key, which then counts as used."""
        record = self.records.get(key)
        if record is not None:
            self.used.add(key)
        return record

    def add(self, record: Mapping[str, Any]) -> None:
        """Remember a record, with the time, and append it to the file at once."""
        stamped = {**record, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        with self._lock:
            self.records[stamped["key"]] = stamped
            self.used.add(stamped["key"])
            if self.path is not None:
                self._append(json.dumps(stamped, ensure_ascii=True))

    def _append(self, line: str) -> None:
        assert self.path is not None
        start = "\n" if self._ends_torn else ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write of one line to a file opened for appending: two processes do not interleave.
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, f"{start}{line}\n".encode())
            finally:
                os.close(handle)
        except OSError as error:
            raise CourseError(
                f"The transcript {self.path} cannot be written ({error.strerror}): free some space "
                "or name another file."
            ) from error
        self._ends_torn = False

    @property
    def unused(self) -> int:
        """Records that nobody has asked for: of another rubric, model or set of pairs."""
        return len(self.records.keys() - self.used)
