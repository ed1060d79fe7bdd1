"""Advantages without a value function: a response is compared with others to the same prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError

if TYPE_CHECKING:
    import torch

EPS = 1e-4  # as in TRL


def rloo_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Each reward minus the mean of the others in its group: (B, G) -> (B, G).

    The mean of the others does not depend on the response itself, so as a baseline it leaves the
    policy gradient's expectation as it is. Ahmadian et al. 2024 (arXiv 2402.14740).

    Args:
        rewards: (B, G), of G responses to each of B prompts.

    Raises:
        CourseError: no such shape, fewer than two responses to a prompt, or a reward that is no
            finite number.
    """
    values = _groups(rewards)
    others = values.sum(1, keepdim=True) - values
    return values - others / (values.shape[1] - 1)


def grpo_advantages(rewards: torch.Tensor, *, scale: bool = True, eps: float = EPS) -> torch.Tensor:
    """(reward - mean) / (std + eps) within each group: (B, G) -> (B, G).

    A group whose rewards are all equal gets zeros. Shao et al. 2024 (arXiv 2402.03300), section
    4.1.2; the deviation divides by G - 1, as in TRL.

    Args:
        rewards: (B, G), of G responses to each of B prompts.
        scale: False leaves the deviation out, as Dr. GRPO does (Liu et al. 2025, arXiv 2503.20783).

    Raises:
        CourseError: as for `rloo_advantages`.
    """
    values = _groups(rewards)
    centred = values - values.mean(1, keepdim=True)
    if not scale:
        return centred
    # Rounding may leave a trace in a flat group's mean, which division by eps would blow up.
    centred = centred.masked_fill(flat_groups(values)[:, None], 0.0)
    return centred / (values.std(1, keepdim=True) + eps)


def flat_groups(rewards: torch.Tensor) -> torch.Tensor:
    """Which groups have no signal, all their rewards being equal: (B, G) -> (B,) of bool."""
    values = _groups(rewards)
    return (values == values[:, :1]).all(1)


def _groups(rewards: Any) -> torch.Tensor:
    """The rewards in a floating dtype, (B, G), or a CourseError that says what is wrong."""
    import torch

    if not isinstance(rewards, torch.Tensor) or rewards.dim() != 2:
        shape = tuple(rewards.shape) if hasattr(rewards, "shape") else type(rewards).__name__
        raise CourseError(
            f"rewards are {shape}: give a tensor (B, G), one row of G responses for each prompt."
        )
    if rewards.shape[0] == 0 or rewards.shape[1] < 2:
        raise CourseError(
            f"rewards have the shape {tuple(rewards.shape)}: a group needs at least two responses, "
            "since each is compared with the others."
        )
    values = rewards if rewards.is_floating_point() else rewards.float()
    if not values.isfinite().all():
        row, column = (~values.isfinite()).nonzero()[0].tolist()
        raise CourseError(
            f"rewards[{row}, {column}] is {values[row, column].item()}: rewards must be finite "
            "numbers. Mend the reward function."
        )
    return values
