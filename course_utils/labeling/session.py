"""A person's way through the items: which comes next, on which side, what was said. No widgets.

A session writes events to a `PreferenceLog` and derives everything else from it, so it resumes
from the file after a crash. Several annotators share one file, each with a session of their own:
a session looks at its own annotator's labels only.

Fields of a label, beside ``schema``, ``event_id``, ``ts`` and ``type``: ``pair_id`` (content hash),
``annotator``, ``choice`` (a, b, tie, both_bad or skip: by CONTENT, whatever the side), ``strength``
(1 to ``levels`` for a or b, else null), ``left`` (which answer stood on the left), ``rationale``,
``criteria`` (a, b or tie for each that was answered), ``via`` (how it was entered), ``seconds``
(since the item was shown), ``n_shown`` (items shown in this session so far, this one included),
``gold`` (what an attention check expects, else null), the texts and ``meta``. A rating has
``choice`` up, down or skip, and no side, strength or criteria.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from course_utils.errors import CourseError, unknown_name
from course_utils.labeling.items import Answer, ItemReport, Pair, read_answers, read_pairs
from course_utils.labeling.log import (
    CHOICES,
    THUMBS,
    Event,
    LogReport,
    PreferenceLog,
    current_labels,
)

CRITERIA = ("helpful", "harmless", "honest")
VERDICTS = ("a", "b", "tie")  # what one criterion can say
LEVELS = (1, 3)
BLOCK = ("a", "a", "b", "b")  # of four neighbouring items two show answer a on the left

T = TypeVar("T", Pair, Answer)


class _Session(Generic[T]):
    """What labelling and rating share: order, resuming, undo, amend, progress."""

    kind = ""

    def __init__(
        self,
        items: list[T],
        report: ItemReport,
        path: str | os.PathLike[str],
        annotator: str,
        seed: int,
        clock: Callable[[], float],
    ) -> None:
        if not isinstance(annotator, str) or not annotator.strip():
            raise CourseError("An annotator needs a name, for example annotator='me'.")
        self.log = PreferenceLog(path)
        self.log.require_writable()
        self.annotator, self.report, self._clock = annotator, report, clock
        self._items: list[T] = list(items)
        random.Random(f"{seed}-{annotator}-order").shuffle(self._items)
        self._place: dict[str, int] = {
            item.pair_id: place for place, item in enumerate(self._items)
        }
        events, log_report = self.log.read()
        self.log_report: LogReport = log_report
        own = [e for e in current_labels(events, self.kind) if e["annotator"] == annotator]
        # In the order in which they were made: undo takes the last.
        self._labels = {e["pair_id"]: e for e in own if e["pair_id"] in self._place}
        self.resumed = len(self._labels)
        self.elsewhere = len(own) - self.resumed
        self._at = 0
        self.n_shown = 0
        self._show_next()

    def __str__(self) -> str:
        return f"{self.done} of {self.total} labelled by {self.annotator}"

    # Where we are

    @property
    def total(self) -> int:
        """Items of this session."""
        return len(self._items)

    @property
    def done(self) -> int:
        """Items with a label that is on disk (skipped ones included)."""
        return len(self._labels)

    @property
    def finished(self) -> bool:
        return self.done == self.total

    @property
    def labels(self) -> list[Event]:
        """This annotator's labels that hold, in the order they were made."""
        return list(self._labels.values())

    @property
    def counts(self) -> dict[str, int]:
        """How often each choice was made."""
        return dict(Counter(label["choice"] for label in self._labels.values()))

    @property
    def attention(self) -> tuple[int, int]:
        """(attention checks answered as expected, attention checks answered), without skips."""
        checks = [e for e in self.labels if e.get("gold") and e["choice"] != "skip"]
        return sum(e["choice"] == e["gold"] for e in checks), len(checks)

    @property
    def current_item(self) -> T | None:
        """The item being shown; None when all are labelled."""
        return None if self.finished else self._items[self._at]

    @property
    def seconds_shown(self) -> float:
        """How long the current item has been shown."""
        return self._clock() - self._shown_at

    def restart_clock(self) -> None:
        """Say that the current item has only now come into view."""
        self._shown_at = self._clock()

    def _show_next(self) -> None:
        """Go to the next item without a label; those before come last."""
        for step in range(self.total):
            place = (self._at + step) % self.total
            if self._items[place].pair_id not in self._labels:
                self._show(place)
                return

    def _show(self, place: int) -> None:
        self._at = place
        self.n_shown += 1
        self.restart_clock()

    # Events

    def _write(self, choice: str, rationale: str, via: str, **fields: Any) -> Event:
        item = self.current_item
        if item is None:
            raise CourseError(f"All {self.total} items are labelled: nothing is left to decide.")
        event = self.log.append(
            {
                "type": self.kind,
                "pair_id": item.pair_id,
                "annotator": self.annotator,
                "choice": choice,
                **fields,
                "rationale": rationale,
                "via": via,
                "seconds": round(self.seconds_shown, 3),
                "n_shown": self.n_shown,
                "gold": item.gold,
                **item.texts,
                "meta": item.meta,
            }
        )
        self._labels[item.pair_id] = event
        self._show_next()
        return event

    def undo(self) -> Event | None:
        """Take back the last label and show its item again; None when there is none."""
        if not self._labels:
            return None
        last = next(reversed(self._labels.values()))
        self.log.append({"type": "undo", "annotator": self.annotator, "target": last["event_id"]})
        del self._labels[last["pair_id"]]
        self._show(self._place[last["pair_id"]])
        return last

    def amend(self, label: Event, **changes: Any) -> Event | None:
        """Change ``rationale`` or ``criteria`` of a label made before.

        Returns:
            The label as it now stands; None when it was taken back in the meantime.

        Raises:
            CourseError: another field; a choice is changed by `undo` and a new choice.
        """
        for name in changes:
            if name not in self._amendable:
                raise unknown_name("field to amend", name, self._amendable)
        self._check_criteria(changes.get("criteria", {}))
        standing = self._labels.get(label["pair_id"])
        if standing is None or standing["event_id"] != label["event_id"]:
            return None
        new = {k: v for k, v in changes.items() if standing.get(k) != v}
        if new:
            self.log.append(
                {
                    "type": "amend",
                    "annotator": self.annotator,
                    "target": label["event_id"],
                    "changes": new,
                }
            )
            self._labels[label["pair_id"]] = {**standing, **new}
        return self._labels[label["pair_id"]]

    _amendable: Sequence[str] = ("rationale",)

    def _check_criteria(self, criteria: Mapping[str, str]) -> None:
        """Raise CourseError for a criterion this session does not ask for."""


@dataclass(frozen=True)
class Shown:
    """A pair as an annotator sees it: `left` says which answer stands on the left."""

    pair: Pair
    left: str

    @property
    def right(self) -> str:
        return "b" if self.left == "a" else "a"

    @property
    def left_text(self) -> str:
        return self.pair.texts[f"response_{self.left}"]

    @property
    def right_text(self) -> str:
        return self.pair.texts[f"response_{self.right}"]

    def content(self, side: str) -> str:
        """The answer, a or b, on the ``left`` or ``right``."""
        if side not in ("left", "right"):
            raise unknown_name("side", side, ("left", "right"))
        return self.left if side == "left" else self.right


class PreferenceSession(_Session[Pair]):
    """One annotator comparing pairs of answers.

    Order and sides depend on seed and annotator only. Sides are balanced in permuted blocks of
    four: of each four neighbouring items two show answer a on the left.

    Args:
        pairs: rows with prompt, response_a, response_b, see `items`.
        path: the log, made if it is missing; what stands in it is taken up.
        annotator: whose labels these are.
        seed: decides order and sides.
        clock: seconds, only differences matter.
        levels: how strengths are graded: 1 asks for none, 3 makes a seven-point scale.
        criteria: what may be judged by itself.

    Attributes:
        report: rows that were left out, and why.
        log_report: lines of the log that were skipped, and why.
        resumed: labels found in the log.
        elsewhere: this annotator's labels in the log for pairs that are not in this session.

    Raises:
        CourseError: rows of another form, nothing to label, or a log that cannot be written.
    """

    kind = "label"
    _amendable = ("rationale", "criteria")

    def __init__(
        self,
        pairs: Iterable[Mapping[str, Any] | Pair],
        path: str | os.PathLike[str],
        annotator: str = "me",
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        *,
        levels: int = 3,
        criteria: Sequence[str] = CRITERIA,
    ) -> None:
        if levels not in LEVELS:
            raise CourseError(
                f"levels is {levels!r}: use 1 (left, same, right) or 3 (a seven-point scale)."
            )
        self.levels, self.criteria = levels, tuple(criteria)
        kept, report = read_pairs(pairs)
        self._sides = balanced_sides(len(kept), random.Random(f"{seed}-{annotator}-sides"))
        super().__init__(kept, report, path, annotator, seed, clock)

    @property
    def current(self) -> Shown | None:
        """The pair being shown and its sides; None when all are labelled."""
        pair = self.current_item
        return None if pair is None else Shown(pair, self._sides[self._at])

    def decide(
        self,
        choice: str,
        strength: int | None = None,
        *,
        rationale: str = "",
        criteria: Mapping[str, str] | None = None,
        via: str = "api",
    ) -> Event:
        """Label the current pair and go on to the next.

        Args:
            choice: a, b (by content, see `Shown.content`), tie, both_bad or skip.
            strength: for a or b, 1 to `levels`; may be left out where `levels` is 1.
            criteria: a, b or tie for each criterion that was judged.
            via: how it was entered.

        Returns:
            The event, which is on disk.

        Raises:
            CourseError: a choice that is not legal, nothing left to label, or an event that did
                not reach the disk; then the pair stays the current one.
        """
        if choice not in CHOICES:
            raise unknown_name("choice", choice, CHOICES)
        criteria = dict(criteria or {})
        self._check_criteria(criteria)
        strength = self._strength(choice, strength)
        left = self._sides[self._at]
        return self._write(
            choice,
            rationale,
            via,
            strength=strength,
            levels=self.levels,
            left=left,
            criteria=criteria,
        )

    def _strength(self, choice: str, strength: int | None) -> int | None:
        if choice not in ("a", "b"):
            if strength is not None:
                raise CourseError(f"A choice of {choice!r} has no strength: leave it out.")
            return None
        if strength is None and self.levels == 1:
            return 1
        if strength is None or strength not in range(1, self.levels + 1):
            raise CourseError(
                f"strength is {strength!r}: say how strongly, from 1 (slightly) to {self.levels}."
            )
        return int(strength)

    def _check_criteria(self, criteria: Mapping[str, str]) -> None:
        for name, verdict in criteria.items():
            if name not in self.criteria:
                raise unknown_name("criterion", name, self.criteria)
            if verdict not in VERDICTS:
                raise unknown_name("verdict", verdict, VERDICTS)


class RatingSession(_Session[Answer]):
    """One annotator giving single answers a thumb, as KTO needs them. On the same log.

    Args, attributes and errors as in `PreferenceSession`; rows have prompt and response.
    """

    kind = "rating"

    def __init__(
        self,
        answers: Iterable[Mapping[str, Any] | Answer],
        path: str | os.PathLike[str],
        annotator: str = "me",
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(*read_answers(answers), path, annotator, seed, clock)

    @property
    def current(self) -> Answer | None:
        """The answer being shown; None when all are rated."""
        return self.current_item

    def rate(self, choice: str, *, rationale: str = "", via: str = "api") -> Event:
        """Rate the current answer up, down or skip, and go on; see `PreferenceSession.decide`."""
        if choice not in THUMBS:
            raise unknown_name("thumb", choice, THUMBS)
        return self._write(choice, rationale, via)


def balanced_sides(count: int, rng: random.Random) -> list[str]:
    """Which answer (a or b) stands on the left, item by item, in permuted blocks of four."""
    sides: list[str] = []
    while len(sides) < count:
        sides += rng.sample(BLOCK, len(BLOCK))
    return sides[:count]
