"""Loading and saving models: the base of each profile, a trained run, LoRA adapters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CourseError
from .paths import data_dir
from .processes import is_main, is_sharded
from .profiles import LAPTOP, hub_problem

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ._setup import Course

TINY_BASE = "tiny_base"  # folder under data/
START = "start.txt"  # beside an adapter: the run it belongs onto


def base_path(course: Course) -> str:
    """Folder or hub id of the profile's base model (fetching it where a profile needs that)."""
    if course.profile.base_model == "tiny":
        folder = data_dir() / TINY_BASE
        if not (folder / "model.safetensors").is_file():
            raise CourseError(
                "The shipped tiny model is missing: restore data/tiny_base with git, "
                "or train it with `python -m course_utils pretrain`."
            )
        return str(folder)
    if course.profile.base_model == LAPTOP.base_model:
        from .smollm import ensure_smollm

        return str(ensure_smollm())
    return course.profile.base_model


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer at `path`, padding on the left (generation needs it), with a pad token."""
    from transformers import AutoTokenizer

    with _named(path):
        tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.padding_side = "left"
    if tokenizer.eos_token is None:
        raise CourseError(
            f"The tokenizer of {Path(path).name} has no EOS token, which every response must end "
            "with: set eos_token in its tokenizer_config.json, or choose another model."
        )
    if tokenizer.pad_token is None:
        # Models such as Llama-2 ship none. Masks, not token ids, decide what counts here, so
        # sharing the EOS is safe: the mask of a response keeps its own EOS.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: str | Path, course: Course) -> PreTrainedModel:
    """A causal language model on the course's device, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": course.torch_dtype}
    if course.profile.load_in_4bit:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=course.torch_dtype,
            # Only weights of one floating type can be sharded; quantised ones are kept in it.
            bnb_4bit_quant_storage=course.torch_dtype if is_sharded() else None,
        )
    with _named(path):
        model = AutoModelForCausalLM.from_pretrained(path, **options)
        # bitsandbytes has placed its weights already, and what is to be sharded must not be whole
        # on any card.
        if not course.profile.load_in_4bit and not is_sharded():
            model = model.to(course.device)
    return model.eval()


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turns what can be wrong with a model that somebody named into one sentence.

    Raises:
        CourseError: no such folder, the hub does not give it, or it does not fit into memory.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    try:
        yield
    except OSError as error:  # what transformers makes of everything that concerns the hub
        if Path(path).exists():
            raise
        raise CourseError(_why_not(str(path))) from error
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise CourseError(
            f"The model {Path(path).name} does not fit into the memory that is free: restart the "
            "kernel, which frees what other models hold, or choose a smaller model or profile."
        ) from None


def _why_not(name: str) -> str:
    """Why there is no model by this name here."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return f"There is no model folder {name}: check the path."
    return hub_problem(name) or f"{name} on the hub holds no model of this kind: name another."


def load_base(course: Course) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer before any alignment."""
    path = base_path(course)
    return load_model(path, course), load_tokenizer(path)


def load(path: str | Path, course: Course) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a trained run (see `runs.ensure`).

    A run saved as a LoRA adapter is put onto the run it started from, or onto its base model.
    """
    folder = Path(path)
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        if (folder / START).is_file():
            base, _ = load_merged(folder / (folder / START).read_text().strip(), course)
        else:
            base = load_model(base_path(course), course)
        return PeftModel.from_pretrained(base, folder).eval(), load_tokenizer(folder)
    return load_model(folder, course), load_tokenizer(folder)


def load_merged(
    path: str | Path, course: Course
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load`, with a LoRA adapter merged into its base: the model as others start from it."""
    model, tokenizer = load(path, course)
    return merged(model), tokenizer


def merged(model: Any) -> Any:
    """The model with its LoRA adapter, if it has one, folded into its weights.

    The next stage may train all of them: the adapter had frozen them.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    return model.merge_and_unload().requires_grad_(True)


def lora_config(rank: int) -> Any:
    """LoRA (Hu et al. 2021, arXiv 2106.09685) on every linear layer, scale alpha/r = 2."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type=TaskType.CAUSAL_LM,
    )


def raise_trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Put trainable weights into float32, which scaled gradients need; returns those in float16.

    On a card without bfloat16 the gradients of float16 computations are scaled, and torch refuses
    to unscale those of 16-bit weights (of bfloat16 it has no such kernel). Frozen weights stay
    small. An adapter is in float32 already, but not a whole layer beside it, such as a reward
    model's output, nor TRL's over 4 bits.
    """
    import torch

    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    half = [parameter for parameter in learnt if parameter.dtype == torch.float16]
    for parameter in learnt:
        parameter.data = parameter.data.float()
    return half


@contextmanager
def trainable_raised(model: torch.nn.Module) -> Iterator[None]:
    """`raise_trainable` for the time of a `with` block; the model then computes as before it."""
    half = raise_trainable(model)
    try:
        yield
    finally:
        for parameter in half:
            parameter.grad = None
            parameter.data = parameter.data.half()


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: dict[str, Any] | None = None,
    start: Path | None = None,
) -> None:
    """Write a model (or its adapter) and its tokenizer; of several processes only the main one.

    Args:
        weights: gathered from all processes, when they hold a share each; None takes the model's.
        start: the run that an adapter belongs onto; None means the base model.
    """
    if not is_main():
        return
    model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
    tokenizer.save_pretrained(folder)
    if start is not None:  # relative, so that runs can be moved together
        (folder / START).write_text(os.path.relpath(start, folder) + "\n")


def count_parameters(model: torch.nn.Module, trainable: bool = False) -> int:
    """All parameters, or those that training changes. Shared weights count once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
