"""Batched sampling with the masks done right: left padding, EOS kept, nothing after it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import CourseError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generation:
    """One response.

    Attributes:
        text: without special tokens and surrounding blanks.
        tokens: ids as sampled, the EOS included where there is one, padding excluded.
        finished: the model stopped by itself, before its budget ran out.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool


def truncate_prompts(
    prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[list[int]]:
    """Token ids of each prompt; too long ones lose their beginning, and a warning says how much.

    The end is kept because the response header stands there.

    Raises:
        CourseError: a prompt without a single token; there is nothing to continue.
    """
    rows = [list(ids) for ids in tokenizer(list(prompts))["input_ids"]]
    if [] in rows:
        raise CourseError(
            f"prompts[{rows.index([])}] is empty: give at least one token to continue."
        )
    cut = [len(ids) - max_tokens for ids in rows if len(ids) > max_tokens]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(rows)} prompts are longer than {max_tokens} tokens: "
            f"their first {min(cut)} to {max(cut)} tokens were cut.",
            stacklevel=2,
        )
    return [ids[-max_tokens:] for ids in rows]


def _responses(
    output: torch.Tensor, prompt_length: int, tokenizer: PreTrainedTokenizerBase
) -> list[Generation]:
    """Cut each row (B, P+R) behind its first EOS."""
    results = []
    for row in output[:, prompt_length:].tolist():
        finished = tokenizer.eos_token_id in row
        kept = row[: row.index(tokenizer.eos_token_id) + 1] if finished else row
        text = tokenizer.decode(kept, skip_special_tokens=True).strip()
        results.append(Generation(text, tuple(kept), finished))
    return results


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    batch_size: int = 64,
    max_prompt_tokens: int = 448,
    seed: int | None = 0,
) -> list[Generation]:
    """One response per prompt, in the order given.

    Prompts are sorted by length so that a batch pads little. No top-k or top-p: what is sampled is
    the model's own distribution at `temperature`, whatever generation settings it was saved with;
    0 decodes greedily. With a seed, the same call gives the same text and torch's generator stays
    as it was; None draws from torch's generator. Where memory runs out, a batch is sampled again in
    smaller ones.
    """
    import torch

    from .room import in_batches

    if not prompts:
        return []
    rows = truncate_prompts(prompts, tokenizer, max_prompt_tokens)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    results: dict[int, Generation] = {}
    choice: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    if temperature > 0:
        choice = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}

    def respond(which: slice) -> None:
        indices = order[which]
        batch = _left_pad([rows[i] for i in indices], tokenizer, model.device)
        output = model.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **choice,
        )
        found = _responses(output, batch["input_ids"].shape[1], tokenizer)
        results.update(zip(indices, found, strict=True))

    with (
        _plain_model(model),
        torch.random.fork_rng(enabled=seed is not None),
        torch.no_grad(),
    ):
        if seed is not None:
            torch.manual_seed(seed)
        in_batches(respond, len(order), batch_size)
    return [results[i] for i in range(len(rows))]


@contextmanager
def _plain_model(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off and no saved generation settings, for the time of a `with` block.

    A repetition penalty, say, in a model's generation_config would apply to every call that does
    not name it: what is sampled would no longer be the distribution that is scored.
    """
    from transformers import GenerationConfig

    core = model.get_base_model() if hasattr(model, "get_base_model") else model  # under an adapter
    training, settings = model.training, core.generation_config
    model.eval()
    core.generation_config = GenerationConfig()
    try:
        yield
    finally:
        core.generation_config = settings
        model.train(training)


def _left_pad(
    rows: list[list[int]], tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask (B, P), padding on the left whatever the tokenizer's habit."""
    padded = tokenizer.pad(
        {"input_ids": rows}, padding=True, padding_side="left", return_tensors="pt"
    )
    return {name: padded[name].to(device) for name in ("input_ids", "attention_mask")}
