"""What `PPOTrainer` is given, checked before any weight changes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import torch

from ..errors import CourseError
from .value_head import AutoModelForCausalLMWithValueHead

# Generation arguments of older material that change nothing at these values.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_k": (0, None),
    "top_p": (1, None),
    "min_length": (-1, 0, None),
    "do_sample": (True,),
}
TOKENIZER_SAYS = ("pad_token_id", "eos_token_id")


def check_parts(model: Any, ref_model: Any, tokenizer: Any) -> None:
    """Raise a CourseError when these cannot be trained together."""
    if not isinstance(model, AutoModelForCausalLMWithValueHead):
        raise CourseError(
            f"PPOTrainer needs a model with a value head, not {type(model).__name__}: "
            "AutoModelForCausalLMWithValueHead.from_pretrained(model)."
        )
    if tokenizer is None:
        raise CourseError("PPOTrainer needs the model's tokenizer: PPOTrainer(tokenizer=...).")
    for name in ("pad", "eos"):
        if getattr(tokenizer, f"{name}_token_id") is None:
            raise CourseError(
                f"The tokenizer has no {name} token: set tokenizer.{name}_token first "
                "(for pad, the EOS will do)."
            )
    if ref_model is not None:
        sizes = [m.config.get_text_config().vocab_size for m in (model, ref_model)]
        if sizes[0] != sizes[1]:
            raise CourseError(
                f"The policy has {sizes[0]} tokens and the reference {sizes[1]}: both need the "
                "same vocabulary."
            )


def check_counts(size: int, queries: Sized, responses: Sized, scores: Sized) -> None:
    """Raise a CourseError unless there are `size` of each."""
    counts = {"queries": len(queries), "responses": len(responses), "scores": len(scores)}
    if set(counts.values()) != {size}:
        given = ", ".join(f"{n} {name}" for name, n in counts.items())
        raise CourseError(f"step got {given}: give batch_size = {size} of each.")


def token_rows(name: str, given: Sequence[Any]) -> list[torch.Tensor]:
    """1-D tensors of token ids, none of them empty."""
    for i, row in enumerate(given):
        if not isinstance(row, torch.Tensor) or row.dim() != 1 or row.is_floating_point():
            raise CourseError(f"{name}[{i}] is no 1-D tensor of token ids.")
        if len(row) == 0:
            raise CourseError(
                f"{name}[{i}] is empty: give at least one token (an EOS is a response)."
            )
    return list(given)


def score_tensor(scores: Sequence[float | torch.Tensor]) -> torch.Tensor:
    """(B,) in float32, all finite."""
    values = [torch.as_tensor(score).reshape(-1) for score in scores]
    if any(len(v) != 1 for v in values):
        raise CourseError("Every score is one number per response, not one per token.")
    numbers = torch.tensor([float(v) for v in values])
    for i, number in enumerate(numbers.tolist()):
        if not abs(number) < float("inf"):  # NaN included
            raise CourseError(
                f"scores[{i}] is {number}: scores must be finite numbers. "
                "Mend the reward function; nothing was trained."
            )
    return numbers


def cut_behind(response: torch.Tensor, eos_id: int) -> torch.Tensor:
    """The response up to its first EOS; nothing behind it counts anywhere."""
    ends = (response == eos_id).nonzero()
    return response[: int(ends[0]) + 1] if len(ends) else response


def generation_settings(given: Mapping[str, Any]) -> tuple[int | None, float | None]:
    """(max_new_tokens, temperature) out of what `generate` was given; warns about the rest."""
    rest = {k: v for k, v in given.items() if k not in TOKENIZER_SAYS}
    length, temperature = rest.pop("max_new_tokens", None), rest.pop("temperature", None)
    ignored = [f"{k}={v!r}" for k, v in rest.items() if v not in NEUTRAL.get(k, ())]
    if ignored:
        warnings.warn(
            f"generate({', '.join(ignored)}) is ignored: PPO has to sample from the very "
            "distribution whose log-probs it uses. max_new_tokens and temperature count.",
            stacklevel=3,
        )
    return length, temperature
