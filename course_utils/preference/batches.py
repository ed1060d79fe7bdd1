"""From texts to the log-probabilities of responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_utils.data import mask_prompt
from course_utils.logprobs import IGNORE, sequence_logprobs

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Batch:
    """Tokenised responses, each after its prompt, padded on the right.

    Attributes:
        input_ids: (B, T).
        attention_mask: (B, T), 1 on real tokens.
        response_mask: (B, T), True on the response and its EOS.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    response_mask: torch.Tensor


def collate_texts(
    prompts: Sequence[str],
    responses: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str = "cpu",
    max_length: int | None = None,
) -> Batch:
    """Tokenise each response after its prompt; what is longer than `max_length` loses its end."""
    import torch

    examples = [mask_prompt(p, r, tokenizer) for p, r in zip(prompts, responses, strict=True)]
    input_ids = [torch.tensor(ids[:max_length]) for ids, _ in examples]
    kept = [torch.tensor(labels[:max_length]) != IGNORE for _, labels in examples]
    return pad_batch(input_ids, kept, tokenizer, device)


def pad_batch(
    input_ids: Sequence[torch.Tensor],
    kept: Sequence[torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str,
) -> Batch:
    """B sequences of ids, (t,) each, and which of their tokens are the response, as one batch."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return Batch(
        pad_sequence(list(input_ids), True, padding_value=tokenizer.pad_token_id).to(device),
        pad_sequence([torch.ones_like(ids) for ids in input_ids], True).to(device),
        pad_sequence(list(kept), True, padding_value=False).to(device),
    )


def collate_pairs(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str = "cpu",
    max_length: int | None = None,
) -> Batch:
    """A batch of N pairs as 2N responses: first every chosen side, then every rejected one.

    One forward pass serves both; `chosen, rejected = sums.chunk(2)` takes them apart again.
    """
    pairs = list(rows)
    prompts = [row["prompt"] for row in pairs]
    responses = [row[side] for side in ("chosen", "rejected") for row in pairs]
    return collate_texts(prompts * 2, responses, tokenizer, device, max_length)


def response_logprobs(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    response_mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(sums, means), both (B,), of the log-probabilities of each response's tokens.

    Args:
        input_ids, attention_mask, response_mask: (B, T); the mask is true on the response, EOS
            included.

    Raises:
        ValueError: a row has no response token, so that its mean does not exist.
    """
    keep = response_mask[:, 1:].bool()  # the first token of a text is predicted by nothing
    counts = keep.sum(-1)
    if not counts.all():
        raise ValueError("a row has no response token: was it cut away by a length limit?")
    sums = sequence_logprobs(model, input_ids, attention_mask).masked_fill(~keep, 0).sum(-1)
    return sums, sums / counts
