"""What the course's uses of TRL's trainers share: settings for a CPU or a GPU, and tidying up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback

    from ._setup import Course

History = list[dict[str, float]]


class Recipe(Protocol):
    """The settings that every kind of training has; see `sft.SFTSettings` for what they mean."""

    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def warmup(self) -> float: ...
    @property
    def max_length(self) -> int: ...


def common_arguments(course: Course, settings: Recipe, out: str, seed: int) -> dict[str, Any]:
    """What every TRL configuration is given. TRL's own defaults assume a GPU; these do not."""
    return {
        "output_dir": out,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
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


def step_callback(on_step: Callable[[int, int], None]) -> TrainerCallback:
    """Calls `on_step` with (steps done, steps in all) after every step."""
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            on_step(state.global_step, state.max_steps)

    return Report()
