"""Training on preferences through TRL: one entry for every method, the same for all of them.

Deliberate simplifications:
1. The reference is the model as it is when training begins, unless another one is given. Its
   log-probabilities are computed once, before the first step, so no second model is held.
2. ORPO's likelihood term is TRL's, which looks at the prompt's tokens as well.
3. A batch is counted in pairs. KTO, which sees single responses, takes twice as many.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import models
from course_utils.errors import CourseError, unknown_name
from course_utils.preference.losses import require_positive
from course_utils.preference.rows import training_rows
from course_utils.processes import shared_rows
from course_utils.trainers import (
    History,
    TrainingSettings,
    common_arguments,
    profile_settings,
    run,
    whole_weights,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

    from course_utils._setup import Course

DPO_LOSSES = {"dpo": "sigmoid", "hinge": "hinge", "robust": "robust", "ipo": "ipo"}
# Times DPO's beta, by the record `betas`. IPO and SimPO look at means over tokens, far smaller than
# sums; KTO compares with a reference point instead of another side; ORPO's beta is a weight.
BETAS = {"ipo": 5.0, "kto": 3.0, "orpo": 3.0, "simpo": 300.0}
TRAINABLE = (*DPO_LOSSES, "kto", "orpo", "simpo")
LOGGED = (
    "step",
    "loss",
    "learning_rate",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "kl",
)


@dataclass(frozen=True)
class PreferenceSettings(TrainingSettings):
    """The recipe of one run; longer examples are cut at the end.

    Attributes:
        beta: how closely the policy is held to the reference; what it scales depends on the
            method, see `methods.METHODS`.
        label_smoothing: robust DPO only: the share of labels believed to be flipped.
        desirable_weight, undesirable_weight: KTO only.
        gamma: SimPO only: the margin by which the chosen side should win.
    """

    warmup: float = 0.1
    beta: float = 0.1
    label_smoothing: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    gamma: float = 0.5

    @classmethod
    def of(cls, course: Course, method: str = "dpo") -> PreferenceSettings:
        """The profile's settings, with a beta of the method's own size.

        ORPO does the work of SFT as well, and has SFT's learning rate.
        """
        _require_method(method)
        p = course.profile
        rate = p.sft_learning_rate if method == "orpo" else p.dpo_learning_rate
        common = profile_settings(course, p.dpo_epochs, rate)
        return cls(
            **{**common, "batch_size": p.dpo_batch_size or p.batch_size},
            beta=round(p.dpo_beta * BETAS.get(method, 1.0), 6),
            label_smoothing=0.1 if method == "robust" else 0.0,
        )


def training_arguments(
    course: Course, settings: PreferenceSettings, method: str, out: str, seed: int
) -> Any:
    """TRL's configuration for a method."""
    common = {**common_arguments(course, settings, out, seed), "beta": settings.beta}
    if method == "kto":
        from trl import KTOConfig

        common["per_device_train_batch_size"] *= 2
        return KTOConfig(  # it insists on the order of its rows
            **common,
            desirable_weight=settings.desirable_weight,
            undesirable_weight=settings.undesirable_weight,
            precompute_ref_log_probs=True,
        )
    common["train_sampling_strategy"] = "group_by_length"  # half of a random batch is padding
    common["remove_unused_columns"] = False  # or `length`, which that sorts by, is gone too early
    if method == "orpo":
        from trl.experimental.orpo import ORPOConfig

        return ORPOConfig(**common)
    if method == "simpo":
        from trl.experimental.cpo import CPOConfig

        return CPOConfig(
            **common,
            loss_type="simpo",
            simpo_gamma=settings.gamma,
            cpo_alpha=0.0,  # no likelihood term beside it
        )
    from trl import DPOConfig

    return DPOConfig(
        **common,
        loss_type=[DPO_LOSSES[method]],
        label_smoothing=settings.label_smoothing,
        precompute_ref_log_probs=True,
    )


def make_trainer(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, Any]],
    settings: PreferenceSettings,
    *,
    method: str = "dpo",
    reference: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
    out: str,
    seed: int = 0,
) -> Trainer:
    """TRL's trainer for a method over the usable rows. Nothing is trained yet."""
    _require_method(method)
    _require_settings(settings, method)
    options: dict[str, Any] = {}
    if settings.adapter == "lora":
        options["peft_config"] = models.lora_config(settings.lora_rank)
    if reference is not None:
        _require_reference(reference, tokenizer, method)
        options["ref_model"] = reference[0]
    with _quiet():
        usable = training_rows(rows, tokenizer, settings.max_length, method, seed)
        return _trainer_class(method)(
            model=model,
            args=training_arguments(course, settings, method, out, seed),
            train_dataset=shared_rows(usable, out, course),
            processing_class=tokenizer,
            **options,
        )


def train(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, Any]],
    settings: PreferenceSettings | None = None,
    *,
    method: str = "dpo",
    reference: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
    seed: int = 0,
    out: Path | None = None,
    start: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, History]:
    """Train `model` in place on preferences and return it with its history.

    A warning counts what is left out of the data and what is cut.

    Args:
        rows: pairs of any form that `prepare_pairs` accepts; for KTO also thumbs: prompt,
            completion, label.
        method: one of `TRAINABLE`.
        reference: model and tokenizer to stay close to; None takes `model` as it is now.
        out: where to save the result; None keeps it in memory.
        start: the run that `model` is, to be noted where the result is an adapter for it.
        on_step: called with (steps done, steps in all), for a progress bar.

    Returns:
        The model, and rows of step, loss, learning_rate and, as far as the method has them, the
        metrics of `losses`: rewards/..., logps/..., kl.

    Raises:
        CourseError: an unknown method, a setting out of range, no usable row, KTO with one kind of
            label, or a reference with another tokenizer.
    """
    settings = settings or PreferenceSettings.of(course, method)
    rows = list(rows)  # read again where memory runs out
    trainer, trained = run(
        lambda scratch, fitted: make_trainer(
            course,
            model,
            tokenizer,
            rows,
            fitted,
            method=method,
            reference=reference,
            out=scratch,
            seed=seed,
        ),
        settings,
        model,
        *(reference or ())[:1],
        on_step=on_step,
    )
    history = [
        {key: row[key] for key in LOGGED if key in row}
        for row in trainer.state.log_history
        if "loss" in row
    ]
    if out is not None:
        models.save(trained, tokenizer, out, whole_weights(trainer), start)
    return trained, history


train_dpo = train
train_ipo = partial(train, method="ipo")
train_kto = partial(train, method="kto")
train_orpo = partial(train, method="orpo")
train_simpo = partial(train, method="simpo")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without TRL's bar over the reference and its warnings that concern nobody here."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with warnings.catch_warnings():
            for message in (".*is_gradient_checkpointing.*", ".*from 'trl.experimental'.*"):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before


def _trainer_class(method: str) -> Any:
    if method == "kto":
        from trl import KTOTrainer

        return KTOTrainer
    if method == "orpo":
        from trl.experimental.orpo import ORPOTrainer

        return ORPOTrainer
    if method == "simpo":
        from trl.experimental.cpo import CPOTrainer

        return CPOTrainer
    from trl import DPOTrainer

    return DPOTrainer


def _require_method(method: str) -> None:
    if method not in TRAINABLE:
        raise unknown_name("preference method", method, TRAINABLE)


def _require_settings(settings: PreferenceSettings, method: str) -> None:
    for name in ("beta", "desirable_weight", "undesirable_weight"):
        require_positive(name, getattr(settings, name))
    if not 0 <= settings.label_smoothing < 0.5:
        raise CourseError(
            f"label_smoothing is {settings.label_smoothing}: it must be 0 to below 0.5."
        )
    if settings.label_smoothing and method != "robust":
        raise CourseError(
            f"TRL has label smoothing for 'robust' only, not for {method!r}: use method='robust', "
            "or a loop of your own with preference.dpo_loss."
        )


def _require_reference(
    reference: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    tokenizer: PreTrainedTokenizerBase,
    method: str,
) -> None:
    if method in ("orpo", "simpo"):
        raise CourseError(f"The method {method!r} has no reference model: leave `reference` out.")
    if reference[1].get_vocab() != tokenizer.get_vocab():
        raise CourseError(
            "The reference has another tokenizer than the model, so their log-probabilities belong "
            "to different tokens: use a reference trained from the same base model."
        )
