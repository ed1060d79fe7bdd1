"""Supervised fine-tuning through TRL's `SFTTrainer`, with the settings of the profile.

The loss is written out in `logprobs.sft_loss`; here stands what surrounds it: which columns, which
schedule, which weights are trained, and a history that the figures read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from . import data, models
from .trainers import History, common_arguments, own_forward, step_callback

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from ._setup import Course


@dataclass(frozen=True)
class SFTSettings:
    """The recipe of one SFT run.

    Attributes:
        epochs: passes over the data.
        learning_rate: peak; linear decay to zero after warm-up.
        batch_size: examples per optimiser step on one device, times `accumulation`.
        accumulation: forward passes added up before a step.
        warmup: share of the steps during which the learning rate rises.
        max_length: tokens of prompt and response; longer examples are cut at the end.
        adapter: ``full`` or ``lora``.
        lora_rank: rank of the adapter.
    """

    epochs: int = 3
    learning_rate: float = 1e-3
    batch_size: int = 32
    accumulation: int = 1
    warmup: float = 0.03
    max_length: int = 192
    adapter: str = "full"
    lora_rank: int = 16

    @classmethod
    def of(cls, course: Course) -> SFTSettings:
        """The profile's settings; the small size sees the data once."""
        p = course.profile
        return cls(
            epochs=course.pick(full=p.sft_epochs, small=1),
            learning_rate=p.sft_learning_rate,
            batch_size=p.batch_size,
            accumulation=p.gradient_accumulation,
            max_length=p.max_length,
            adapter=p.adapter,
            lora_rank=p.lora_rank,
        )


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
    callbacks: list[TrainerCallback] | None = None,
) -> SFTTrainer:
    """An `SFTTrainer` over dolly-style `rows`. Nothing is trained yet."""
    from transformers import PrinterCallback
    from trl import SFTTrainer

    trainer = SFTTrainer(
        model=model,
        args=training_arguments(course, settings, out, seed),
        train_dataset=data.to_prompt_completion(rows),
        eval_dataset=data.to_prompt_completion(eval_rows) if eval_rows is not None else None,
        processing_class=tokenizer,
        peft_config=models.lora_config(settings.lora_rank) if settings.adapter == "lora" else None,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # the history is returned, not printed
    return trainer


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
    with own_forward(model):
        with TemporaryDirectory() as scratch:
            trainer = make_trainer(
                course,
                model,
                tokenizer,
                rows,
                settings,
                out=scratch,
                seed=seed,
                callbacks=[step_callback(on_step)] if on_step else None,
            )
            trainer.train()
        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    history = [
        {"step": r["step"], "loss": r["loss"], "learning_rate": r["learning_rate"]}
        for r in trainer.state.log_history
        if "loss" in r
    ]
    if out is not None:
        models.save(trained, tokenizer, out)
    return trained, history
