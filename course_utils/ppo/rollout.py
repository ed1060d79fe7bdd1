"""Collecting experience: sampling that keeps the log-probs and values it computes on the way.

`transformers`' own `generate` would throw away the values, and the log-probs would have to be
computed again; a loop over a KV cache gives all three for the price of one. Rows that have emitted
their EOS leave the batch.

Shapes: B responses, P prompt tokens (padded on the left), R response tokens (padded on the right),
T = P + R. Every response therefore begins at column P.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ..logprobs import position_ids
from .value_head import AutoModelForCausalLMWithValueHead

LEAVE_SHARE = 8  # finished rows leave the batch when they are at least an eighth of it


@dataclass(frozen=True)
class Kept:
    """One sampled response.

    Attributes:
        tokens: (r,), the EOS included where there is one.
        logprobs, values: (r,), as computed while sampling.
    """

    tokens: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class Experience:
    """A batch of responses and what PPO knows about them.

    Attributes:
        input_ids, attention_mask: (B, T).
        response_mask: (B, R), True for response tokens, EOS included.
        logprobs, ref_logprobs, values: (B, R).
        scores: (B,).
        finished: (B,), True where the response ends with an EOS.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    response_mask: torch.Tensor
    logprobs: torch.Tensor
    ref_logprobs: torch.Tensor
    values: torch.Tensor
    scores: torch.Tensor
    finished: torch.Tensor

    @property
    def prompt_length(self) -> int:
        return self.input_ids.shape[1] - self.response_mask.shape[1]


@torch.no_grad()
def sample(
    model: AutoModelForCausalLMWithValueHead,
    prompts: Sequence[torch.Tensor],
    *,
    max_new_tokens: int,
    temperature: float,
    eos_id: int,
    pad_id: int,
    generator: torch.Generator,
) -> list[Kept]:
    """One response per prompt (each a 1-D tensor of ids), drawn from the policy itself.

    No top-k, no top-p: what is sampled is the distribution that is scored. Dropout must be off.
    """
    device = model.device
    size = len(prompts)
    tokens = torch.full((size, max_new_tokens), pad_id, device=device)
    logprobs = torch.zeros((size, max_new_tokens), device=device)
    values = torch.zeros_like(logprobs)
    lengths = torch.zeros(size, dtype=torch.long)

    input_ids, mask = pad_left(prompts, pad_id, device)
    positions = position_ids(mask)
    cache = DynamicCache(config=model.config.get_text_config())
    rows = torch.arange(size, device=device)  # which response each row of the batch belongs to
    running = torch.ones(size, dtype=torch.bool, device=device)
    for t in range(max_new_tokens):
        logits, _, value = model(
            input_ids,
            mask,
            keep=1,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        distribution = (logits[:, -1].float() / temperature).log_softmax(-1)
        drawn = torch.multinomial(distribution.exp(), 1, generator=generator)
        active = rows[running]
        tokens[active, t] = drawn[running, 0]
        logprobs[active, t] = distribution.gather(1, drawn)[running, 0]
        values[active, t] = value[running, -1]
        lengths[active.cpu()] += 1
        running = running & (drawn[:, 0] != eos_id)
        left = int(running.sum())
        if left == 0:
            break
        if (len(rows) - left) * LEAVE_SHARE >= len(rows):
            stay = running.nonzero().squeeze(1)
            cache.batch_select_indices(stay)
            rows, mask, drawn, running = rows[stay], mask[stay], drawn[stay], running[stay]
        input_ids = drawn
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = mask.sum(1, keepdim=True) - 1
    return [
        Kept(tokens[i, :n], logprobs[i, :n], values[i, :n]) for i, n in enumerate(lengths.tolist())
    ]


def pad_left(
    rows: Sequence[torch.Tensor], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (B, P)."""
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence(list(rows), True, padding_value=pad_id, padding_side="left").to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    columns = torch.arange(ids.shape[1] - 1, -1, -1, device=device)
    return ids, (columns < lengths[:, None]).long()


def pad_right(
    rows: Sequence[torch.Tensor], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, boolean mask), both (B, R)."""
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence(list(rows), True, padding_value=pad_id).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(ids.shape[1], device=device) < lengths[:, None]


def new_experience(
    queries: Sequence[torch.Tensor],
    responses: Sequence[torch.Tensor],
    scores: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Experience:
    """B prompts and responses (1-D ids), padded; log-probs and values are zero until filled in."""
    prompt_ids, prompt_mask = pad_left(queries, tokenizer.pad_token_id, device)
    response_ids, response_mask = pad_right(responses, tokenizer.pad_token_id, device)
    logprobs, ref_logprobs, values = torch.zeros((3, *response_mask.shape), device=device)
    eos = tokenizer.eos_token_id
    return Experience(
        input_ids=torch.cat([prompt_ids, response_ids], 1),
        attention_mask=torch.cat([prompt_mask, response_mask.long()], 1),
        response_mask=response_mask,
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        values=values,
        scores=scores.to(device),
        finished=torch.tensor([int(r[-1]) == eos for r in responses], device=device),
    )


def trim(experience: Experience, rows: torch.Tensor) -> Experience:
    """The chosen rows, without columns in which all of them are padding."""
    prompt_length = experience.prompt_length
    mask = experience.attention_mask[rows]
    first = int(mask[:, :prompt_length].any(0).int().argmax())
    response_mask = experience.response_mask[rows]
    length = int(response_mask.any(0).sum())
    cut = {}
    for f in fields(experience):
        tensor = getattr(experience, f.name)[rows]
        if f.name in ("input_ids", "attention_mask"):
            tensor = tensor[:, first : prompt_length + length]
        elif tensor.dim() == 2:
            tensor = tensor[:, :length]
        cut[f.name] = tensor
    return Experience(**cut)


def response_logprobs(
    logits: torch.Tensor, input_ids: torch.Tensor, length: int, temperature: float
) -> torch.Tensor:
    """Log-probs (B, R) of the last R = `length` tokens.

    Args:
        logits: (B, R + 1, V), of the last R + 1 positions; the very last predicts what comes after.
        input_ids: (B, T).
    """
    shifted = (logits[:, :-1].float() / temperature).log_softmax(-1)
    return shifted.gather(-1, input_ids[:, -length:, None]).squeeze(-1)


def policy_outputs(
    model: torch.nn.Module, batch: Experience, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logprobs, values), both (B, R), of a model with a value head."""
    length = batch.response_mask.shape[1]
    logits, _, values = model(
        batch.input_ids,
        batch.attention_mask,
        keep=length + 1,
        position_ids=position_ids(batch.attention_mask),
    )
    return response_logprobs(logits, batch.input_ids, length, temperature), values[:, :-1]


@torch.no_grad()
def reference_logprobs(
    model: PreTrainedModel, batch: Experience, temperature: float
) -> torch.Tensor:
    """(B, R), of a plain language model."""
    length = batch.response_mask.shape[1]
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=position_ids(batch.attention_mask),
        logits_to_keep=length + 1,
    ).logits
    return response_logprobs(logits, batch.input_ids, length, temperature)
