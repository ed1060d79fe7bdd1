"""What the course's uses of TRL's trainers share: settings for a CPU or a GPU, and tidying up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from . import models, room
from .processes import is_sharded, share

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer, TrainerCallback

    from ._setup import Course

History = list[dict[str, float]]
T = TypeVar("T", bound="Trainer")
S = TypeVar("S", bound="TrainingSettings")


@dataclass(frozen=True)
class TrainingSettings:
    """What every training through TRL is told.

    Attributes:
        epochs: passes over the data.
        learning_rate: peak; linear decay to zero after warm-up.
        batch_size: examples (pairs, for preferences) per optimiser step, times `accumulation`;
            several processes share them.
        accumulation: forward passes added up before a step.
        warmup: share of the steps during which the learning rate rises.
        max_length: tokens of prompt and response together.
        adapter: ``full`` or ``lora``.
        lora_rank: rank of the adapter.
    """

    epochs: int = 1
    learning_rate: float = 1e-4
    batch_size: int = 32
    accumulation: int = 1
    warmup: float = 0.03
    max_length: int = 192
    adapter: str = "full"
    lora_rank: int = 16


def profile_settings(course: Course, epochs: int, learning_rate: float) -> dict[str, Any]:
    """The fields of `TrainingSettings` that the profile decides; the small size has one epoch."""
    p = course.profile
    return {
        "epochs": course.pick(full=epochs, small=1),
        "learning_rate": learning_rate,
        "batch_size": p.batch_size,
        "accumulation": p.gradient_accumulation,
        "max_length": p.max_length,
        "adapter": p.adapter,
        "lora_rank": p.lora_rank,
    }


def common_arguments(
    course: Course, settings: TrainingSettings, out: str, seed: int
) -> dict[str, Any]:
    """What every TRL configuration is given. TRL's own defaults assume a GPU; these do not."""
    batch_size, accumulation = share(settings.batch_size, settings.accumulation)
    return {
        "output_dir": out,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup,  # below 1 it is a share of all steps
        "max_length": settings.max_length,
        "bf16": course.dtype == "bfloat16",
        "fp16": course.dtype == "float16",
        "activation_checkpointing": course.profile.gradient_checkpointing,
        "logging_steps": 5,
        "logging_first_step": True,  # so that the shortest run has a history, too
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": course.device == "cpu",
        "dataloader_pin_memory": course.device == "cuda",
        "seed": seed,
        "data_seed": seed,
    }


@contextmanager
def own_forward(model: PreTrainedModel) -> Iterator[None]:
    """Undo a trainer's patch of `forward` when the `with` block ends.

    TRL and accelerate patch it; deep copies of a patched model compute with the original's weights.
    """
    own = vars(model).get("forward")
    try:
        yield
    finally:
        if own is None:
            vars(model).pop("forward", None)
        else:
            vars(model)["forward"] = own


def run(
    make: Callable[[str, S], T],
    settings: S,
    *given: PreTrainedModel,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[T, PreTrainedModel]:
    """Train with the trainer that `make` builds for a scratch folder and for settings.

    When memory runs out, the training begins again with at most half the examples at a time and
    more passes added up, so that every optimiser step sees the same batch as before. (KTO compares
    with the other responses of a pass, and so does not come out quite the same.)

    Args:
        make: called again, with other settings, for each beginning.
        settings: what was asked for.
        given: what the trainer is given, the model to train first; all of them get their own
            `forward` back.
        on_step: called with (steps done, steps in all), for a progress bar.

    Returns:
        The trainer, for its history, and the trained model in evaluation mode.

    Raises:
        CourseError: not even one example at a time fits into memory.
    """
    room.free()  # what the stage before left
    whole = settings.batch_size * settings.accumulation
    restore = room.remember(given[0], weights=settings.adapter == "full" and room.alone())

    def begin(size: int) -> tuple[T, PreTrainedModel]:
        restore()
        fitted = replace(settings, batch_size=size, accumulation=whole // size)
        return _train(make, fitted, given, on_step)

    note = f", added up to steps of {whole} as before; the training begins again"
    return room.fitting(begin, settings.batch_size, whole=whole, note=note)


def _train(
    make: Callable[[str, S], T],
    settings: S,
    given: Sequence[PreTrainedModel],
    on_step: Callable[[int, int], None] | None,
) -> tuple[T, PreTrainedModel]:
    from transformers import PrinterCallback

    with ExitStack() as patches:
        for model in given:
            patches.enter_context(own_forward(model))
        with TemporaryDirectory() as scratch:
            trainer = make(scratch, settings)
            trainer.remove_callback(PrinterCallback)  # the history is returned, not printed
            if on_step:
                trainer.add_callback(_step_callback(on_step))
            scaled = trainer.args.fp16
            with models.trainable_raised(trainer.model) if scaled else nullcontext():
                trainer.train()
        unwrap = trainer.accelerator.unwrap_model
        return trainer, unwrap(trainer.model, keep_fp32_wrapper=False).eval()


def whole_weights(trainer: Trainer) -> dict[str, Any] | None:
    """The weights gathered from all processes, when each holds a share; else None.

    Every process has to come here; the main one gets them all.
    """
    if not is_sharded():
        return None
    weights: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


def _step_callback(on_step: Callable[[int, int], None]) -> TrainerCallback:
    """Calls `on_step` with (steps done, steps in all) after every step."""
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            on_step(state.global_step, state.max_steps)

    return Report()
