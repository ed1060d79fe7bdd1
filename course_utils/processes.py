"""Which process of several this is, when `accelerate launch` started it, and what they agree on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import CourseError

if TYPE_CHECKING:
    from datasets import Dataset

    from ._setup import Course

T = TypeVar("T")

PARTING_SECONDS = 1.0


def count() -> int:
    """How many processes work together; 1 without `accelerate launch`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """True for the one process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def is_sharded() -> bool:
    """True when `accelerate` spreads each weight over the processes (FSDP or DeepSpeed)."""
    return any(
        os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"
        for name in ("FSDP", "DEEPSPEED")
    )


def share(batch_size: int, accumulation: int) -> tuple[int, int]:
    """(batch size, accumulation) of each process, so that a step sees as many examples as with one.

    Fewer passes are added up before smaller ones are made.

    Raises:
        CourseError: a step's examples cannot be shared out evenly.
    """
    fewer = gcd(accumulation, count())
    batches, rest = divmod(batch_size, count() // fewer)
    if rest:
        raise CourseError(
            f"A step of {batch_size * accumulation} examples cannot be shared by {count()} "
            f"processes: start a number of them that divides {batch_size * accumulation}."
        )
    return batches, accumulation // fewer


def agree(value: Callable[[], T], course: Course) -> T:
    """The main process's `value()`, for all of them. Every process has to come here."""
    if count() == 1:
        return value()
    from accelerate.utils import broadcast_object_list

    _state(course)
    answer: list[Any] = broadcast_object_list([value() if is_main() else None])
    return answer[0]


def wait(course: Course) -> None:
    """Go on when every process has come here."""
    if count() > 1:
        _state(course).wait_for_everyone()


def shared_rows(rows: Dataset, folder: str, course: Course) -> Dataset:
    """The rows read from one place by all processes: the main one's `folder`.

    TRL has one process write the reference's log-probabilities beside the data and the others read
    them there; for data in memory each process would look in a place of its own.
    """
    if count() == 1:
        return rows
    from datasets import load_from_disk

    place = agree(lambda: str(Path(folder) / "rows"), course)
    if is_main():
        rows.save_to_disk(place)
    wait(course)
    return load_from_disk(place)


def take_own_gpu() -> None:
    """Make ``cuda`` mean this process's own card."""
    import torch

    if count() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def part() -> None:
    """Leave time for this process's threads to let go of what they sent, before Python ends.

    gloo's threads free tensors under Python's lock. One that still waits for the lock when Python
    ends aborts the process, seen in one of 16 runs (torch 2.13); taking the process group down
    instead waits for that thread for ever, with the lock held.
    """
    if count() > 1:
        time.sleep(PARTING_SECONDS)


def _state(course: Course) -> Any:
    from accelerate import PartialState

    return PartialState(cpu=course.device == "cpu")
