"""Which files were submitted, and by whom.

Students are known by folder (``Ada Ñandú/02_sft.ipynb``, at any depth below the student's folder)
or, for files that lie loose, by the rest of the name (``02_sft_ada.ipynb``, else ``ada.ipynb``).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import unicodedata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from course_utils.errors import CourseError

IGNORED = ("__MACOSX", ".ipynb_checkpoints")
ZIP_FILES = 10_000
COPY = re.compile(r"(?: ?\(\d+\)|-Copy\d+| - Copy| copy)+$")


@dataclass
class Submission:
    """One submitted file.

    Attributes:
        student: as the folder or the file names them.
        path: the file.
        shown: its path inside what was given.
        when: time of its last change, in seconds; from the zip's list for a zip.
        hint: the chapter that the file's name says, or "".
        problem: why it cannot be read, if so.
    """

    student: str
    path: Path
    shown: str
    when: float
    hint: str = ""
    problem: str = ""
    flags: list[str] = field(default_factory=list)


def collect(given: Path, scratch: Path, chapters: Iterable[str], largest: int) -> list[Submission]:
    """Every notebook in a folder or a zip file, sorted by student and file.

    Args:
        given: the folder or zip.
        scratch: a zip is unpacked here.
        chapters: stems that file names may contain.
        largest: bytes; a larger member of a zip is not unpacked.

    Raises:
        CourseError: there is nothing to grade.
    """
    if not given.exists():
        raise CourseError(f"{given} does not exist: give a folder or zip file of notebooks.")
    if given.is_dir():
        found = [(path.relative_to(given).parts, path, "") for path in sorted(_notebooks(given))]
    elif zipfile.is_zipfile(given):
        found = _unzip(given, scratch, largest)
    else:
        raise CourseError(f"{given} is neither a folder nor a zip file of notebooks.")
    if not found:
        raise CourseError(
            f"{given} holds no .ipynb file: give a folder with student/chapter.ipynb or "
            "chapter_student.ipynb."
        )
    skip = _wrapping([parts for parts, _, _ in found])
    stems = sorted(chapters)
    return [_submission(parts[skip:], path, problem, stems) for parts, path, problem in found]


def _notebooks(folder: Path) -> Iterable[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _ignored(name)]
        for name in names:
            if name.lower().endswith(".ipynb") and not _ignored(name):
                yield Path(where) / name


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


def _unzip(given: Path, scratch: Path, largest: int) -> list[tuple[tuple[str, ...], Path, str]]:
    found = []
    with zipfile.ZipFile(given) as archive:
        members = [m for m in archive.infolist() if m.filename.lower().endswith(".ipynb")]
        if len(members) > ZIP_FILES:
            raise CourseError(f"{given.name} holds {len(members)} notebooks: split it.")
        for number, member in enumerate(members):
            parts = PurePosixPath(member.filename.replace("\\", "/")).parts
            parts = tuple(part for part in parts if part not in ("/", "..", "."))
            if any(_ignored(part) for part in parts):
                continue
            target = scratch / f"{number}.ipynb"  # our own name: theirs may point anywhere
            problem = ""
            if member.file_size > largest:
                problem = f"the file has {member.file_size / 2**20:.0f} MB, too large to be read"
                target.touch()
            else:
                try:
                    with archive.open(member) as source, target.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
                except (zipfile.BadZipFile, RuntimeError, OSError) as error:
                    problem = f"cannot be unpacked ({error})"
                    target.touch()
            stamp = time.mktime((*member.date_time, 0, 0, -1))
            os.utime(target, (stamp, stamp))
            found.append((parts, target, problem))
    return sorted(found, key=lambda entry: entry[0])


def _wrapping(paths: list[tuple[str, ...]]) -> int:
    """1 when everything lies in one folder that holds several students' folders, else 0."""
    one = len({parts[0] for parts in paths}) == 1 and all(len(parts) > 2 for parts in paths)
    return int(one and len({parts[1] for parts in paths}) > 1)


def _submission(parts: tuple[str, ...], path: Path, problem: str, stems: list[str]) -> Submission:
    stem = COPY.sub("", Path(parts[-1]).stem)
    hint = next((s for s in reversed(stems) if re.match(rf"{s}(?![a-z0-9])", stem)), "")
    if len(parts) > 1:
        student = parts[0]
    elif hint:
        student = stem[len(hint) :].strip(" _-.") or "unnamed"
    else:
        student = stem
    student = unicodedata.normalize("NFC", student).strip() or "unnamed"
    if not path.is_file():  # a link to nowhere, or something that never ends
        problem = "it is not a file that can be read: copy the notebook itself into its place"
    return Submission(student, path, "/".join(parts), path.lstat().st_mtime, hint, problem)


def safe_id(student: str) -> str:
    """A name that nbgrader and a file system can take; different students stay different."""
    plain = re.sub(r"[^\w .@-]", "_", student).strip(" .")[:60].strip(" .")
    if plain == student and plain == plain.lower():
        return plain
    mark = hashlib.sha256(student.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{plain or 'student'}-{mark}"
