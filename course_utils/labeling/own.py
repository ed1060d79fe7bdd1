"""Labels of one's own, on their way into the reward model: what chapter 03 leaves for chapter 04.

They stand in the log at `paths.labels_path`. The stage ``reward`` of `runs` trains on the
annotators' votes and on these; its recipe then names them, so each state of the labels has a
trained model of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from course_utils import paths
from course_utils.errors import CourseError
from course_utils.labeling.export import ExportReport, preference_rows
from course_utils.labeling.log import LogReport, PreferenceLog, current_labels
from course_utils.labeling.simulate import SIMULATED

if TYPE_CHECKING:
    from datasets import Dataset

    from course_utils._setup import Course


@dataclass(frozen=True)
class OwnLabels:
    """The pairs that were labelled here and can be learnt from, in an order of their own.

    Attributes:
        pairs: prompt, chosen, rejected, margin, votes, as `to_preferences` gives them.
        annotators: whose labels they come from.
        simulated: nobody labelled; a function did.
        report: what became of the labelled pairs.
        log: what was found in the file.
    """

    pairs: Sequence[dict[str, Any]] = ()
    annotators: Sequence[str] = ()
    simulated: bool = False
    report: ExportReport = field(default_factory=lambda: ExportReport(0, 0))
    log: LogReport = field(default_factory=lambda: LogReport(0))

    def __str__(self) -> str:
        if not self.annotators:
            return "no labels of your own"
        kind = "simulated labels" if self.simulated else "labels"
        text = f"{len(self.pairs)} pairs from {kind} of {', '.join(self.annotators)}"
        return f"{text} ({self.report})" if self.report.left_out else text

    def recipe(self) -> dict[str, Any]:
        """Count and fingerprint of the pairs; the same labels made again give the same."""
        columns = ("prompt", "chosen", "rejected", "margin")
        text = json.dumps([[pair[name] for name in columns] for pair in self.pairs])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {"pairs": len(self.pairs), "labels": digest}

    def added_to(self, rows: Dataset) -> Dataset:
        """`rows` of `data.load_preferences` with these pairs behind them; nobody knows their gold.

        Without pairs, `rows` itself.
        """
        from datasets import Dataset, concatenate_datasets

        if not self.pairs:
            return rows
        unknown = {"gold_chosen": None, "gold_rejected": None, "case_id": ""}
        own = [
            {name: {**unknown, **pair}[name] for name in rows.column_names} for pair in self.pairs
        ]
        return concatenate_datasets([rows, Dataset.from_list(own, features=rows.features)])


def own_labels(course: Course) -> OwnLabels:
    """The labels in this profile's log, by majority where there are several of a pair.

    People come first: as soon as one person has labelled anything, simulated labels are left out.
    A log that cannot be read, or lines of it, are reported by a warning and left out.
    """
    path = paths.labels_path(course.profile.name, course.size)
    if path is None or not path.exists():
        return OwnLabels()
    try:
        events, report = PreferenceLog(path).read()
    except CourseError as error:
        warnings.warn(f"{error} It goes without labels of your own.", stacklevel=2)
        return OwnLabels()
    if report.skipped:
        warnings.warn(f"{path.name}: {report}.", stacklevel=2)
    labels = current_labels(events)
    people = [label for label in labels if label.get("via") != SIMULATED]
    chosen = people or labels
    pairs, left_out = preference_rows(chosen)
    return OwnLabels(
        sorted(pairs, key=lambda pair: pair["pair_id"]),
        sorted({label["annotator"] for label in chosen}),
        not people,
        left_out,
        report,
    )


def unattended() -> bool:
    """Whether a chapter runs without a person, who could label.

    ``COURSE_UNATTENDED`` says so (1) or denies it (0). Otherwise it is true where the course's own
    runner, its tests or nbgrader execute a notebook: they keep no record of the learner's progress.
    """
    given = os.environ.get("COURSE_UNATTENDED")
    if given:
        return given != "0"
    return os.environ.get("COURSE_PROGRESS") == "off" or "NBGRADER_EXECUTION" in os.environ
