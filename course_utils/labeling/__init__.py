"""Preference labels that people make themselves, from the click to the training data.

items.py      what is labelled, checked
log.py        PreferenceLog: the append-only file
session.py    PreferenceSession, RatingSession: order, sides, decisions, undo; no widgets
widgets.py    PreferenceLabeler, RatingLabeler: the same in a notebook
render.py     model text as HTML that cannot do anything
simulate.py   a function labels, through the same session
aggregate.py  several annotators, one verdict
agreement.py  Krippendorff's alpha, Cohen's and Fleiss' kappa
export.py     to training data, and from existing files
own.py        what was labelled here, for the reward model
study.py      simulated annotators put to the test, for chapter 03
figures.py    a drawing for chapter 03

Names load on first use, so importing this is instant.
"""

from __future__ import annotations

from course_utils._lazy import exports

_EXPORTS = {
    "Agreement": "agreement",
    "Answer": "items",
    "ExportReport": "export",
    "ImportReport": "export",
    "ItemReport": "items",
    "LogReport": "log",
    "OwnLabels": "own",
    "Pair": "items",
    "PreferenceLabeler": "widgets",
    "PreferenceLog": "log",
    "PreferenceSession": "session",
    "RatingLabeler": "widgets",
    "RatingSession": "session",
    "Reliability": "aggregate",
    "Shown": "session",
    "Verdict": "aggregate",
    "aggregate_labels": "aggregate",
    "balanced_sides": "session",
    "cohen_kappa": "agreement",
    "fleiss_kappa": "agreement",
    "import_labels": "export",
    "krippendorff_alpha": "agreement",
    "label_with": "simulate",
    "own_labels": "own",
    "percent_agreement": "agreement",
    "preference_rows": "export",
    "reliability": "aggregate",
    "to_preferences": "export",
    "to_thumbs": "export",
    "unattended": "own",
    "unlabelled_pairs": "export",
    "world_annotator": "simulate",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = exports(__name__, _EXPORTS)
