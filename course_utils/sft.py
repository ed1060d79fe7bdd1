"""Supervised fine-tuning through TRL's `SFTTrainer`, with the settings of the profile.

The loss is written out in `logprobs.sft_loss`; here stands what surrounds it: which columns, which
schedule, which weights are trained, and a history that the figures read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import data, models
from .trainers import (
    History,
    TrainingSettings,
    common_arguments,
    profile_settings,
    run,
    whole_weights,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

    from ._setup import Course


@dataclass(frozen=True)
class SFTSettings(TrainingSettings):
    """The recipe of one SFT run; longer examples are cut at the end."""

    epochs: int = 3
    learning_rate: float = 1e-3

    @classmethod
    def of(cls, course: Course) -> SFTSettings:
        """The profile's settings."""
        p = course.profile
        return cls(**profile_settings(course, p.sft_epochs, p.sft_learning_rate))


def training_arguments(course: Course, settings: SFTSettings, out: str, seed: int) -> SFTConfig:
    """TRL's configuration for these settings."""
    from trl import SFTConfig

    return SFTConfig(**common_arguments(course, settings, out, seed), completion_only_loss=True)


def make_trainer(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: SFTSettings,
    *,
    out: str,
    seed: int = 0,
    eval_rows: Dataset | None = None,
) -> SFTTrainer:
    """An `SFTTrainer` over dolly-style `rows`. Nothing is trained yet."""
    from trl import SFTTrainer

    return SFTTrainer(
        model=model,
        args=training_arguments(course, settings, out, seed),
        train_dataset=data.to_prompt_completion(rows),
        eval_dataset=data.to_prompt_completion(eval_rows) if eval_rows is not None else None,
        processing_class=tokenizer,
        peft_config=models.lora_config(settings.lora_rank) if settings.adapter == "lora" else None,
    )


def train(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: SFTSettings | None = None,
    *,
    seed: int = 0,
    out: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, History]:
    """Fine-tune `model` in place and return it with its loss history.

    Args:
        rows: instruction, context, response.
        out: where to save the result; None keeps it in memory.
        on_step: called with (steps done, steps in all), for a progress bar.
    """
    settings = settings or SFTSettings.of(course)
    trainer, trained = run(
        lambda scratch, fitted: make_trainer(
            course, model, tokenizer, rows, fitted, out=scratch, seed=seed
        ),
        settings,
        model,
        on_step=on_step,
    )
    history = [
        {"step": r["step"], "loss": r["loss"], "learning_rate": r["learning_rate"]}
        for r in trainer.state.log_history
        if "loss" in r
    ]
    if out is not None:
        models.save(trained, tokenizer, out, whole_weights(trainer))
    return trained, history
