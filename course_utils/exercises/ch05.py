"""Exercises of chapter 05: KL estimates, rewards, GAE, the two losses, best-of-n."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import combinations
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from course_utils.checks import Exercise, Part, Wrong, close, randn
from course_utils.exercises._judge import gradients, judge

if TYPE_CHECKING:
    import torch


def _response_mask(rng: random.Random, rows: int, width: int, tail: int = 0) -> Any:
    """(rows, width + tail) bool: lengths of 4 to width that differ, then `tail` empty columns."""
    import torch

    lengths = torch.tensor([[width], *[[n] for n in rng.sample(range(4, width), rows - 1)]])
    return torch.arange(width + tail) < lengths


def _masked_mean(values: Any, mask: Any) -> Any:
    return (values * mask).sum() / mask.sum()


def _mean_of_rows(values: Any, mask: Any) -> Any:
    return ((values * mask).sum(-1) / mask.sum(-1)).mean()


# --- kl_estimators


def kl_estimators(
    logprobs: torch.Tensor, ref_logprobs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three estimates of KL(policy || reference), per token sampled from the policy.

    With d = ref_logprobs - logprobs: k1 = -d (its mean is the KL), k2 = d²/2 (low variance,
    biased), k3 = exp(d) - 1 - d (its mean is the KL, and it is never negative). Schulman 2020,
    "Approximating KL Divergence".

    Args:
        logprobs: (B, R), of the sampled tokens under the policy.
        ref_logprobs: (B, R), of the same tokens under the reference.

    Returns:
        (k1, k2, k3), each (B, R).
    """
    d = ref_logprobs - logprobs
    return -d, d**2 / 2, d.exp() - 1 - d


def _kl_expm1(logprobs: Any, ref_logprobs: Any) -> Any:
    d = (ref_logprobs - logprobs).double()
    return logprobs - ref_logprobs, 0.5 * d * d, d.expm1() - d


def _kl_by_ratio(logprobs: Any, ref_logprobs: Any) -> Any:
    ratio = ref_logprobs.exp() / logprobs.exp()
    return -ratio.log(), ratio.log().square() / 2, (ratio - 1) - ratio.log()


def _kl_looped(logprobs: Any, ref_logprobs: Any) -> Any:
    columns: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for row, ref_row in zip(logprobs.tolist(), ref_logprobs.tolist(), strict=True):
        d = [ref - own for own, ref in zip(row, ref_row, strict=True)]
        columns[0].append([-x for x in d])
        columns[1].append([x * x / 2 for x in d])
        columns[2].append([math.exp(x) - 1 - x for x in d])
    return columns


def _kl_on_probabilities(logprobs: Any, ref_logprobs: Any) -> Any:
    return kl_estimators(logprobs.exp(), ref_logprobs.exp())


def _kl_weighted(logprobs: Any, ref_logprobs: Any) -> Any:
    return tuple(logprobs.exp() * k for k in kl_estimators(logprobs, ref_logprobs))


KL_WRONG = {
    "k1 sign": Wrong(
        lambda p, q: (q - p, *kl_estimators(p, q)[1:]),
        "the sign of k1: it is logprobs - ref_logprobs, above zero where the policy is surer",
    ),
    "probabilities": Wrong(
        _kl_on_probabilities, "these are log-probabilities already: subtract them as they are"
    ),
    "weighted": Wrong(
        _kl_weighted,
        "do not multiply by the probability: the tokens are samples of the policy already",
    ),
    "averaged": Wrong(
        lambda p, q: tuple(k.mean() for k in kl_estimators(p, q)),
        "one estimate per token, in the shape of the log-probs: no mean",
    ),
    "order": Wrong(
        lambda p, q: itemgetter(1, 0, 2)(kl_estimators(p, q)), "the order is k1, k2, k3"
    ),
    "k2 not halved": Wrong(
        lambda p, q: (p - q, (p - q) ** 2, kl_estimators(p, q)[2]),
        "k2 is twice too large: the half is missing",
    ),
    "k2 absolute": Wrong(
        lambda p, q: (p - q, (p - q).abs() / 2, kl_estimators(p, q)[2]),
        "k2 is half the square of d, not half its absolute value",
    ),
    "k3 sign of d": Wrong(
        lambda p, q: (p - q, (p - q) ** 2 / 2, (p - q).exp() - 1 - (p - q)),
        "the sign of d in k3: d is ref_logprobs - logprobs, the other sign estimates another KL",
    ),
    "k3 without 1": Wrong(
        lambda p, q: (p - q, (p - q) ** 2 / 2, (q - p).exp() - (q - p)),
        "the -1 is missing in k3: where both models agree it is 0",
    ),
    "k3 plus d": Wrong(
        lambda p, q: (p - q, (p - q) ** 2 / 2, (q - p).exp() - 1 + (q - p)),
        "k3 subtracts d; with a plus it can become negative",
    ),
}


def _check_kl(answer: Any, rng: random.Random) -> Iterator[Part]:
    shape = rng.randint(2, 4), rng.randint(5, 8)
    logprobs = -randn(rng, *shape).abs() - 0.3
    args = logprobs, logprobs + randn(rng, *shape) * 0.6
    got = tuple(answer(*args))
    if len(got) != 3:
        yield Part(3, False, "return three results: k1, k2 and k3")
        return
    for index, (k, want) in enumerate(zip(got, _kl_looped(*args), strict=True)):
        formula = ("k1 = -d", "k2 = d²/2", "k3 = exp(d) - 1 - d")[index]
        otherwise = f"{formula}, with d = ref_logprobs - logprobs"
        yield judge(1, k, want, KL_WRONG, args, otherwise, itemgetter(index))


# --- token_rewards


def token_rewards(
    scores: torch.Tensor,
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    response_mask: torch.Tensor,
    kl_coef: float,
) -> torch.Tensor:
    """One reward per token: the KL penalty everywhere, the score added at the last kept token.

    Ziegler et al. 2019 (arXiv 1909.08593), eq. 2, spread over the tokens.

    Args:
        scores: (B,), the reward model's.
        logprobs: (B, R), of the policy.
        ref_logprobs: (B, R), of the reference.
        response_mask: (B, R), True for the response with its EOS; padding is on the right.
        kl_coef: the weight of the penalty.

    Returns:
        (B, R), zero outside the mask.
    """
    import torch

    kept = response_mask.bool()
    rewards = torch.where(kept, -kl_coef * (logprobs - ref_logprobs), 0.0)
    last = kept.sum(-1) - 1
    rewards[torch.arange(len(scores), device=last.device), last] += scores
    return rewards


def _rewards_looped(scores: Any, logprobs: Any, ref: Any, mask: Any, kl_coef: float) -> Any:
    rows = []
    for b in range(len(scores)):
        kept = [t for t in range(mask.shape[1]) if mask[b, t]]
        row = [0.0] * mask.shape[1]
        for t in kept:
            row[t] = kl_coef * float(ref[b, t] - logprobs[b, t])
        row[kept[-1]] += float(scores[b])
        rows.append(row)
    return rows


def _rewards_where(scores: Any, logprobs: Any, ref: Any, mask: Any, kl_coef: float) -> Any:
    """The last kept token is the one with none after it."""
    after = mask.flip(-1).cumsum(-1).flip(-1)
    at_end = (mask & (after == 1)).double()
    return kl_coef * (ref - logprobs).double() * mask + scores[:, None].double() * at_end


def _rewards_scattered(scores: Any, logprobs: Any, ref: Any, mask: Any, kl_coef: float) -> Any:
    last = mask.long().cumsum(-1).argmax(-1, keepdim=True)
    return ((ref - logprobs) * kl_coef * mask).scatter_add(1, last, scores[:, None])


def _rewards_placed(scores: Any, penalty: Any, mask: Any, shift: int) -> Any:
    """`penalty` plus the score, `shift` places after the last kept token."""
    place = (mask.sum(-1, keepdim=True) - 1 + shift).clamp(max=penalty.shape[1] - 1)
    return penalty.scatter_add(1, place, scores[:, None])


def _penalty(logprobs: Any, ref: Any, mask: Any, kl_coef: float) -> Any:
    return (ref - logprobs) * kl_coef * mask


def _rewards_last_column(s: Any, p: Any, q: Any, m: Any, k: float) -> Any:
    rewards = _penalty(p, q, m, k)
    rewards[:, -1] += s
    return rewards


def _rewards_replaced(s: Any, p: Any, q: Any, m: Any, k: float) -> Any:
    return _penalty(p, q, m, k).scatter(1, m.sum(-1, keepdim=True) - 1, s[:, None])


REWARDS_WRONG = {
    "last column": Wrong(
        _rewards_last_column,
        "the score went to the last column: padding; put it at each row's last kept token",
    ),
    "every token": Wrong(
        lambda s, p, q, m, k: _penalty(p, q, m, k) + s[:, None] * m,
        "the score counts once, at the last kept token, not at every token",
    ),
    "one after": Wrong(
        lambda s, p, q, m, k: _rewards_placed(s, _penalty(p, q, m, k), m, 1),
        "one place too far: with n kept tokens the last has index n - 1",
    ),
    "first token": Wrong(
        lambda s, p, q, m, k: _rewards_placed(s, _penalty(p, q, m, k), m[:, :1], 0),
        "the score went to the first token; it is known only when the response has ended",
    ),
    "no score": Wrong(lambda s, p, q, m, k: _penalty(p, q, m, k), "the score is not in the sum"),
    "KL sign": Wrong(
        lambda s, p, q, m, k: _rewards_looped(s, q, p, m, k),
        "the sign of the KL: the penalty is -kl_coef * (logprobs - ref_logprobs)",
    ),
    "KL ignored": Wrong(
        lambda s, p, q, m, k: _rewards_looped(s, p, p, m, k), "the KL penalty is missing"
    ),
    "mask ignored": Wrong(
        lambda s, p, q, m, k: _rewards_placed(s, (q - p) * k, m, 0),
        "padding is penalised too: rewards are zero outside the mask",
    ),
    "KL over length": Wrong(
        lambda s, p, q, m, k: _rewards_placed(
            s, _penalty(p, q, m, k) / m.sum(-1, keepdim=True), m, 0
        ),
        "do not divide by the length: each token pays for its own difference",
    ),
    "KL summed": Wrong(
        lambda s, p, q, m, k: _rewards_looped(s + _penalty(p, q, m, k).sum(-1), p, p, m, k),
        "the KL belongs to the token that caused it, not in one sum at the end",
    ),
    "score replaces": Wrong(
        _rewards_replaced, "the last token has both: add the score to its penalty"
    ),
    "absolute": Wrong(
        lambda s, p, q, m, k: _rewards_placed(s, -k * (p - q).abs() * m, m, 0),
        "k1 has a sign: take the difference itself, not its absolute value",
    ),
}


def _check_rewards(answer: Any, rng: random.Random) -> Iterator[Part]:
    mask = _response_mask(rng, rng.randint(3, 4), rng.randint(7, 9), tail=2)
    scores, logprobs = randn(rng, len(mask)) + 2, randn(rng, *mask.shape) - 2
    ref = logprobs + randn(rng, *mask.shape)
    args = scores, logprobs, ref, mask, 0.0
    otherwise = "without a penalty (kl_coef 0) only the last kept token of a row has a reward"
    yield judge(1, answer(*args), _rewards_looped(*args), REWARDS_WRONG, args, otherwise)
    args = scores, logprobs[:, :-2], ref[:, :-2], mask[:, :-2], rng.uniform(0.2, 0.5)
    otherwise = "every kept token pays -kl_coef * (logprobs - ref_logprobs), padding nothing"
    yield judge(2, answer(*args), _rewards_looped(*args), REWARDS_WRONG, args, otherwise)


# --- whiten


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Shifted and scaled to mean 0 and variance 1 over the kept tokens of the whole batch.

    The variance divides by the number of kept tokens; 1e-8 is added to it, so that values that
    are all alike become zeros.

    Args:
        values: (B, R).
        mask: (B, R), True where a value counts.

    Returns:
        (B, R), zero outside the mask.
    """
    import torch

    kept = values[mask.bool()]
    scale = (kept.var(correction=0) + 1e-8).rsqrt()
    return torch.where(mask.bool(), (values - kept.mean()) * scale, 0.0)


def _whiten_by_hand(values: Any, mask: Any) -> Any:
    mean = _masked_mean(values, mask)
    variance = _masked_mean((values - mean) ** 2, mask)
    return (values - mean) / (variance.sqrt() + 1e-8) * mask


def _whiten_double(values: Any, mask: Any) -> Any:
    kept = values.double()[mask]
    centred = kept - kept.mean()
    out = values.double() * 0
    out[mask] = centred / (centred.square().mean() + 1e-8).sqrt()
    return out


def _whiten_rows(values: Any, mask: Any) -> Any:
    import torch

    rows = zip(values.split(1), mask.split(1), strict=True)
    return torch.cat([_whiten_by_hand(row, keep) for row, keep in rows])


def _kept_sd(values: Any, mask: Any) -> Any:
    return (values[mask].var(correction=0) + 1e-8).sqrt()


WHITEN_WRONG = {
    "no eps": Wrong(
        lambda v, m: (v - v[m].mean()) / v[m].std(correction=0) * m,
        "0/0 when all values are alike: add 1e-8 to the variance",
    ),
    "mean kept": Wrong(lambda v, m: v / _kept_sd(v, m) * m, "subtract the mean"),
    "mean added back": Wrong(
        lambda v, m: (_whiten_by_hand(v, m) + v[m].mean()) * m,
        "do not add the mean back: whitened advantages have mean 0",
    ),
    "not scaled": Wrong(
        lambda v, m: (v - v[m].mean()) * m, "divide by the standard deviation as well"
    ),
    "variance": Wrong(
        lambda v, m: (v - v[m].mean()) / (v[m].var(correction=0) + 1e-8) * m,
        "divide by the square root of the variance",
    ),
    "unbiased": Wrong(
        lambda v, m: (v - v[m].mean()) / (v[m].std() + 1e-8) * m,
        "divide by the number of kept tokens, not by one less (torch: correction=0)",
    ),
    "mask ignored": Wrong(
        lambda v, m: (v - v.mean()) / v.std(correction=0) * m,
        "mean and variance of the kept tokens only: padding must not count",
    ),
    "zeros counted": Wrong(
        lambda v, m: _whiten_by_hand(v * m, m | True) * m,
        "zeroed padding still counts: divide by the number of kept tokens, not of all",
    ),
    "row by row": Wrong(
        _whiten_rows, "over the whole batch, not row by row: rows differ in how good they are"
    ),
    "padding left": Wrong(
        lambda v, m: (v - v[m].mean()) / _kept_sd(v, m), "zero outside the mask, after the shift"
    ),
}


def _check_whiten(answer: Any, rng: random.Random) -> Iterator[Part]:
    mask = _response_mask(rng, rng.randint(3, 4), rng.randint(7, 9))
    values = randn(rng, *mask.shape) * 2 + rng.choice((-1.5, 1.5))
    values = values.masked_fill(~mask, rng.uniform(5.0, 9.0))
    args = values, mask
    otherwise = "subtract the mean of the kept tokens, divide by their standard deviation"
    yield judge(2, answer(*args), _whiten_double(*args), WHITEN_WRONG, args, otherwise)
    args = values.masked_fill(mask, rng.choice((-2.0, 0.5, 4.0))), mask
    otherwise = "values that are all alike become zeros"
    yield judge(1, answer(*args), values * 0, WHITEN_WRONG, args, otherwise)


# --- gae


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    response_mask: torch.Tensor,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimates (Schulman et al. 2015, arXiv 1506.02438, eq. 16).

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}. After the last
    kept token nothing follows: V and A are 0 there.

    Args:
        rewards: (B, R).
        values: (B, R); what stands on padding is never used.
        response_mask: (B, R), True for the response with its EOS; padding is on the right.
        gamma: discount per token.
        lam: 0 trusts the values, 1 the rewards.

    Returns:
        (advantages, returns), both (B, R) and zero outside the mask; returns = advantages + values.
    """
    import torch

    kept = response_mask.bool()
    values = values.masked_fill(~kept, 0.0)
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])  # A_{t+1}
    next_value = torch.zeros_like(following)  # V_{t+1}
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = torch.where(kept[:, t], delta + gamma * lam * following, 0.0)
        next_value = values[:, t]
        advantages[:, t] = following
    return advantages, advantages + values


def _gae_by_sum(rewards: Any, values: Any, mask: Any, gamma: float, lam: float) -> Any:
    """eq. 16 as it is printed: A_t is the sum over l of (gamma lam)^l delta_{t+l}."""
    advantages, returns = [], []
    for r, v, m in zip(rewards.tolist(), values.tolist(), mask.tolist(), strict=True):
        length, padding = sum(m), [0.0] * (len(m) - sum(m))
        v = [*v[:length], 0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        row = [
            sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, length))
            for t in range(length)
        ]
        advantages.append(row + padding)
        returns.append([a + b for a, b in zip(row, v[:length], strict=True)] + padding)
    return advantages, returns


def _gae_by_matrix(rewards: Any, values: Any, mask: Any, gamma: float, lam: float) -> Any:
    import torch
    from torch.nn.functional import pad

    values = values.double() * mask
    delta = (rewards + gamma * pad(values, (0, 1))[:, 1:] - values) * mask
    steps = torch.arange(mask.shape[1])
    gap = (steps[:, None] - steps[None, :]).clamp(min=0)  # row s, column t: s - t
    weight = ((gamma * lam) ** gap.double()).tril()
    advantages = delta @ weight * mask
    return advantages, advantages + values


def _gae_by_returns(rewards: Any, values: Any, mask: Any, gamma: float, lam: float) -> Any:
    """The same through lambda-returns: G_t = r_t + gamma ((1 - lam) V_{t+1} + lam G_{t+1})."""
    returns = (values * 0).double()
    for b, length in enumerate(mask.sum(-1).tolist()):
        value, ahead = 0.0, 0.0
        for t in range(length - 1, -1, -1):
            ahead = float(rewards[b, t]) + gamma * ((1 - lam) * value + lam * ahead)
            value = float(values[b, t])
            returns[b, t] = ahead
    return returns - values.double() * mask, returns


def _gae_scan(deltas: Any, decay: float) -> Any:
    """Backwards over all columns, whatever stands in them."""
    import torch

    columns = [deltas[:, -1]]
    for t in range(deltas.shape[1] - 2, -1, -1):
        columns.insert(0, deltas[:, t] + decay * columns[0])
    return torch.stack(columns, 1)


def _deltas(rewards: Any, values: Any, gamma: float) -> Any:
    from torch.nn.functional import pad

    return rewards + gamma * pad(values, (0, 1))[:, 1:] - values


def _finish(advantages: Any, values: Any, mask: Any) -> Any:
    return advantages * mask, (advantages + values) * mask


def _gae_bootstrap(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    return _finish(_gae_scan(_deltas(r, v, g) * m, g * lam), v, m)


def _gae_no_reset(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    return _finish(_gae_scan(_deltas(r, v, g), g * lam), v, m)


def _gae_forward(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    return _finish(_gae_scan((_deltas(r, v * m, g) * m).flip(-1), g * lam).flip(-1), v, m)


def _gae_no_value(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    return _finish(_gae_scan((_deltas(r, v * m, g) + v) * m, g * lam), v, m)


def _gae_no_next(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    return _finish(_gae_scan((r - v) * m, g * lam), v, m)


def _gae_trace_without_gamma(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    return _finish(_gae_scan(_deltas(r, v * m, g) * m, lam), v, m)


def _gae_padding_kept(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    advantages, _ = gae(r, v, m, g, lam)
    return advantages, advantages + v


def _gae_rewards_to_go(r: Any, v: Any, m: Any, g: float, lam: float) -> Any:
    return gae(r, v, m, g, lam)[0], _gae_scan(r * m, g) * m


GAE_WRONG = {
    "rewards to go": Wrong(
        _gae_rewards_to_go, "returns are advantages + values, not the sum of the rewards to come"
    ),
    "bootstraps from padding": Wrong(
        _gae_bootstrap,
        "delta of the last kept token uses a value from padding: V is 0 after it",
    ),
    "no reset": Wrong(
        _gae_no_reset, "advantages of padding flow into the response: A is 0 after the last token"
    ),
    "forward": Wrong(
        _gae_forward, "the sum runs the wrong way: start at the last token and go backwards"
    ),
    "lam forgotten": Wrong(
        lambda r, v, m, g, lam: gae(r, v, m, g, 1.0),
        "lam is forgotten: that is the Monte Carlo estimate, A_t = delta_t + gamma lam A_{t+1}",
    ),
    "one step": Wrong(
        lambda r, v, m, g, lam: gae(r, v, m, g, 0.0),
        "those are the deltas alone: add gamma lam times the advantage that follows",
    ),
    "gamma forgotten": Wrong(
        lambda r, v, m, g, lam: gae(r, v, m, 1.0, lam), "gamma is forgotten (taken as 1)"
    ),
    "trace without gamma": Wrong(
        _gae_trace_without_gamma, "gamma stands twice: before V_{t+1} and, with lam, before A_{t+1}"
    ),
    "value not subtracted": Wrong(_gae_no_value, "subtract V_t in delta"),
    "next value missing": Wrong(_gae_no_next, "gamma V_{t+1} is missing in delta"),
    "returns on padding": Wrong(
        _gae_padding_kept, "returns are zero outside the mask: the values there are garbage"
    ),
    "returns from rewards": Wrong(
        lambda r, v, m, g, lam: (gae(r, v, m, g, lam)[0], (r + v) * m),
        "returns are advantages + values, not rewards + values",
    ),
}


def _check_gae(answer: Any, rng: random.Random) -> Iterator[Part]:
    mask = _response_mask(rng, rng.randint(3, 4), rng.randint(7, 9), tail=rng.randint(0, 1))
    mask[-1, 1:] = False  # one response is a single token
    rewards = randn(rng, *mask.shape) * mask
    values = randn(rng, *mask.shape).masked_fill(~mask, rng.uniform(3.0, 6.0))
    args = rewards, values, mask, rng.uniform(0.8, 0.95), rng.uniform(0.5, 0.85)
    want_advantages, want_returns = _gae_by_sum(*args)
    advantages, returns = answer(*args)
    otherwise = "delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}, backwards"
    yield judge(3, advantages, want_advantages, GAE_WRONG, args, otherwise, itemgetter(0))
    otherwise = "returns = advantages + values on kept tokens, zero outside"
    yield judge(1, returns, want_returns, GAE_WRONG, args, otherwise, itemgetter(1))


# --- clipped_policy_loss


def clipped_policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    cliprange: float,
) -> torch.Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, eq. 7), as a loss.

    Args:
        logprobs: (B, R), of the policy being trained; the gradient flows here.
        old_logprobs: (B, R), of the policy that sampled the tokens.
        advantages: (B, R).
        response_mask: (B, R), True for the response with its EOS.
        cliprange: the ratio is clipped to 1 - cliprange … 1 + cliprange.

    Returns:
        A scalar: the mean over kept tokens of max(-A ratio, -A clipped ratio).
    """
    import torch

    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - cliprange, 1 + cliprange)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    return losses[response_mask.bool()].mean()


def _policy_looped(lp: Any, old: Any, adv: Any, mask: Any, cliprange: float) -> Any:
    losses = []
    for b, t in mask.nonzero().tolist():
        ratio = (lp[b, t] - old[b, t]).exp()
        inside = ratio.clamp(1 - cliprange, 1 + cliprange)
        losses.append(max(-adv[b, t] * ratio, -adv[b, t] * inside))
    return sum(losses) / len(losses)


def _policy_by_sign(lp: Any, old: Any, adv: Any, mask: Any, cliprange: float) -> Any:
    """A good token's ratio is capped above, a bad token's below: the same in other words."""
    import torch

    ratio = (lp.double() - old.double()).exp()
    capped = torch.where(adv > 0, ratio.clamp(max=1 + cliprange), ratio.clamp(min=1 - cliprange))
    return -_masked_mean(capped * adv, mask)


def _policy_minus_min(lp: Any, old: Any, adv: Any, mask: Any, cliprange: float) -> Any:
    import torch

    ratio = lp.exp() / old.exp()
    objective = torch.min(ratio * adv, ratio.clip(1 - cliprange, 1 + cliprange) * adv)
    return -(objective * mask).sum() / mask.sum()


def _surrogate(ratio: Any, clipped: Any, adv: Any) -> Any:
    import torch

    return torch.maximum(-adv * ratio, -adv * clipped)


def _token_losses(p: Any, o: Any, a: Any, c: float) -> Any:
    ratio = (p - o).exp()
    return _surrogate(ratio, ratio.clamp(1 - c, 1 + c), a)


def _policy_one_side(p: Any, o: Any, a: Any, m: Any, **bounds: float) -> Any:
    ratio = (p - o).exp()
    return _masked_mean(_surrogate(ratio, ratio.clamp(**bounds), a), m)


def _policy_optimistic(p: Any, o: Any, a: Any, m: Any, c: float) -> Any:
    import torch

    ratio = (p - o).exp()
    return _masked_mean(torch.minimum(-a * ratio, -a * ratio.clamp(1 - c, 1 + c)), m)


def _policy_log_clipped(p: Any, o: Any, a: Any, m: Any, c: float) -> Any:
    return _masked_mean(_surrogate((p - o).exp(), (p - o).clamp(-c, c).exp(), a), m)


def _policy_difference(p: Any, o: Any, a: Any, m: Any, c: float) -> Any:
    return _masked_mean(_surrogate(p - o, (p - o).clamp(1 - c, 1 + c), a), m)


POLICY_WRONG = {
    "minimum": Wrong(
        _policy_optimistic,
        "min for max: of the two losses take the larger, the cautious one",
    ),
    "lower side only": Wrong(
        lambda p, o, a, m, c: _policy_one_side(p, o, a, m, min=1 - c),
        "the upper clip 1 + cliprange is missing",
    ),
    "upper side only": Wrong(
        lambda p, o, a, m, c: _policy_one_side(p, o, a, m, max=1 + c),
        "the lower clip 1 - cliprange is missing",
    ),
    "no clip": Wrong(
        lambda p, o, a, m, c: _masked_mean(-a * (p - o).exp(), m), "the ratio is not clipped at all"
    ),
    "clipped only": Wrong(
        lambda p, o, a, m, c: _masked_mean(-a * (p - o).exp().clamp(1 - c, 1 + c), m),
        "the unclipped term is missing: without it a bad step outside the range is never undone",
    ),
    "ratio inverted": Wrong(
        lambda p, o, a, m, c: _policy_looped(o, p, a, m, c),
        "the ratio is new over old: exp(logprobs - old_logprobs)",
    ),
    "sign": Wrong(
        lambda p, o, a, m, c: -_policy_looped(p, o, a, m, c),
        "the sign: a loss is minimised, so it is minus the objective",
    ),
    "advantage sign": Wrong(
        lambda p, o, a, m, c: _policy_looped(p, o, -a, m, c),
        "minus before the advantage in both terms: a good token should become likelier",
    ),
    "log-ratio clipped": Wrong(
        _policy_log_clipped, "clip the ratio itself, not its logarithm: 1 ± cliprange"
    ),
    "difference": Wrong(_policy_difference, "the ratio is exp of the difference of the log-probs"),
    "mask ignored": Wrong(
        lambda p, o, a, m, c: _token_losses(p, o, a, c).mean(),
        "padding counts in the mean: use the kept tokens only",
    ),
    "all tokens": Wrong(
        lambda p, o, a, m, c: (_token_losses(p, o, a, c) * m).mean(),
        "divide by the number of kept tokens, not of all",
    ),
    "mean of rows": Wrong(
        lambda p, o, a, m, c: _mean_of_rows(_token_losses(p, o, a, c), m),
        "one mean over all kept tokens of the batch, not row by row",
    ),
    "sum": Wrong(
        lambda p, o, a, m, c: (_token_losses(p, o, a, c) * m).sum(), "the mean, not the sum"
    ),
}


def _check_policy(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    mask = _response_mask(rng, rng.randint(3, 4), rng.randint(7, 9))
    # Inside the clip range, but for four tokens: above and below it, for good and bad tokens.
    # Sizes are such that the differences to a wrong formula do not cancel: one of the four
    # outweighs the others, short rows are better, padding is worse.
    shift = (randn(rng, *mask.shape) * 0.02).clamp(-0.1, 0.1).masked_fill(~mask, 0.6)
    advantages = (randn(rng, *mask.shape) + 0.5).masked_fill(~mask, -3.0)
    advantages[1:] += 1.5
    far = rng.uniform(0.4, 0.7)
    shift[0, :4] = torch.tensor([far, far, -far, -far])
    advantages[0, :4] = torch.tensor([2.0, -0.5, 0.3, -0.5]) * rng.uniform(0.8, 1.2)
    old = -randn(rng, *mask.shape).abs() - 0.2
    cliprange = rng.uniform(0.15, 0.25)
    args = old + shift, old, advantages, mask, cliprange
    otherwise = "mean over kept tokens of max(-A ratio, -A clipped ratio)"
    yield judge(3, answer(*args), _policy_looped(*args), POLICY_WRONG, args, otherwise)
    live = (old + shift).requires_grad_()
    ratio = shift.exp()
    stopped = ((advantages > 0) & (ratio > 1 + cliprange)) | (
        (advantages < 0) & (ratio < 1 - cliprange)
    )
    slope = (-advantages * ratio / mask.sum()).masked_fill(stopped | ~mask, 0.0)
    (got,) = gradients(answer(live, *args[1:]), live)
    mistake = "the gradient must reach logprobs, except where the clip stops it: do not detach"
    yield Part(1, close(got, slope), mistake)


# --- clipped_value_loss


def clipped_value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    response_mask: torch.Tensor,
    cliprange_value: float,
) -> torch.Tensor:
    """PPO's value loss with the new values kept near the old ones.

    It stands in the code of OpenAI's baselines (ppo2), not in the paper.

    Args:
        values: (B, R), of the value head being trained; the gradient flows here.
        old_values: (B, R), when the responses were sampled.
        returns: (B, R), the targets.
        response_mask: (B, R), True for the response with its EOS.
        cliprange_value: values are clipped to old_values ± this.

    Returns:
        A scalar: half the mean over kept tokens of the larger squared error of the two.
    """
    import torch

    near = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    losses = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return 0.5 * losses[response_mask.bool()].mean()


def _value_looped(values: Any, old: Any, returns: Any, mask: Any, cliprange: float) -> Any:
    losses = []
    for b, t in mask.nonzero().tolist():
        near = values[b, t].clamp(old[b, t] - cliprange, old[b, t] + cliprange)
        losses.append(max((values[b, t] - returns[b, t]) ** 2, (near - returns[b, t]) ** 2))
    return sum(losses) / len(losses) / 2


def _value_double(values: Any, old: Any, returns: Any, mask: Any, cliprange: float) -> Any:
    import torch

    values, old, returns = values.double(), old.double(), returns.double()
    near = torch.max(torch.min(values, old + cliprange), old - cliprange)
    errors = torch.stack([values - returns, near - returns]).abs()
    return (errors.amax(0).square() * mask).sum() / mask.sum() / 2


def _value_losses(v: Any, near: Any, r: Any) -> Any:
    import torch

    return 0.5 * torch.maximum((v - r) ** 2, (near - r) ** 2)


def _near(v: Any, o: Any, c: float) -> Any:
    return o + (v - o).clamp(-c, c)


def _value_minimum(v: Any, o: Any, r: Any, m: Any, c: float) -> Any:
    import torch

    return 0.5 * _masked_mean(torch.minimum((v - r) ** 2, (_near(v, o, c) - r) ** 2), m)


def _value_absolute(v: Any, o: Any, r: Any, m: Any, c: float) -> Any:
    import torch

    return 0.5 * _masked_mean(torch.maximum((v - r).abs(), (_near(v, o, c) - r).abs()), m)


VALUE_WRONG = {
    "half missing": Wrong(
        lambda v, o, r, m, c: 2 * _value_looped(v, o, r, m, c),
        "twice the expected value: the factor 1/2 is missing",
    ),
    "minimum": Wrong(_value_minimum, "min for max: take the larger of the two squared errors"),
    "no clip": Wrong(
        lambda v, o, r, m, c: 0.5 * _masked_mean((v - r) ** 2, m),
        "that is the plain squared error: the clip around the old value is missing",
    ),
    "clipped only": Wrong(
        lambda v, o, r, m, c: 0.5 * _masked_mean((_near(v, o, c) - r) ** 2, m),
        "the unclipped error is missing: take the larger of both",
    ),
    "around zero": Wrong(
        lambda v, o, r, m, c: _masked_mean(_value_losses(v, v.clamp(-c, c), r), m),
        "clip around the old value, not around zero",
    ),
    "like a ratio": Wrong(
        lambda v, o, r, m, c: _masked_mean(_value_losses(v, v.clamp(1 - c, 1 + c), r), m),
        "values are no ratios: clip to old_values ± cliprange_value, not to 1 ± it",
    ),
    "change only": Wrong(
        lambda v, o, r, m, c: _masked_mean(_value_losses(v, (v - o).clamp(-c, c), r), m),
        "that is the clipped change alone: add it to the old value",
    ),
    "absolute": Wrong(_value_absolute, "the squared error, not the absolute one"),
    "mask ignored": Wrong(
        lambda v, o, r, m, c: _value_losses(v, _near(v, o, c), r).mean(),
        "padding counts in the mean: use the kept tokens only",
    ),
    "all tokens": Wrong(
        lambda v, o, r, m, c: (_value_losses(v, _near(v, o, c), r) * m).mean(),
        "divide by the number of kept tokens, not of all",
    ),
    "mean of rows": Wrong(
        lambda v, o, r, m, c: _mean_of_rows(_value_losses(v, _near(v, o, c), r), m),
        "one mean over all kept tokens of the batch, not row by row",
    ),
    "sum": Wrong(
        lambda v, o, r, m, c: (_value_losses(v, _near(v, o, c), r) * m).sum(),
        "the mean, not the sum",
    ),
}


def _check_value(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    mask = _response_mask(rng, rng.randint(3, 4), rng.randint(7, 9))
    old, cliprange = randn(rng, *mask.shape) * 1.5, rng.uniform(0.15, 0.3)
    shift = randn(rng, *mask.shape) * 0.4
    aim = (randn(rng, *mask.shape) * 1.5).masked_fill(~mask, 4.0)
    aim[1:] *= 1.5  # so that the mean of rows is another
    far = rng.uniform(0.6, 0.9)
    # a jump too far towards the return (the clipped error is larger) and one away from it
    shift[0, :4] = torch.tensor([far, far, -far, -far])
    aim[0, :4] = torch.tensor([2.0, -1.0, -2.0, 1.0])
    values, returns = old + shift, old + aim
    args = values, old, returns, mask, cliprange
    otherwise = "half the mean over kept tokens of the larger squared error of the two"
    yield judge(2, answer(*args), _value_looped(*args), VALUE_WRONG, args, otherwise)
    live = values.clone().requires_grad_()
    clipped_larger = (shift.abs() > cliprange) & (
        (shift.sign() * cliprange - aim).abs() > (shift - aim).abs()
    )
    slope = ((shift - aim) / mask.sum()).masked_fill(clipped_larger | ~mask, 0.0)
    (got,) = gradients(answer(live, *args[1:]), live)
    mistake = "the gradient must reach values, except where the clip stops it: do not detach"
    yield Part(1, close(got, slope), mistake)


# --- update_kl_coef


def update_kl_coef(kl_coef: float, kl: float, target: float, n_samples: int, horizon: int) -> float:
    """The adaptive controller of Ziegler et al. 2019 (arXiv 1909.08593, section 2.2).

    e = clip(kl/target - 1, -0.2, 0.2), and the coefficient becomes kl_coef (1 + e n/horizon).

    Args:
        kl_coef: the coefficient so far.
        kl: the KL per response (nats) measured in this step.
        target: the KL to steer towards.
        n_samples: responses in this step.
        horizon: responses over which a lasting error of 0.2 changes the coefficient by about 20%.

    Returns:
        The coefficient for the next step.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * n_samples / horizon)


def _coef_numpy(kl_coef: float, kl: float, target: float, n_samples: int, horizon: int) -> Any:
    import numpy as np

    error = np.clip((kl - target) / target, -0.2, 0.2)
    return kl_coef + kl_coef * error * n_samples / horizon


def _coef_by_cases(kl_coef: float, kl: float, target: float, n_samples: int, horizon: int) -> float:
    rate = n_samples / horizon
    if kl > 1.2 * target:
        return kl_coef * (1 + 0.2 * rate)
    if kl < 0.8 * target:
        return kl_coef * (1 - 0.2 * rate)
    return kl_coef * (1 - rate + rate * kl / target)


def _coef_torch(kl_coef: float, kl: float, target: float, n_samples: int, horizon: int) -> Any:
    import torch

    error = (torch.tensor(kl, dtype=torch.float64) / target - 1).clamp(-0.2, 0.2)
    return kl_coef * (1 + error * n_samples / horizon)


def _clip_error(error: float) -> float:
    return min(max(error, -0.2), 0.2)


COEF_WRONG = {
    "sign": Wrong(
        lambda b, kl, t, n, h: b * (1 - _clip_error(kl / t - 1) * n / h),
        "the direction: a KL above the target must make the coefficient larger",
    ),
    "inverted": Wrong(
        lambda b, kl, t, n, h: b * (1 + _clip_error(t / kl - 1) * n / h),
        "the error is kl / target - 1, not target / kl - 1",
    ),
    "not relative": Wrong(
        lambda b, kl, t, n, h: b * (1 + _clip_error(kl - t) * n / h),
        "the error is relative: divide the difference by the target",
    ),
    "added": Wrong(
        lambda b, kl, t, n, h: b + _clip_error(kl / t - 1) * n / h,
        "multiply the coefficient by 1 + e n / horizon, do not add to it",
    ),
    "old coefficient lost": Wrong(
        lambda b, kl, t, n, h: 1 + _clip_error(kl / t - 1) * n / h,
        "that is only the factor: multiply the old coefficient by it",
    ),
    "exponential": Wrong(
        lambda b, kl, t, n, h: b * math.exp(_clip_error(kl / t - 1) * n / h),
        "the factor is 1 + e n / horizon itself, not its exponential",
    ),
    "one missing": Wrong(
        lambda b, kl, t, n, h: b * _clip_error(kl / t - 1) * n / h,
        "the 1 is missing: without an error the coefficient stays as it is",
    ),
    "no horizon": Wrong(
        lambda b, kl, t, n, h: b * (1 + _clip_error(kl / t - 1)),
        "n_samples / horizon is missing: the step is far too large",
    ),
    "horizon inverted": Wrong(
        lambda b, kl, t, n, h: b * (1 + _clip_error(kl / t - 1) * h / n),
        "n_samples / horizon, not horizon / n_samples",
    ),
    "no clip": Wrong(
        lambda b, kl, t, n, h: b * (1 + (kl / t - 1) * n / h),
        "the error is not clipped to -0.2 … 0.2",
    ),
    "clip below only": Wrong(
        lambda b, kl, t, n, h: b * (1 + max(kl / t - 1, -0.2) * n / h),
        "the error is not clipped at +0.2",
    ),
    "clip above only": Wrong(
        lambda b, kl, t, n, h: b * (1 + min(kl / t - 1, 0.2) * n / h),
        "the error is not clipped at -0.2",
    ),
    "never down": Wrong(
        lambda b, kl, t, n, h: b * (1 + min(max(kl / t - 1, 0.0), 0.2) * n / h),
        "below the target the coefficient falls: the error may be negative, down to -0.2",
    ),
}


def _check_coef(answer: Any, rng: random.Random) -> Iterator[Part]:
    # large enough a coefficient and step that the exponential of the step is another number
    kl_coef, target = rng.uniform(1.0, 3.0), rng.uniform(3.0, 8.0)
    n_samples, horizon = rng.randint(300, 500), rng.randint(800, 1200)
    signs = [1, -1]
    rng.shuffle(signs)
    error = signs[0] * rng.uniform(0.1, 0.15)
    args = kl_coef, target * (1 + error), target, n_samples, horizon
    want = kl_coef + kl_coef * error * n_samples / horizon
    otherwise = "near the target the coefficient becomes kl_coef (1 + (kl/target - 1) n / horizon)"
    yield judge(1, answer(*args), want, COEF_WRONG, args, otherwise)
    # both sides in one part, as a pair, so that a clip on one side only is named for what it is
    high, low = rng.uniform(1.6, 3.0), rng.uniform(0.2, 0.6)
    pair = [(kl_coef, target * factor, target, n_samples, horizon) for factor in (high, low)]
    got = [answer(*args) for args in pair]
    want_pair = [kl_coef * (1 + e * n_samples / horizon) for e in (0.2, -0.2)]
    both = {
        label: Wrong(lambda *args, w=wrong: [w.answer(*one) for one in args], wrong.says)
        for label, wrong in COEF_WRONG.items()
    }
    otherwise = "far from the target the error counts as 0.2 or -0.2"
    yield judge(1, got, want_pair, both, tuple(pair), otherwise)


# --- best_of_n


def best_of_n(proxy: torch.Tensor, gold: torch.Tensor, n: int) -> float:
    """Expected gold score of the response that is best of n by the proxy.

    Unbiased and from all N samples of a prompt: among all ways to draw n of them without
    replacement, the sample of rank k by proxy (1 = lowest) is the best in C(k-1, n-1) of C(N, n)
    (Nakano et al. 2021, arXiv 2112.09332; Hilton and Gao 2022, "Measuring Goodhart's Law").

    Args:
        proxy: (P, N), the reward model's scores of N samples for each of P prompts.
        gold: (P, N), the true scores of the same samples.
        n: from 1 to N.

    Returns:
        The mean over the prompts.
    """
    samples = proxy.shape[1]
    ways = [math.comb(rank - 1, n - 1) for rank in range(1, samples + 1)]
    weights = gold.double().new_tensor([way / math.comb(samples, n) for way in ways])
    by_proxy = gold.double().gather(1, proxy.argsort(-1))
    return float((by_proxy * weights).sum(-1).mean())


def _bon_enumerated(proxy: Any, gold: Any, n: int) -> float:
    """Every choice of n samples, one after the other."""
    picks = []
    for proxy_row, gold_row in zip(proxy.tolist(), gold.tolist(), strict=True):
        for chosen in combinations(range(len(proxy_row)), n):
            picks.append(gold_row[max(chosen, key=proxy_row.__getitem__)])
    return sum(picks) / len(picks)


def _bon_recursive(proxy: Any, gold: Any, n: int) -> float:
    """From the top: the best is drawn with probability n/N, else look at the N - 1 others."""
    total = 0.0
    for proxy_row, gold_row in zip(proxy.tolist(), gold.tolist(), strict=True):
        order = sorted(range(len(proxy_row)), key=lambda i: -proxy_row[i])
        left = 1.0
        for place, index in enumerate(order):
            chance = min(n / (len(order) - place), 1.0)
            total += left * chance * gold_row[index]
            left *= 1 - chance
    return total / len(proxy)


def _bon_numpy(proxy: Any, gold: Any, n: int) -> Any:
    import numpy as np
    from scipy.special import comb

    p, g = proxy.numpy(), gold.numpy()
    ranks = np.argsort(np.argsort(p, 1), 1)
    return (g * comb(ranks, n - 1) / comb(p.shape[1], n)).sum(1).mean()


def _bon_weighted(proxy: Any, gold: Any, weights: list[float]) -> Any:
    """Weights by rank, lowest first."""
    return (gold.gather(1, proxy.argsort(-1)) * gold.new_tensor(weights)).sum(-1).mean()


def _bon_with_replacement(proxy: Any, gold: Any, n: int) -> Any:
    size = proxy.shape[1]
    return _bon_weighted(
        proxy, gold, [((k + 1) / size) ** n - (k / size) ** n for k in range(size)]
    )


def _bon_off_by_one(proxy: Any, gold: Any, n: int) -> Any:
    size = proxy.shape[1]
    ways = [math.comb(k, n - 1) / math.comb(size, n) for k in range(1, size + 1)]
    return _bon_weighted(proxy, gold, ways)


def _bon_unsorted(proxy: Any, gold: Any, n: int) -> float:
    ascending = (proxy * 0).cumsum(-1) + proxy.new_tensor([range(proxy.shape[1])])
    return best_of_n(ascending, gold, n)


def _gold_of_best(proxy: Any, gold: Any) -> Any:
    return gold.gather(1, proxy.argmax(-1, keepdim=True)).mean()


def _bon_top_n(proxy: Any, gold: Any, n: int) -> Any:
    return gold.gather(1, proxy.topk(n, -1).indices).mean()


BON_WRONG = {
    "best by gold": Wrong(
        lambda p, g, n: best_of_n(g, g, n),
        "the pick is made by the proxy: nobody knows the gold scores when choosing",
    ),
    "proxy reported": Wrong(
        lambda p, g, n: best_of_n(p, p, n), "that is the proxy score of the pick; return its gold"
    ),
    "lowest": Wrong(
        lambda p, g, n: best_of_n(-p, g, n), "that picks the lowest proxy: rank 1 is the lowest"
    ),
    "first n": Wrong(
        lambda p, g, n: _gold_of_best(p[:, :n], g[:, :n]),
        "only the first n samples are used: average over all ways to draw n of the N",
    ),
    "best of all": Wrong(
        lambda p, g, n: _gold_of_best(p, g), "n is ignored: that is the best of all N"
    ),
    "mean": Wrong(lambda p, g, n: g.mean(), "that is the mean of all samples: nothing is picked"),
    "mean of the top n": Wrong(
        _bon_top_n, "that is the mean of the n highest; best-of-n keeps one response"
    ),
    "with replacement": Wrong(
        _bon_with_replacement,
        "these weights draw with replacement, which is biased: use C(k-1, n-1) / C(N, n)",
    ),
    "not sorted": Wrong(
        _bon_unsorted, "sort the gold scores by the proxy before applying the weights"
    ),
    "off by one": Wrong(
        _bon_off_by_one, "the weights do not sum to 1: C(k-1, n-1) with k counted from 1"
    ),
    "sum over prompts": Wrong(
        lambda p, g, n: best_of_n(p, g, n) * len(p), "average over the prompts, do not add them up"
    ),
}


def _check_bon(answer: Any, rng: random.Random) -> Iterator[Part]:
    prompts, samples = rng.randint(3, 5), rng.randint(6, 8)
    proxy = randn(rng, prompts, samples)
    proxy[0, -1] += 6  # the best of all is not among the first n
    gold = 0.5 * proxy + randn(rng, prompts, samples)
    args = proxy, gold, rng.randint(2, samples - 2)
    otherwise = "sort by proxy; the sample of rank k is the best in C(k-1, n-1) of C(N, n) draws"
    yield judge(2, answer(*args), _bon_enumerated(*args), BON_WRONG, args, otherwise)
    args = proxy, gold, rng.choice((1, samples))
    otherwise = "best of 1 is the mean of all samples, best of N the gold of the highest proxy"
    yield judge(1, answer(*args), _bon_enumerated(*args), BON_WRONG, args, otherwise)


EXERCISES = [
    Exercise(
        name="kl_estimators",
        chapter="05_ppo",
        title="Three estimates of the KL",
        points=3,
        difficulty=2,
        minutes=8,
        hint="write d = ref_logprobs - logprobs first; all three are one line in d",
        check=_check_kl,
        solution=kl_estimators,
        other_right=[_kl_expm1, _kl_by_ratio, _kl_looped],
        wrong=KL_WRONG,
    ),
    Exercise(
        name="token_rewards",
        chapter="05_ppo",
        title="From scores to rewards",
        points=3,
        difficulty=3,
        minutes=12,
        hint="the penalty is zeroed where the mask is; response_mask.sum(-1) - 1 is the last place",
        check=_check_rewards,
        solution=token_rewards,
        other_right=[_rewards_looped, _rewards_where, _rewards_scattered],
        wrong=REWARDS_WRONG,
    ),
    Exercise(
        name="gae",
        chapter="05_ppo",
        title="Advantages and returns",
        points=4,
        difficulty=4,
        minutes=20,
        hint="zero the values outside the mask, then loop over t from the last column to the first",
        check=_check_gae,
        solution=gae,
        other_right=[_gae_by_sum, _gae_by_matrix, _gae_by_returns],
        wrong=GAE_WRONG,
    ),
    Exercise(
        name="whiten",
        chapter="05_ppo",
        title="Whitening",
        points=3,
        difficulty=2,
        minutes=8,
        hint="kept = values[mask] has the right mean and variance; torch.where puts zeros back",
        check=_check_whiten,
        solution=whiten,
        other_right=[_whiten_by_hand, _whiten_double],
        wrong=WHITEN_WRONG,
    ),
    Exercise(
        name="clipped_policy_loss",
        chapter="05_ppo",
        title="The clipped surrogate",
        points=4,
        difficulty=3,
        minutes=15,
        hint="ratio.clamp(1 - c, 1 + c), torch.maximum of the two losses, mean over kept tokens",
        check=_check_policy,
        solution=clipped_policy_loss,
        other_right=[_policy_looped, _policy_by_sign, _policy_minus_min],
        wrong={
            **POLICY_WRONG,
            "detached": Wrong(
                lambda p, o, a, m, c: clipped_policy_loss(p.detach(), o, a, m, c),
                "the gradient must reach logprobs",
            ),
        },
    ),
    Exercise(
        name="clipped_value_loss",
        chapter="05_ppo",
        title="The clipped value loss",
        points=3,
        difficulty=3,
        minutes=10,
        hint="the clipped value is old_values plus the change, clamped; then as for the policy",
        check=_check_value,
        solution=clipped_value_loss,
        other_right=[_value_looped, _value_double],
        wrong={
            **VALUE_WRONG,
            "detached": Wrong(
                lambda v, o, r, m, c: clipped_value_loss(v.detach(), o, r, m, c),
                "the gradient must reach values",
            ),
        },
    ),
    Exercise(
        name="update_kl_coef",
        chapter="05_ppo",
        title="The adaptive KL coefficient",
        points=2,
        difficulty=1,
        minutes=6,
        hint="clip the relative error first: min(max(kl / target - 1, -0.2), 0.2)",
        check=_check_coef,
        solution=update_kl_coef,
        other_right=[_coef_numpy, _coef_by_cases, _coef_torch],
        wrong=COEF_WRONG,
    ),
    Exercise(
        name="best_of_n",
        chapter="05_ppo",
        title="Best of n",
        points=3,
        difficulty=3,
        minutes=12,
        hint="math.comb gives the counts and argsort the order; the weights of a prompt sum to 1",
        check=_check_bon,
        solution=best_of_n,
        other_right=[_bon_enumerated, _bon_recursive, _bon_numpy],
        wrong=BON_WRONG,
    ),
]
