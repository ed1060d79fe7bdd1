"""Log-probabilities of the tokens of a sequence, and what is made of them: loss, KL, whitening."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

IGNORE = -100  # the label that torch's and TRL's cross-entropy leave out


def token_logprobs(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Log-probability of every token given those before it.

    Args:
        logits: (B, T, V), any float dtype; position t predicts token t+1.
        input_ids: (B, T).

    Returns:
        (B, T-1) in float32: entry t belongs to token t+1.
    """
    shifted = logits[:, :-1].float().log_softmax(-1)
    return shifted.gather(-1, input_ids[:, 1:, None]).squeeze(-1)


def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-probability of the kept tokens of the batch.

    Args:
        logits: (B, T, V).
        labels: (B, T), the token ids, with -100 where the loss must not look (prompt, padding).

    Raises:
        ValueError: when no label is kept; the mean of nothing is not a loss.
    """
    keep = labels[:, 1:] != IGNORE
    if not keep.any():
        raise ValueError("every label is -100: there is no response token to learn from")
    logprobs = token_logprobs(logits, labels.clamp(min=0))
    return -logprobs[keep].mean()


def position_ids(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions (B, T) that count only real tokens, so that left padding changes nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def sequence_logprobs(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """`token_logprobs` of a padded batch: (B, T-1)."""
    logits = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
    ).logits
    return token_logprobs(logits, input_ids)


def kl_estimates(
    logprobs: torch.Tensor, ref_logprobs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three estimates (k1, k2, k3) of KL(policy || reference), token by token.

    With `d = ref_logprobs - logprobs` at tokens sampled from the policy: `k1 = -d` is unbiased and
    may be negative, `k2 = d²/2` is biased and steady, `k3 = exp(d) - 1 - d` is unbiased and never
    negative (Schulman 2020, "Approximating KL Divergence").

    Args:
        logprobs, ref_logprobs: (B, R), of the same sampled tokens.
    """
    d = ref_logprobs - logprobs
    return -d, d.square() / 2, d.exp() - 1 - d


def whiten(
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    shift_mean: bool = True,
    add_up: Callable[[torch.Tensor], torch.Tensor] = lambda total: total,
) -> torch.Tensor:
    """Scale the kept entries to variance 1, and to mean 0 unless `shift_mean` is off.

    Args:
        values: (B, R); mask: (B, R), True where an entry counts. The others come out as 0.
        shift_mean: False keeps the mean as it was, which is how rewards are whitened: their mean
            says how good a batch was.
        add_up: sums a tensor over processes, so that all of them whiten with the same numbers.
    """
    kept = values.masked_fill(~mask, 0)
    count, total = add_up(mask.sum().to(kept.dtype)), add_up(kept.sum())
    mean = total / count
    variance = add_up(((kept - mean) * mask).square().sum()) / count
    white = (kept - mean) * (variance + 1e-8).rsqrt()
    return (white if shift_mean else white + mean) * mask
