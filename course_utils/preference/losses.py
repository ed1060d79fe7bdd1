"""Losses that learn from preferences, as pure functions of the responses' log-probabilities.

Every function returns the mean loss and a dictionary of metrics (detached numbers). What goes in
is one log-probability per response: the SUM over its tokens for DPO and its kin and for KTO, the
MEAN for IPO, ORPO and SimPO (`response_logprobs` gives both). Shapes: N pairs, B single responses.

In DPO, hinge, IPO and KTO a larger `beta` keeps the policy CLOSER to the reference.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from course_utils.errors import CourseError, unknown_name

if TYPE_CHECKING:
    import torch

Metrics = dict[str, "torch.Tensor"]
Loss = tuple["torch.Tensor", Metrics]

DPO_TYPES = ("sigmoid", "hinge", "robust")


def implicit_reward(policy: torch.Tensor, ref: torch.Tensor, beta: float) -> torch.Tensor:
    """The reward under which the policy is optimal, up to a constant per prompt: (N,).

    Rafailov et al. 2023 (arXiv 2305.18290), eq. 5 without its beta log Z(x).

    Args:
        policy, ref: (N,) summed log-probabilities of the same responses.
    """
    return beta * (policy - ref)


def dpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> Loss:
    """Direct preference optimisation: classify which side of a pair was chosen.

    Args:
        policy_chosen, policy_rejected, ref_chosen, ref_rejected: (N,) SUMS over each response.
        beta: above 0.
        loss_type: ``sigmoid``; ``hinge``, flat once a pair's margin is 1/beta; ``robust``, which
            is on average the sigmoid loss of the true labels when a share `label_smoothing` of
            them is flipped.
        label_smoothing: 0 to below 0.5. With ``sigmoid`` this is conservative DPO (cDPO): the
            gradient vanishes where the policy prefers the chosen side with probability
            1 - label_smoothing.

    Raises:
        CourseError: `beta` or `label_smoothing` out of range, or an unknown `loss_type`.
    """
    from torch.nn.functional import logsigmoid

    require_positive("beta", beta)
    _require_smoothing(loss_type, label_smoothing)
    chosen = implicit_reward(policy_chosen, ref_chosen, beta)
    rejected = implicit_reward(policy_rejected, ref_rejected, beta)
    margin = chosen - rejected
    if loss_type == "hinge":
        # Zhao et al. 2023 (SLiC, arXiv 2305.10425) on log-ratios: Liu et al. 2023, arXiv 2309.06657
        losses = (1 - margin).relu()
    else:
        kept, flipped = -logsigmoid(margin), -logsigmoid(-margin)
        eps = label_smoothing
        if loss_type == "robust":  # Chowdhury et al. 2024, arXiv 2403.00409
            losses = ((1 - eps) * kept - eps * flipped) / (1 - 2 * eps)
        else:  # eq. 7 of arXiv 2305.18290; with eps: Mitchell 2023, "A note on DPO", eq. 3
            losses = (1 - eps) * kept + eps * flipped
    return losses.mean(), _pair_metrics(chosen, rejected, policy_chosen, policy_rejected)


def ipo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
) -> Loss:
    """Identity preference optimisation: bring every pair's log-ratio to 1/(2 beta), no further.

    Azar et al. 2023 (arXiv 2310.12036), eq. 17, where `beta` is called tau. The paper writes sums;
    its authors, and TRL, use MEANS, so that the target does not depend on the length.

    Args:
        policy_chosen, policy_rejected, ref_chosen, ref_rejected: (N,) MEANS over each response.
        beta: above 0.
    """
    require_positive("beta", beta)
    chosen, rejected = policy_chosen - ref_chosen, policy_rejected - ref_rejected
    losses = (chosen - rejected - 1 / (2 * beta)).square()
    rewards = (beta * chosen, beta * rejected)
    return losses.mean(), _pair_metrics(*rewards, policy_chosen, policy_rejected)


def kto_reference_point(policy: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """KTO's z0, a number: the batch's estimate of KL(policy || reference), at least 0.

    Args:
        policy, ref: (B,) SUMS for mismatched prompts and completions (`pairs.mismatched`).
    """
    # section 4.1 of arXiv 2402.01306: no gradient flows through the reference point
    return (policy - ref).mean().clamp(min=0).detach()


def kto_loss(
    policy: torch.Tensor,
    ref: torch.Tensor,
    desirable: torch.Tensor,
    kl: torch.Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Loss:
    """Kahneman-Tversky optimisation: single responses with a thumb up or down.

    Ethayarajh et al. 2024 (arXiv 2402.01306), L_KTO in section 4.1, with the value of a response
    saturating on both sides of the reference point.

    Args:
        policy, ref: (B,) SUMS over each response.
        desirable: (B,), true for a thumb up.
        kl: the reference point z0, see `kto_reference_point`.
        beta, desirable_weight, undesirable_weight: above 0.

    Returns:
        The loss, and metrics without accuracies (there are no pairs); a kind of which the batch
        has no response is left out.
    """
    import torch

    require_positive("beta", beta)
    require_positive("desirable_weight", desirable_weight)
    require_positive("undesirable_weight", undesirable_weight)
    z0 = kl.detach() if isinstance(kl, torch.Tensor) else kl
    desirable, ratio = desirable.bool(), policy - ref
    gain = torch.where(desirable, ratio - z0, z0 - ratio)
    weight = torch.where(
        desirable, ratio.new_tensor(desirable_weight), ratio.new_tensor(undesirable_weight)
    )
    losses = weight * (1 - torch.sigmoid(beta * gain))  # lambda_y - v(x, y)
    metrics = {"kl": torch.as_tensor(z0, dtype=ratio.dtype)}
    for name, kind in (("chosen", desirable), ("rejected", ~desirable)):
        if kind.any():
            metrics[f"rewards/{name}"] = (beta * ratio[kind]).mean().detach()
            metrics[f"logps/{name}"] = policy[kind].mean().detach()
    if {"rewards/chosen", "rewards/rejected"} <= metrics.keys():
        metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
    return losses.mean(), metrics


def log_odds(logprobs: torch.Tensor) -> torch.Tensor:
    """ln(p / (1 - p)) of p = exp(logprobs), finite and with a finite gradient up to p = 1: (N,).

    `log1p(-exp(x))` loses all digits as x nears 0, where exp(x) rounds to 1; `expm1` does not. A
    probability of exactly 1 has infinite odds: it is held one rounding step below.
    """
    import torch

    x = logprobs.clamp(max=-torch.finfo(logprobs.dtype).eps)
    return x - torch.log(-torch.expm1(x))


def orpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    chosen_nll: torch.Tensor,
    beta: float,
) -> Loss:
    """Odds-ratio preference optimisation: SFT on the chosen side plus an odds-ratio penalty.

    Hong et al. 2024 (arXiv 2403.07691), eqs. 4, 6 and 7; `beta` is the paper's lambda.

    Args:
        policy_chosen, policy_rejected: (N,) MEANS over each response.
        chosen_nll: the SFT loss on the chosen side, a number or (N,). TRL averages it over the
            tokens of prompt AND response of the batch; `logprobs.sft_loss` over the responses.
        beta: above 0; weight of the penalty.
    """
    from torch.nn.functional import logsigmoid

    require_positive("beta", beta)
    ratio = log_odds(policy_chosen) - log_odds(policy_rejected)  # eq. 4
    penalty = -logsigmoid(ratio)  # eq. 7
    rewards = (beta * policy_chosen, beta * policy_rejected)
    metrics = _pair_metrics(*rewards, policy_chosen, policy_rejected)
    metrics["nll"] = chosen_nll.mean().detach()
    metrics["log_odds_ratio"] = ratio.mean().detach()
    return chosen_nll.mean() + beta * penalty.mean(), metrics  # eq. 6


def simpo_loss(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor, beta: float, gamma: float
) -> Loss:
    """Simple preference optimisation: mean log-probabilities as rewards, no reference.

    Meng et al. 2024 (arXiv 2405.14734), eq. 6.

    Args:
        policy_chosen, policy_rejected: (N,) MEANS over each response.
        beta: above 0; scale of the rewards.
        gamma: 0 or more; the margin by which the chosen side should win.
    """
    from torch.nn.functional import logsigmoid

    require_positive("beta", beta)
    if not 0 <= gamma < math.inf:
        raise CourseError(f"gamma is {gamma}: it must be 0 or a positive number.")
    rewards = (beta * policy_chosen, beta * policy_rejected)
    losses = -logsigmoid(rewards[0] - rewards[1] - gamma)
    return losses.mean(), _pair_metrics(*rewards, policy_chosen, policy_rejected)


def _pair_metrics(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
) -> Metrics:
    """Means over the batch, under TRL's names; the first two are rewards, (N,)."""
    return {
        "rewards/chosen": chosen.mean().detach(),
        "rewards/rejected": rejected.mean().detach(),
        "rewards/accuracies": (chosen > rejected).float().mean(),
        "rewards/margins": (chosen - rejected).mean().detach(),
        "logps/chosen": policy_chosen.mean().detach(),
        "logps/rejected": policy_rejected.mean().detach(),
    }


def require_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise CourseError(f"{name} is {value}: it must be a positive number, for example 0.1.")


def _require_smoothing(loss_type: str, label_smoothing: float) -> None:
    if loss_type not in DPO_TYPES:
        raise unknown_name("DPO loss type", loss_type, DPO_TYPES)
    if not 0 <= label_smoothing < 0.5:
        raise CourseError(f"label_smoothing is {label_smoothing}: it must be 0 to below 0.5.")
    if loss_type == "hinge" and label_smoothing:
        raise CourseError("The hinge loss has no label smoothing: use 'sigmoid' or 'robust'.")
