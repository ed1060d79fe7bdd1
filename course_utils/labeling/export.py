"""From the log to training data, and from other people's files into the log.

Training rows are prompt, chosen, rejected (with a margin) for reward models and DPO, or prompt,
completion, label for KTO. What cannot be learnt from is left out and counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.data import read_jsonl
from course_utils.errors import CourseError, unknown_name
from course_utils.labeling.aggregate import Verdict, aggregate_labels
from course_utils.labeling.items import PAIR_COLUMNS, content_id, in_blind_order, printable
from course_utils.labeling.log import Event, PreferenceLog
from course_utils.preference.pairs import PairReport, prepare_pairs, unpair

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from course_utils.labeling.session import PreferenceSession, RatingSession

    Source = PreferenceLog | PreferenceSession | RatingSession | str | os.PathLike[str]

IMPORTED_AT_ONCE = 1_000
REASONS = {
    "tie": "ties",
    "both_bad": "both bad",
    "skip": "skipped",
    "attention": "attention checks",
    "split": "with annotators evenly split",
}


@dataclass(frozen=True)
class ExportReport:
    """What became of the labelled items (pairs, or answers with a thumb).

    Attributes:
        kept: items that can be learnt from.
        rows: training rows made of them; a pair makes two thumbs.
        tie, both_bad, skip: left out since this was the verdict; a pair skipped by one annotator
            and labelled by another is not skipped.
        attention: left out, attention checks.
        split: left out, as many annotators for as against.
    """

    kept: int
    rows: int
    tie: int = 0
    both_bad: int = 0
    skip: int = 0
    attention: int = 0
    split: int = 0

    @property
    def left_out(self) -> int:
        return self.tie + self.both_bad + self.skip + self.attention + self.split

    def __str__(self) -> str:
        text = f"{self.kept} of {self.kept + self.left_out} labelled items kept"
        why = [f"{getattr(self, k)} {says}" for k, says in REASONS.items() if getattr(self, k)]
        return f"{text}; left out: {', '.join(why)}" if why else text


# Out of the log


def to_preferences(
    source: Source, *, annotators: Sequence[str] | None = None, method: str = "majority"
) -> tuple[Dataset, ExportReport]:
    """Labels as pairs for reward models and DPO: (data set, what was left out).

    Args:
        source: a log or its path, with all annotators' labels, or a session, with its own.
        annotators: take these only.
        method: how several labels of a pair become one, see `aggregate_labels`.

    Returns:
        Columns ``prompt``, ``chosen``, ``rejected``; ``margin`` from 0 to 1, how clearly, see
        `Verdict` (TRL's `RewardTrainer` reads it); ``votes``, the share of the labels for a or b
        that were for `chosen`; ``pair_id``.

    Raises:
        CourseError: no pair is left.
    """
    from datasets import Dataset

    rows, report = preference_rows(_labels(source, "label", annotators), method)
    if not rows:
        raise CourseError(f"No pair can be learnt from ({report}): label some more.")
    return Dataset.from_list(rows), report


def preference_rows(
    labels: list[Event], method: str = "majority"
) -> tuple[list[dict[str, Any]], ExportReport]:
    """The same from labels at hand, as a list, which may be empty."""
    verdicts, left_out = _verdicts(labels, method)
    decided = [v for v in verdicts if v.choice in ("a", "b")]
    left_out.update(v.choice or "split" for v in verdicts if v.choice not in ("a", "b"))
    report = ExportReport(len(decided), len(decided), **left_out)
    return [_pair_row(verdict) for verdict in decided], report


def to_thumbs(
    source: Source,
    *,
    annotators: Sequence[str] | None = None,
    method: str = "majority",
    pairs: bool = True,
) -> tuple[Dataset, ExportReport]:
    """Ratings, and pairs if wanted, as thumbs for KTO: (data set, what was left out).

    A decided pair gives a thumb up and a thumb down, a pair both of whose answers are bad two
    thumbs down. A tie says nothing about whether both are good, and is left out.

    Args:
        pairs: take labelled pairs as well as ratings.

    Returns:
        Columns ``prompt``, ``completion``, ``label`` (True for a thumb up).

    Raises:
        CourseError: no row is left.
    """
    from datasets import Dataset

    thumbs, kept, left_out = _rated(_labels(source, "rating", annotators))
    if pairs:
        verdicts, more = _verdicts(_labels(source, "label", annotators), method)
        usable = [v for v in verdicts if v.choice in ("a", "b", "both_bad")]
        more.update(v.choice or "split" for v in verdicts if v.choice not in ("a", "b", "both_bad"))
        left_out.update(more)
        kept += len(usable)
        decided = [_pair_row(v) for v in usable if v.choice != "both_bad"]
        thumbs += unpair(decided) if decided else []
        thumbs += [row for v in usable if v.choice == "both_bad" for row in _both_down(v)]
    report = ExportReport(kept, len(thumbs), **left_out)
    if not thumbs:
        raise CourseError(f"No thumb can be learnt from ({report}): label some more.")
    return Dataset.from_list(thumbs), report


def _labels(source: Source, kind: str, annotators: Sequence[str] | None) -> list[Event]:
    """The labels that hold; a session stands for its own."""
    if isinstance(source, PreferenceLog | str | os.PathLike):
        log = source if isinstance(source, PreferenceLog) else PreferenceLog(source)
        if not log.path.is_file():
            raise CourseError(f"There is no log {log.path.name}: label first.")
        found = log.labels(kind)
    else:
        found = source.labels if source.kind == kind else []
    if annotators is None:
        return found
    known = sorted({label["annotator"] for label in found})
    for name in annotators:
        if name not in known and kind == "label":
            raise unknown_name("annotator", name, known)
    return [label for label in found if label["annotator"] in annotators]


def _verdicts(labels: list[Event], method: str) -> tuple[list[Verdict], Counter[str]]:
    """Verdicts on pairs that are no attention checks; counts of these and of skipped pairs."""
    checks = {e["pair_id"] for e in labels if e.get("gold") is not None}
    asked = [e for e in labels if e["pair_id"] not in checks]
    verdicts = list(aggregate_labels(asked, method).values())
    skipped = len({e["pair_id"] for e in asked}) - len(verdicts)
    return verdicts, Counter(_nonzero(attention=len(checks), skip=skipped))


def _nonzero(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _pair_row(verdict: Verdict) -> dict[str, Any]:
    label, other = verdict.labels[0], {"a": "b", "b": "a"}[verdict.choice]
    choices = Counter(e["choice"] for e in verdict.labels)
    decided = choices["a"] + choices["b"]
    return {
        "prompt": printable(label["prompt"]),
        "chosen": printable(label[f"response_{verdict.choice}"]),
        "rejected": printable(label[f"response_{other}"]),
        "margin": verdict.margin,
        "votes": choices[verdict.choice] / decided,
        "pair_id": label["pair_id"],
    }


def _both_down(verdict: Verdict) -> list[dict[str, Any]]:
    label = verdict.labels[0]
    return [_thumb(label["prompt"], label[side], False) for side in PAIR_COLUMNS[1:]]


def _thumb(prompt: str, completion: str, label: bool) -> dict[str, Any]:
    return {"prompt": printable(prompt), "completion": printable(completion), "label": label}


def _rated(ratings: list[Event]) -> tuple[list[dict[str, Any]], int, Counter[str]]:
    """(thumbs, answers kept, answers left out), by majority of the annotators."""
    by_answer: dict[str, list[Event]] = {}
    for rating in ratings:
        by_answer.setdefault(rating["pair_id"], []).append(rating)
    thumbs = []
    left_out: Counter[str] = Counter()
    for group in by_answer.values():
        choices = Counter(rating["choice"] for rating in group)
        if any(rating.get("gold") is not None for rating in group):
            left_out["attention"] += 1
        elif choices["up"] == choices["down"]:
            left_out["split" if choices["up"] else "skip"] += 1
        else:
            up = choices["up"] > choices["down"]
            thumbs.append(_thumb(group[0]["prompt"], group[0]["response"], up))
    return thumbs, len(thumbs), left_out


# Into the log


@dataclass(frozen=True)
class ImportReport:
    """What became of an imported file.

    Attributes:
        written: labels added to the log.
        already: rows whose texts this annotator has labelled before, in the log or in the file.
        pairs: what `prepare_pairs` left out; None for a file of thumbs.
    """

    written: int
    already: int
    pairs: PairReport | None = None

    def __str__(self) -> str:
        text = f"{self.written} labels written"
        if self.already:
            text += f", {self.already} already there"
        return f"{text}; {self.pairs}" if self.pairs else text


def unlabelled_pairs(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[list[dict[str, Any]], PairReport]:
    """Pairs of somebody else's data as rows to label afresh: (rows, what was left out).

    Args:
        source: a JSONL file, or rows, in a form that `prepare_pairs` takes: hh-rlhf's dialogues,
            TRL's prompt/chosen/rejected as text or, with `tokenizer`, as chat messages.

    Returns:
        Rows with prompt, response_a and response_b; the order of the answers comes from their
        text alone and does not give away which one was chosen.
    """
    pairs, report = prepare_pairs(_rows(source), tokenizer)
    rows = []
    for pair in pairs:
        a, b = in_blind_order(pair["chosen"], pair["rejected"])
        rows.append({"prompt": pair["prompt"], "response_a": a, "response_b": b})
    return rows, report


def import_labels(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    annotator: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> ImportReport:
    """Add existing labels to a log, under a name of their own; importing twice changes nothing.

    Args:
        source: as in `unlabelled_pairs`, or rows with prompt, completion and label (KTO's thumbs).
            A margin is not taken over: every choice gets the only strength of a scale of one.
        path: the log.
        annotator: for example ``"hh-rlhf"``.
    """
    rows = _rows(source)
    log = PreferenceLog(path)
    log.require_writable()
    report: PairReport | None = None
    if rows and "completion" in rows[0]:
        labels = [_rating_event(row, number) for number, row in enumerate(rows)]
    else:
        pairs, report = prepare_pairs(rows, tokenizer)
        labels = [_label_event(pair) for pair in pairs]
    kind = labels[0]["type"] if labels else "label"
    seen = {e["pair_id"] for e in log.labels(kind) if e["annotator"] == annotator}
    new = []
    for label in labels:
        if label["pair_id"] not in seen:
            new.append({**label, "annotator": annotator, "via": "import"})
            seen.add(label["pair_id"])
    for start in range(0, len(new), IMPORTED_AT_ONCE):
        log.append_all(new[start : start + IMPORTED_AT_ONCE])
    return ImportReport(len(new), len(labels) - len(new), report)


def _rows(source: str | os.PathLike[str] | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(source, str | os.PathLike):
        return read_jsonl(Path(source))
    return [dict(row) for row in source]


def _label_event(pair: Mapping[str, str]) -> Event:
    a, b = in_blind_order(pair["chosen"], pair["rejected"])
    return {
        "type": "label",
        "pair_id": content_id(pair["prompt"], a, b),
        "choice": "a" if a == pair["chosen"] else "b",
        "strength": 1,
        "levels": 1,
        "prompt": pair["prompt"],
        "response_a": a,
        "response_b": b,
    }


def _rating_event(row: Mapping[str, Any], number: int) -> Event:
    texts = [row.get("prompt"), row.get("completion")]
    if not all(isinstance(text, str) and text.strip() for text in texts) or "label" not in row:
        raise CourseError(
            f"Row {number}: a thumb has prompt and completion, text that is not empty, and label."
        )
    prompt, response = (str(text) for text in texts)
    return {
        "type": "rating",
        "pair_id": content_id(prompt, response),
        "choice": "up" if row["label"] else "down",
        "prompt": prompt,
        "response": response,
    }
