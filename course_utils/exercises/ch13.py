"""Exercises of chapter 13: leave-one-out and group-relative advantages, prompts with a signal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from course_utils.checks import Exercise, Part, Wrong, randn
from course_utils.exercises._judge import judge
from course_utils.rl.advantages import grpo_advantages, rloo_advantages

if TYPE_CHECKING:
    import torch


def _rewards(rng: random.Random) -> Any:
    """(B, G) with B != G, so that rows are not taken for columns."""
    prompts, group = rng.sample(range(3, 8), 2)
    return randn(rng, prompts, group) * 2 + rng.uniform(1, 3)


# --- rloo_advantages


def _rloo_looped(rewards: Any) -> Any:
    import torch

    out = torch.zeros_like(rewards)
    for i, row in enumerate(rewards.tolist()):
        for j, reward in enumerate(row):
            others = row[:j] + row[j + 1 :]
            out[i, j] = reward - sum(others) / len(others)
    return out


def _rloo_scaled_mean(rewards: Any) -> Any:
    group = rewards.shape[1]
    return group / (group - 1) * (rewards - rewards.mean(1, keepdim=True))


def _rloo_by_matrix(rewards: Any) -> Any:
    import torch

    group = rewards.shape[1]
    others = (1 - torch.eye(group, dtype=rewards.dtype)) / (group - 1)
    return rewards - rewards @ others


RLOO_WRONG = {
    "own reward in the mean": Wrong(
        lambda r: r - r.mean(1, keepdim=True),
        "the response's own reward is in your baseline: leave it out",
    ),
    "divided by G": Wrong(
        lambda r: r - (r.sum(1, keepdim=True) - r) / r.shape[1],
        "the others are G - 1, and you divide by G",
    ),
    "sign": Wrong(
        lambda r: -rloo_advantages(r), "the sign is turned: reward minus the mean of the others"
    ),
    "sum of the others": Wrong(
        lambda r: r - (r.sum(1, keepdim=True) - r),
        "subtract the mean of the others, not their sum",
    ),
    "over prompts": Wrong(
        lambda r: rloo_advantages(r.T).T,
        "the others are the responses to the same prompt, dimension 1",
    ),
    "over everything": Wrong(
        lambda r: r - (r.sum() - r) / (r.numel() - 1),
        "compare within a prompt's group, not with the whole batch",
    ),
    "baseline only": Wrong(
        lambda r: (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1),
        "that is the baseline: subtract it from the rewards",
    ),
    "divided by the deviation": Wrong(
        lambda r: rloo_advantages(r) / r.std(1, keepdim=True),
        "RLOO divides by no standard deviation",
    ),
}


def _check_rloo(answer: Any, rng: random.Random) -> Iterator[Part]:
    args = (_rewards(rng),)
    otherwise = "reward minus the mean of the other rewards in its row"
    yield judge(2, answer(*args), _rloo_looped(*args), RLOO_WRONG, args, otherwise)


# --- grpo_advantages


def _grpo_with_eps(rewards: Any, eps: float) -> Any:
    return grpo_advantages(rewards, eps=eps)


def _grpo_looped(rewards: Any, eps: float) -> Any:
    import torch

    out = torch.zeros_like(rewards)
    for i, row in enumerate(rewards.tolist()):
        mean = sum(row) / len(row)
        deviation = (sum((r - mean) ** 2 for r in row) / (len(row) - 1)) ** 0.5
        for j, reward in enumerate(row):
            out[i, j] = (reward - mean) / (deviation + eps)
    return out


def _grpo_from_rloo(rewards: Any, eps: float) -> Any:
    group = rewards.shape[1]
    centred = rloo_advantages(rewards) * (group - 1) / group
    deviation = (centred.square().sum(1, keepdim=True) / (group - 1)).sqrt()
    return centred / (deviation + eps)


def _grpo_where(rewards: Any, eps: float) -> Any:
    import torch

    deviation = rewards.std(1, keepdim=True)
    centred = rewards - rewards.mean(1, keepdim=True)
    return torch.where(deviation > 0, centred / (deviation + eps), torch.zeros_like(rewards))


def _centred(rewards: Any) -> Any:
    return rewards - rewards.mean(1, keepdim=True)


GRPO_WRONG = {
    "no eps": Wrong(
        lambda r, e: _centred(r) / r.std(1, keepdim=True),
        "a group of equal rewards has a deviation of 0, and 0/0 is nan: add eps",
    ),
    "no deviation": Wrong(
        lambda r, e: _centred(r), "divide by the group's standard deviation plus eps"
    ),
    "mean not subtracted": Wrong(
        lambda r, e: r / (r.std(1, keepdim=True) + e), "subtract the group's mean first"
    ),
    "divided by G": Wrong(
        lambda r, e: _centred(r) / (r.std(1, keepdim=True, correction=0) + e),
        "the deviation here divides by G - 1",
    ),
    "variance": Wrong(
        lambda r, e: _centred(r) / (r.var(1, keepdim=True) + e),
        "divide by the standard deviation, not by the variance",
    ),
    "over prompts": Wrong(
        lambda r, e: grpo_advantages(r.T, eps=e).T,
        "a group is the responses to one prompt, dimension 1",
    ),
    "over everything": Wrong(
        lambda r, e: (r - r.mean()) / (r.std() + e),
        "mean and deviation belong to a group, not to the whole batch",
    ),
    "mean of the others": Wrong(
        lambda r, e: rloo_advantages(r) / (r.std(1, keepdim=True) + e),
        "GRPO subtracts the mean of the whole group, the response itself included",
    ),
    "deviation of the batch": Wrong(
        lambda r, e: _centred(r) / (r.std() + e),
        "the mean is the group's, but your deviation is the whole batch's",
    ),
}


def _check_grpo(answer: Any, rng: random.Random) -> Iterator[Part]:
    eps = rng.choice((0.2, 0.3, 0.5))  # large enough to be seen
    args = _rewards(rng), eps
    otherwise = "(reward - the group's mean) / (the group's standard deviation + eps)"
    yield judge(2, answer(*args), _grpo_looped(*args), GRPO_WRONG, args, otherwise)
    rewards = _rewards(rng)
    flat = rng.randrange(len(rewards))
    rewards[flat] = 1.0
    args = rewards, eps
    otherwise = "a group whose rewards are all equal gets zeros"
    yield judge(1, answer(*args), _grpo_looped(*args), GRPO_WRONG, args, otherwise)


# --- chance_of_signal


def chance_of_signal(rates: torch.Tensor, group: int) -> torch.Tensor:
    """How likely a prompt's group has both right and wrong responses: (B,).

    1 - p^G - (1-p)^G, for rewards of 0 and 1. A group of equal rewards has no advantage.

    Args:
        rates: (B,), how often the policy is right on each prompt.
        group: responses per prompt.
    """
    return 1 - rates**group - (1 - rates) ** group


def _signal_enumerated(rates: Any, group: int) -> Any:
    """Over the number of right responses, by the binomial distribution."""
    import math

    import torch

    return torch.tensor(
        [
            sum(math.comb(group, k) * p**k * (1 - p) ** (group - k) for k in range(1, group))
            for p in rates.double().tolist()
        ]
    )


def _signal_in_logs(rates: Any, group: int) -> Any:
    import torch

    all_right = (group * rates.log()).exp()
    all_wrong = (group * torch.log1p(-rates)).exp()
    return (1 - all_right) - all_wrong


def _signal_stepwise(rates: Any, group: int) -> Any:
    """Response by response: the chance that all so far agree."""
    import torch

    right, wrong = torch.ones_like(rates), torch.ones_like(rates)
    for _ in range(group):
        right, wrong = right * rates, wrong * (1 - rates)
    return 1 - (right + wrong)


SIGNAL_WRONG = {
    "at least one right": Wrong(
        lambda p, g: 1 - (1 - p) ** g,
        "a group in which all are right has no signal either: subtract p^G, too",
    ),
    "at least one wrong": Wrong(
        lambda p, g: 1 - p**g,
        "a group in which all are wrong has no signal either: subtract (1-p)^G, too",
    ),
    "the flat ones": Wrong(
        lambda p, g: p**g + (1 - p) ** g,
        "that is the chance of no signal: take it from 1",
    ),
    "variance": Wrong(
        lambda p, g: p * (1 - p),
        "p(1-p) is the variance of one reward; you need all G responses",
    ),
    "variance times two": Wrong(
        lambda p, g: 2 * p * (1 - p),
        "that is right for two responses only; there are G",
    ),
    "one less": Wrong(
        lambda p, g: 1 - p ** (g - 1) - (1 - p) ** (g - 1),
        "the powers are G: all G responses have to agree for the group to be flat",
    ),
    "exactly one": Wrong(
        lambda p, g: g * p * (1 - p) ** (g - 1),
        "that is the chance of exactly one right response; any mixture has a signal",
    ),
    "mean over prompts": Wrong(
        lambda p, g: chance_of_signal(p, g).mean(),
        "one chance for each prompt, not their mean",
    ),
}


def _check_signal(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    rates = torch.tensor([rng.uniform(0.1, 0.4), rng.uniform(0.6, 0.9), rng.uniform(0.05, 0.95)])
    args = rates, rng.randint(4, 9)
    otherwise = "1 minus the chance that all are right, minus the chance that all are wrong"
    yield judge(2, answer(*args), _signal_enumerated(*args), SIGNAL_WRONG, args, otherwise)


EXERCISES = [
    Exercise(
        name="rloo_advantages",
        chapter="13_rl_today",
        title="Leave one out",
        points=2,
        difficulty=2,
        minutes=8,
        hint="the sum of the others is the row's sum minus the reward itself; keepdim=True",
        check=_check_rloo,
        solution=rloo_advantages,
        other_right=[_rloo_looped, _rloo_scaled_mean, _rloo_by_matrix],
        wrong=RLOO_WRONG,
    ),
    Exercise(
        name="grpo_advantages",
        chapter="13_rl_today",
        title="Relative to the group",
        points=3,
        difficulty=2,
        minutes=8,
        hint="rewards.mean(1, keepdim=True) and rewards.std(1, keepdim=True); eps goes below",
        check=_check_grpo,
        solution=_grpo_with_eps,
        other_right=[_grpo_looped, _grpo_from_rloo, _grpo_where],
        wrong=GRPO_WRONG,
    ),
    Exercise(
        name="chance_of_signal",
        chapter="13_rl_today",
        title="Which prompts teach anything",
        points=2,
        difficulty=2,
        minutes=10,
        hint="a group without a signal is one in which all G are right, or all G are wrong",
        check=_check_signal,
        solution=chance_of_signal,
        other_right=[_signal_enumerated, _signal_in_logs, _signal_stepwise],
        wrong=SIGNAL_WRONG,
    ),
]
