"""Reading data files as they are published: JSON lines or a JSON array, plain or gzip.

What the rows mean is the business of formats.py. Every error names the file and the line.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .errors import CourseError

Row = dict[str, Any]
Numbered = list[tuple[str, Row]]  # ("line 3", row)
SUFFIXES = (".json", ".jsonl", ".gz")
GZIP = b"\x1f\x8b"  # what every gzip file begins with
POINTER = b"version https://git-lfs"  # what git leaves where Git LFS is not installed
CHUNK = 1 << 20


def is_path(source: str | Path) -> bool:
    """True for a file or folder, or what looks like one; else it is taken for a hub id."""
    if isinstance(source, Path):
        return True
    return source.endswith(SUFFIXES) or source[:1] in "/.~" or Path(source).exists()


def open_source(source: str | Path) -> dict[str, Callable[[], Numbered]]:
    """The parts of a data set, each with what reads it: ``train``, and ``test`` if there is one.

    Args:
        source: a file (one part, ``train``); a folder with files named ``train.jsonl``,
            ``test.jsonl.gz`` and the like, in it or one folder below, as hh-rlhf is published; or
            the id of a data set on the hub.

    Raises:
        CourseError: there is no such file, folder or data set, or the hub cannot be reached.
    """
    if not is_path(source):
        return _open_hub(str(source))
    path = Path(source).expanduser()
    if not path.is_dir():
        return {"train": partial(numbered_rows, path)}
    parts = {name: _files(path, name) for name in ("train", "test")}
    if not parts["train"]:
        raise CourseError(
            f"The folder {path.name} holds no train.jsonl, train.json or train.jsonl.gz: "
            "give the path of a file."
        )
    return {name: partial(_all_rows, files) for name, files in parts.items() if files}


def fingerprint(source: str | Path) -> str:
    """Which data: a hash of the files, or the hub id."""
    if not is_path(source):
        return str(source)
    path = Path(source).expanduser()
    digest = hashlib.sha256()
    for file in _files(path, "train") if path.is_dir() else [path]:
        digest.update(_bytes(file))
    return digest.hexdigest()[:16]


def _files(folder: Path, name: str) -> list[Path]:
    found = [*folder.glob(f"{name}.json*"), *folder.glob(f"*/{name}.json*")]
    return sorted(path for path in found if path.name.endswith(SUFFIXES))


def _all_rows(files: list[Path]) -> Numbered:
    rows = []
    for path in files:
        rows += [(f"{path.name}, {where}", row) for where, row in numbered_rows(path)]
    return rows


def _open_hub(name: str) -> dict[str, Callable[[], Numbered]]:
    from datasets import load_dataset

    try:
        sets = load_dataset(name)
    except Exception as error:  # whatever the network layer of the day raises
        raise CourseError(
            f"The data set {name} could not be loaded from the hub ({type(error).__name__}): "
            "check its name and the connection, or give the path of a file."
        ) from error
    if "train" not in sets:
        raise CourseError(
            f"The data set {name} has no part called train; it has {', '.join(sets)}: "
            "give the path of a file instead."
        )
    return {part: partial(_hub_rows, sets[part]) for part in ("train", "test") if part in sets}


def _hub_rows(rows: Any) -> Numbered:
    return [(f"row {number}", row) for number, row in enumerate(rows)]


def numbered_rows(path: Path) -> Numbered:
    """The objects of a file of JSON lines or of one JSON array, each with where it stands.

    Raises:
        CourseError: the file is missing, empty, torn, not UTF-8 or not JSON, or holds something
            else than objects.
    """
    text = _text(path)
    rows = _array(path, text) if text.lstrip().startswith("[") else _lines(path, text)
    if not rows:
        raise CourseError(f"{path.name} is empty: expected one JSON object per line, or an array.")
    for where, row in rows:
        if not isinstance(row, dict):
            raise CourseError(
                f"{path.name}, {where}: expected an object, found {type(row).__name__}."
            )
    return rows


def _lines(path: Path, text: str) -> list[tuple[str, Any]]:
    rows = []
    # Split on \n only: str.splitlines would also break at U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((f"line {number}", json.loads(line)))
        except json.JSONDecodeError as error:
            raise CourseError(
                f"{path.name}, line {number}, is not JSON: {error.msg}. "
                "Expected is one object per line, or one array of objects."
            ) from error
    return rows


def _array(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise CourseError(
            f"{path.name}, line {error.lineno}, is not JSON: {error.msg}. "
            "The file begins as an array, so it must be one."
        ) from error
    return [(f"item {number}", item) for number, item in enumerate(items, start=1)]


def _text(path: Path) -> str:
    raw = _bytes(path)
    if raw.startswith(POINTER):
        raise CourseError(
            f"{path.name} is a Git LFS pointer, not the data: run `git lfs pull` in its folder."
        )
    if raw.startswith(GZIP):
        raw = _unpacked(path)
    try:
        return raw.decode("utf-8-sig")  # with or without the mark that Windows puts first
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise CourseError(f"{path.name}, line {number}, is not UTF-8 text.") from error


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise CourseError(f"There is no file {path.name} in {path.parent.name}/.")
    return path.read_bytes()


def _unpacked(path: Path) -> bytes:
    whole = bytearray()
    try:
        with gzip.open(path) as file:
            while chunk := file.read1(CHUNK):
                whole += chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        number = whole.count(b"\n") + 1
        raise CourseError(
            f"{path.name} is torn: its gzip data break off at line {number}. Download it again."
        ) from error
    return bytes(whole)
