"""The rows a method is trained on: checked, fitted to a length limit, in TRL's columns."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError
from course_utils.preference.pairs import (
    prepare_pairs,
    require_both_labels,
    too_long,
    unpair,
    with_room,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def training_rows(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    method: str = "dpo",
    seed: int = 0,
) -> Dataset:
    """The rows a method is trained on, in TRL's columns.

    Pairs come sorted by length, which saves padding while the reference reads them; the trainer
    draws its own order. KTO gets thumbs, shuffled. A warning counts what is left out or cut.

    Raises:
        CourseError: rows of no accepted form, nothing left to learn from, or one kind of thumb.
    """
    from datasets import Dataset

    given = [dict(row) for row in rows]
    if method == "kto" and given and "label" in given[0]:
        usable = _thumbs(given)
    else:
        usable, report = prepare_pairs(given, tokenizer)
        if report.left_out:
            warnings.warn(f"{report}.", stacklevel=2)
        if method == "kto":
            usable = unpair(usable)
    lengths = too_long(usable, tokenizer, max_length)
    if any(lengths.cut.values()):
        warnings.warn(f"{lengths}.", stacklevel=2)
    if lengths.no_room:
        usable = with_room(usable, tokenizer, max_length)
    if method == "kto":
        require_both_labels(usable)
    if not usable:
        raise CourseError(f"No prompt leaves room for a response in {max_length} tokens.")
    if method == "kto":  # TRL reads thumbs in their order: all thumbs up would come first
        return Dataset.from_list(usable).shuffle(seed=seed)
    pairs = [{**row, "length": _characters(row)} for row in usable]
    return Dataset.from_list(sorted(pairs, key=itemgetter("length")))


def _characters(row: Mapping[str, str]) -> int:
    """How long a pair is, near enough to put pairs of like length into a batch."""
    return len(row["prompt"]) + max(len(row["chosen"]), len(row["rejected"]))


def _thumbs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = ("prompt", "completion", "label")
    for number, row in enumerate(rows):
        texts = [row.get(name) for name in columns[:2]]
        if not all(isinstance(t, str) and t.strip() for t in texts) or "label" not in row:
            raise CourseError(
                f"Row {number}: a thumb has the columns prompt and completion, neither empty, "
                "and label (True for a thumb up)."
            )
    return [{name: row[name] for name in columns} for row in rows]
