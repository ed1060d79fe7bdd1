"""Learning from preferences without reinforcement learning: DPO, IPO, KTO, ORPO, SimPO.

losses.py    the losses, as pure functions of log-probabilities
batches.py   texts to tensors, and tensors to the log-probabilities of responses
pairs.py     preference data of any form, made uniform and checked
rows.py      the rows a method is trained on
methods.py   the methods side by side
training.py  training through TRL, one entry for every method
"""

from __future__ import annotations

from course_utils.preference.batches import (
    Batch,
    collate_pairs,
    collate_texts,
    response_logprobs,
)
from course_utils.preference.losses import (
    DPO_TYPES,
    dpo_loss,
    implicit_reward,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    log_odds,
    orpo_loss,
    simpo_loss,
)
from course_utils.preference.methods import METHODS, Method
from course_utils.preference.pairs import (
    LengthReport,
    PairReport,
    mismatched,
    prepare_pairs,
    require_both_labels,
    too_long,
    unpair,
    with_room,
)
from course_utils.preference.rows import training_rows
from course_utils.preference.training import (
    TRAINABLE,
    PreferenceSettings,
    make_trainer,
    train,
    train_dpo,
    train_ipo,
    train_kto,
    train_orpo,
    train_simpo,
)

__all__ = [
    "DPO_TYPES",
    "TRAINABLE",
    "METHODS",
    "Batch",
    "LengthReport",
    "Method",
    "PairReport",
    "PreferenceSettings",
    "collate_pairs",
    "collate_texts",
    "dpo_loss",
    "implicit_reward",
    "ipo_loss",
    "kto_loss",
    "kto_reference_point",
    "log_odds",
    "make_trainer",
    "mismatched",
    "orpo_loss",
    "prepare_pairs",
    "require_both_labels",
    "response_logprobs",
    "simpo_loss",
    "too_long",
    "train",
    "train_dpo",
    "train_ipo",
    "train_kto",
    "train_orpo",
    "train_simpo",
    "training_rows",
    "unpair",
    "with_room",
]
