"""The formulas of PPO, as pure functions of tensors.

Shapes: B responses, R response tokens, padded on the right; `response_mask` (B, R) is True for the
tokens of a response, its EOS included. What stands on padding never counts.

Sources: Schulman et al. 2017 (arXiv 1707.06347), Schulman et al. 2016 (arXiv 1506.02438) for GAE,
Ziegler et al. 2019 (arXiv 1909.08593) for the KL in the reward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def token_rewards(
    scores: torch.Tensor, kl: torch.Tensor, response_mask: torch.Tensor, kl_coef: float
) -> torch.Tensor:
    """Rewards per token (B, R): `-kl_coef * kl` at every token, plus the score at the last one.

    Args:
        scores: (B,), one per response.
        kl: (B, R), the penalty of each token, usually k1.

    Source: Ziegler et al. 2019, equation 2, spread over the tokens.
    """
    import torch

    rewards = -kl_coef * kl.masked_fill(~response_mask, 0)
    last = response_mask.sum(1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    response_mask: torch.Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimation: (advantages, returns), both (B, R), 0 on padding.

    `delta_t = r_t + gamma V_{t+1} - V_t`, with V = 0 behind the last token, and
    `A_t = delta_t + gamma lam A_{t+1}`; returns are `A + V`.

    Args:
        rewards: (B, R), 0 on padding.
        values: (B, R), the value of the state before each token.

    Source: Schulman et al. 2016, equations 11 and 16.
    """
    import torch

    values = values.masked_fill(~response_mask, 0)
    advantages = torch.zeros_like(values)
    following_value = following = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following_value - values[:, t]
        # On padding everything is 0, so the recursion starts afresh at each response's last token.
        following = (delta + gamma * lam * following) * response_mask[:, t]
        following_value = values[:, t]
        advantages[:, t] = following
    return advantages, advantages + values


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    cliprange: float = 0.2,
    tokens: torch.Tensor | int | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The clipped surrogate, turned into a loss, with its metrics.

    `max(-A ratio, -A clip(ratio, 1 - c, 1 + c))` with `ratio = exp(logprobs - old_logprobs)`.

    Args:
        logprobs, old_logprobs, advantages, response_mask: (B, R).
        tokens: divide by this many tokens instead of those kept here. Where one optimiser step
            sees several pieces (accumulation, processes), it is the number over all of them.

    Returns:
        (loss, {"clipfrac", "approx_kl"}): the share of kept tokens where the clip is the larger
        term, and k3 of the old policy from the new one. All are sums over `tokens`.

    Source: Schulman et al. 2017, equation 7.
    """
    import torch

    log_ratio = (logprobs - old_logprobs).masked_fill(~response_mask, 0)
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    count = response_mask.sum() if tokens is None else tokens
    loss = torch.maximum(plain, clipped).masked_fill(~response_mask, 0).sum() / count
    with torch.no_grad():
        binding = (clipped > plain) & response_mask
        metrics = {
            "clipfrac": binding.sum() / count,
            "approx_kl": (ratio - 1 - log_ratio).sum() / count,
        }
    return loss, metrics


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    response_mask: torch.Tensor,
    cliprange_value: float = 0.2,
    tokens: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Half the squared error of the values, clipped around the old ones: the larger of the two.

    Args: all (B, R); `tokens` as in `policy_loss`.
    """
    import torch

    near = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    errors = torch.maximum((values - returns).square(), (near - returns).square())
    count = response_mask.sum() if tokens is None else tokens
    return 0.5 * errors.masked_fill(~response_mask, 0).sum() / count
