"""Log-probabilities of the tokens of a sequence, and the SFT loss made of them."""

from __future__ import annotations

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
