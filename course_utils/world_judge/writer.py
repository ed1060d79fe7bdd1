"""The model at work: many prompts of token ids at once, each written on to its end.

`generation.generate` takes texts, one temperature and one seed for all; a judge's requests come
with settings of their own, and the grades' probabilities are asked for. So the loop stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .template import Template


@dataclass(frozen=True)
class Job:
    """One prompt to write on.

    Attributes:
        prompt: token ids.
        limit: most tokens to write.
        temperature: 0 takes the likeliest token.
        seed: of the draws at other temperatures; the same seed gives the same text.
    """

    prompt: tuple[int, ...]
    limit: int = 160
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """What the model wrote.

    Attributes:
        text: without its end.
        tokens: ids, the end included.
        finished: it ended by itself.
        watched: per token, the log-probabilities of the tokens that were watched for, whatever the
            temperature.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool
    watched: tuple[tuple[float, ...], ...]


def write(
    model: Any, template: Template, jobs: Sequence[Job], watch: Sequence[int], batch_size: int = 64
) -> list[Written]:
    """What `model` writes for each job, in order; prompts of like length go together."""
    order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].prompt))
    made: dict[int, Written] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        made.update(zip(part, _write(model, template, [jobs[i] for i in part], watch), strict=True))
    return [made[i] for i in range(len(jobs))]


def _write(
    model: Any, template: Template, jobs: Sequence[Job], watch: Sequence[int]
) -> list[Written]:
    import torch

    eos = template.tokenizer.eos_token_id
    ids, mask = _left_padded(jobs, model.device)
    draws = [torch.Generator().manual_seed(job.seed) for job in jobs]
    rows: list[list[int]] = [[] for _ in jobs]
    watched: list[list[tuple[float, ...]]] = [[] for _ in jobs]
    open_rows = set(range(len(jobs)))
    cache, positions = None, (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        while open_rows:
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logprobs = output.logits[:, -1].float().log_softmax(-1).cpu()
            seen = logprobs[:, list(watch)].tolist()
            chosen = _choose(logprobs, jobs, draws)
            for i in sorted(open_rows):
                rows[i].append(chosen[i])
                watched[i].append(tuple(seen[i]))
                if chosen[i] == eos or len(rows[i]) >= jobs[i].limit:
                    open_rows.discard(i)
            ids = torch.tensor(chosen, device=model.device)[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            positions = positions[:, -1:] + 1
    return [_written(template, row, seen) for row, seen in zip(rows, watched, strict=True)]


def _left_padded(jobs: Sequence[Job], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (B, P), padded on the left."""
    import torch

    width = max(len(job.prompt) for job in jobs)
    ids = torch.zeros(len(jobs), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, job in enumerate(jobs):
        ids[i, width - len(job.prompt) :] = torch.tensor(job.prompt)
        mask[i, width - len(job.prompt) :] = 1
    return ids.to(device), mask.to(device)


def _choose(
    logprobs: torch.Tensor, jobs: Sequence[Job], draws: Sequence[torch.Generator]
) -> list[int]:
    """The next token of every row: the likeliest, or one drawn at the job's temperature."""
    import torch

    chosen = logprobs.argmax(-1).tolist()
    for i, job in enumerate(jobs):
        if job.temperature > 0:
            shares = (logprobs[i] / job.temperature).softmax(-1)
            chosen[i] = int(torch.multinomial(shares, 1, generator=draws[i]))
    return chosen


def _written(
    template: Template, row: Sequence[int], watched: Sequence[tuple[float, ...]]
) -> Written:
    eos = template.tokenizer.eos_token_id
    finished = bool(row) and row[-1] == eos
    text = template.tokenizer.decode(list(row), skip_special_tokens=True).strip()
    return Written(text, tuple(row), finished, tuple(watched))
