"""RLAIF: learning from a judge's labels, beside people's labels of the same pairs.

Lee et al. 2023 (arXiv 2309.00267): the preference pairs are the same, the labeller is a model.

| module | what |
|---|---|
| `labels` | a judge labels training pairs in both orders; what is kept, what is left out |
| `agreement` | judge, people and gold compared: position, length, kappa |
| `demonstration` | judges scripted to show position bias |
| `injection` | answers that talk to their judge |
| `comparison` | reward model and DPO from both kinds of label, and the sweep ``rlaif`` |

All but the last load neither torch nor openai.
"""

from __future__ import annotations

from .agreement import kappa, labels_of, length_figures, other_panel, position_figures
from .labels import (
    Feedback,
    feedback,
    judge_pairs,
    labeller,
    read_labels,
    train_pairs,
    write_labels,
)

__all__ = [
    "Feedback",
    "feedback",
    "judge_pairs",
    "kappa",
    "labeller",
    "labels_of",
    "length_figures",
    "other_panel",
    "position_figures",
    "read_labels",
    "train_pairs",
    "write_labels",
]
