"""Exercises of chapter 06: a response's log-probability, the implicit reward, DPO's two losses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close, randn
from course_utils.exercises._judge import gradients, judge

NO_GRADIENT = "no gradient flows back: do not detach or convert to a number"
FORMULA = "compare with the formula, term by term"

# --- sequence_logprob


def sequence_logprob(logits: Any, input_ids: Any, response_mask: Any) -> Any:
    """Summed log-probability of each response.

    Args:
        logits: (B, T, V); input_ids: (B, T); response_mask: (B, T), true on the response.

    Returns:
        (B,).
    """
    logprobs = logits[:, :-1].log_softmax(-1)  # position t predicts token t+1
    picked = logprobs.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    return (picked * response_mask[:, 1:]).sum(-1)


def _looped_logprob(logits: Any, input_ids: Any, response_mask: Any) -> Any:
    import torch

    totals = []
    for b, row in enumerate(input_ids):
        terms = [
            logits[b, t - 1].double().log_softmax(-1)[token]
            for t, token in enumerate(row)
            if response_mask[b, t]
        ]
        totals.append(torch.stack(terms).sum())
    return torch.stack(totals)


def _cross_entropy_logprob(logits: Any, input_ids: Any, response_mask: Any) -> Any:
    from torch.nn.functional import cross_entropy

    labels = input_ids.masked_fill(~response_mask, -100)[:, 1:]
    return -cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none").sum(-1)


def _token_terms(logits: Any, input_ids: Any, axis: int = -1) -> Any:
    return logits[:, :-1].log_softmax(axis).gather(-1, input_ids[:, 1:, None]).squeeze(-1)


def _unshifted(logits: Any, input_ids: Any, response_mask: Any) -> Any:
    picked = logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1)
    return (picked * response_mask).sum(-1)


def _raw_logits(logits: Any, input_ids: Any, response_mask: Any) -> Any:
    picked = logits[:, :-1].gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    return (picked * response_mask[:, 1:]).sum(-1)


LOGPROB_WRONG = {
    "no shift": Wrong(
        _unshifted, "shift by one: the logits at position t predict the token at t+1"
    ),
    "mask not shifted": Wrong(
        lambda x, i, m: (_token_terms(x, i) * m[:, :-1]).sum(-1),
        "shift the mask with the tokens: it marks responses, not what predicts them",
    ),
    "all counted": Wrong(
        lambda x, i, m: _token_terms(x, i).sum(-1),
        "prompt and padding do not count: use the mask",
    ),
    "mean": Wrong(
        lambda x, i, m: _looped_logprob(x, i, m) / m.sum(-1),
        "DPO takes the sum over a response's tokens, not their mean",
    ),
    "raw logits": Wrong(_raw_logits, "logits are not log-probabilities yet: take log_softmax"),
    "wrong axis": Wrong(
        lambda x, i, m: (_token_terms(x, i, 1) * m[:, 1:]).sum(-1),
        "log_softmax over the vocabulary, the last axis",
    ),
    "sign": Wrong(
        lambda x, i, m: -_looped_logprob(x, i, m), "the sign: a log-probability is negative"
    ),
    "one number": Wrong(
        lambda x, i, m: _looped_logprob(x, i, m).sum(),
        "one number for each row: sum over the tokens only",
    ),
    "detached": Wrong(lambda x, i, m: sequence_logprob(x.detach(), i, m), NO_GRADIENT),
}


def _check_logprob(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    rows, length, size = rng.randint(3, 5), rng.randint(9, 12), rng.randint(5, 9)
    logits = randn(rng, rows, length, size) * 2
    ids = torch.tensor([[rng.randrange(size) for _ in range(length)] for _ in range(rows)])
    mask = torch.zeros(rows, length, dtype=torch.bool)
    for row in range(rows):  # prompt, response and padding of other lengths in each row
        mask[row, 2 + row % 3 : length - row] = True
    given = logits, ids, mask
    otherwise = "compare with a loop over the response's tokens"
    yield judge(3, answer(*given), _looped_logprob(*given), LOGPROB_WRONG, given, otherwise)
    live = logits.clone().requires_grad_()
    (slope,) = gradients(answer(live, ids, mask).sum(), live)
    yield Part(1, slope is not None, NO_GRADIENT)


# --- implicit_reward


def implicit_reward(policy: Any, ref: Any, beta: float) -> Any:
    """beta times the log-ratio of policy and reference: (N,)."""
    return beta * (policy - ref)


def _reward_listed(policy: Any, ref: Any, beta: float) -> list[float]:
    return [beta * (p - r).item() for p, r in zip(policy, ref, strict=True)]


def _reward_scaled_first(policy: Any, ref: Any, beta: float) -> Any:
    return beta * policy.double() - beta * ref.double()


REWARD_WRONG = {
    "no beta": Wrong(lambda p, r, b: p - r, "beta is missing: it is the scale of the reward"),
    "divided": Wrong(lambda p, r, b: (p - r) / b, "multiply by beta, do not divide"),
    "sign": Wrong(
        lambda p, r, b: b * (r - p),
        "the sign: what the policy makes more likely than the reference has the higher reward",
    ),
    "no reference": Wrong(
        lambda p, r, b: b * p, "the reference is missing: the reward is a comparison with it"
    ),
    "ratio of logs": Wrong(
        lambda p, r, b: b * p / r,
        "the log of a ratio is the difference of the logs: do not divide them",
    ),
    "exp": Wrong(lambda p, r, b: b * (p - r).exp(), "stay with logarithms: no exp"),
    "mean": Wrong(lambda p, r, b: (b * (p - r)).mean(), "one reward for each response: no mean"),
}


def _check_reward(answer: Any, rng: random.Random) -> Iterator[Part]:
    beta, count = rng.choice((0.1, 0.2, 0.3)), rng.randint(4, 7)
    ref = -5 - 10 * randn(rng, count).abs()
    given = ref + 2 * randn(rng, count), ref, beta
    want = _reward_scaled_first(*given)
    yield judge(1, answer(*given), want, REWARD_WRONG, given, "it is beta times the log-ratio")


# --- dpo_loss

Pairs = tuple[Any, Any, Any, Any, float]  # chosen and rejected of the policy, of the reference


def _margin(pc: Any, pr: Any, rc: Any, rr: Any, beta: float) -> Any:
    return beta * ((pc - rc) - (pr - rr))


def dpo_loss(
    policy_chosen: Any, policy_rejected: Any, ref_chosen: Any, ref_rejected: Any, beta: float
) -> Any:
    """Mean of -log sigmoid(beta (log-ratio of the chosen - log-ratio of the rejected)).

    Rafailov et al. 2023 (arXiv 2305.18290), eq. 7. All four: (N,).
    """
    from torch.nn.functional import logsigmoid

    margin = beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))
    return -logsigmoid(margin).mean()


def _dpo_softplus(pc: Any, pr: Any, rc: Any, rr: Any, beta: float) -> Any:
    from torch.nn.functional import softplus

    return softplus(beta * (pr - pc) - beta * (rr - rc)).mean()


def _dpo_cross_entropy(pc: Any, pr: Any, rc: Any, rr: Any, beta: float) -> Any:
    """A pair as a choice between two classes, whose logits are the rewards."""
    import torch

    rewards = torch.stack([beta * (pc - rc), beta * (pr - rr)], -1)
    return -rewards.log_softmax(-1)[:, 0].sum() / len(pc)


def _dpo_looped(*given: Any) -> Any:
    """Pair by pair, with the exponent kept negative so that it cannot overflow."""
    losses = [(-m).clamp(min=0) + (-m.abs()).exp().log1p() for m in _margin(*given).double()]
    return sum(losses) / len(losses)


DPO_WRONG = {
    "direction": Wrong(
        lambda pc, pr, rc, rr, b: _dpo_looped(pr, pc, rr, rc, b),
        "the direction: the chosen side comes first, the rejected is taken off",
    ),
    "sign": Wrong(
        lambda *given: -_dpo_looped(*given), "the minus is missing: -log sigmoid is above 0"
    ),
    "no beta": Wrong(lambda pc, pr, rc, rr, b: _dpo_looped(pc, pr, rc, rr, 1.0), "beta is missing"),
    "beta outside": Wrong(
        lambda pc, pr, rc, rr, b: b * _dpo_looped(pc, pr, rc, rr, 1.0),
        "beta belongs inside the sigmoid",
    ),
    "no reference": Wrong(
        lambda pc, pr, rc, rr, b: _dpo_looped(pc, pr, 0 * rc, 0 * rr, b),
        "the reference is missing: a reward is a log-ratio",
    ),
    "reference added": Wrong(
        lambda pc, pr, rc, rr, b: _dpo_looped(pc, pr, -rc, -rr, b),
        "the reference is added where it should be taken off",
    ),
    "probability": Wrong(
        lambda *given: (1 - _margin(*given).sigmoid()).mean(),
        "the logarithm is missing: -log sigmoid, not 1 - sigmoid",
    ),
    "sum": Wrong(
        lambda *given: _dpo_looped(*given) * len(given[0]), "mean over the pairs, not their sum"
    ),
    "mean first": Wrong(
        lambda pc, pr, rc, rr, b: _dpo_looped(*(x.mean()[None] for x in (pc, pr, rc, rr)), b),
        "the mean comes last: the log sigmoid of each pair first",
    ),
    "overflow": Wrong(
        lambda *given: -_margin(*given).sigmoid().log().mean(),
        "infinite for a very wrong pair: log(sigmoid(x)) overflows, logsigmoid(x) does not",
    ),
    "detached": Wrong(
        lambda pc, pr, rc, rr, b: dpo_loss(pc.detach(), pr.detach(), rc, rr, b), NO_GRADIENT
    ),
}


def draw_pairs(rng: random.Random) -> Pairs:
    """Log-probabilities and a beta whose margins lie on all sides of 0 and of 1; mean above 1."""
    import torch

    beta = rng.choice((0.2, 0.3, 0.4))
    margins = [m + rng.uniform(-0.1, 0.1) for m in (-1.4, -0.3, 0.4, 0.8, 3.5, 5.5)]
    rng.shuffle(margins)
    rejected, ref_chosen, ref_rejected = (-8 - 4 * randn(rng, len(margins)).abs() for _ in range(3))
    ratio = torch.tensor(margins) / beta
    return ref_chosen + ratio + rejected - ref_rejected, rejected, ref_chosen, ref_rejected, beta


def _check_dpo(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    for _ in range(2):  # twice, for two losses may agree by chance
        given = draw_pairs(rng)
        yield judge(1, answer(*given), _dpo_looped(*given), DPO_WRONG, given, FORMULA)
    none = torch.zeros(2)
    far = torch.tensor([-300.0, -4500.0]), none, none, none, 0.2
    # Margins of -60 and -900, where the loss is minus the margin.
    yield Part(1, close(answer(*far), 480.0), DPO_WRONG["overflow"].says)
    *sides, beta = given
    live = [side.clone().requires_grad_() for side in sides[:2]]
    slopes = gradients(answer(*live, *sides[2:], beta), *live)
    yield Part(1, None not in slopes, NO_GRADIENT)


# --- hinge_loss


def hinge_loss(
    policy_chosen: Any, policy_rejected: Any, ref_chosen: Any, ref_rejected: Any, beta: float
) -> Any:
    """Mean of max(0, 1 - beta (log-ratio of the chosen - log-ratio of the rejected)).

    SLiC (Zhao et al. 2023, arXiv 2305.10425) on log-ratios. All four: (N,).
    """
    margin = beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))
    return (1 - margin).relu().mean()


def _hinge_clamped(pc: Any, pr: Any, rc: Any, rr: Any, beta: float) -> Any:
    return (1 - beta * (pc - rc) + beta * (pr - rr)).clamp(min=0).sum() / pc.numel()


def _hinge_looped(*given: Any) -> Any:
    losses = [max(1 - m, 0 * m) for m in _margin(*given).double()]
    return sum(losses) / len(losses)


HINGE_WRONG = {
    "no relu": Wrong(
        lambda *given: (1 - _margin(*given)).mean(),
        "beyond a margin of 1 a pair's loss is 0, not negative: relu",
    ),
    "sign": Wrong(
        lambda *given: (1 + _margin(*given)).relu().mean(),
        "the sign: a larger margin is a smaller loss",
    ),
    "no 1": Wrong(
        lambda *given: (-_margin(*given)).relu().mean(),
        "the margin to reach is 1: without it a pair is left alone as soon as it is in order",
    ),
    "no beta": Wrong(
        lambda pc, pr, rc, rr, b: _hinge_looped(pc, pr, rc, rr, 1.0), "beta is missing"
    ),
    "beta outside": Wrong(
        lambda pc, pr, rc, rr, b: b * _hinge_looped(pc, pr, rc, rr, 1.0),
        "beta scales the margin, not the loss",
    ),
    "squared": Wrong(
        lambda *given: (1 - _margin(*given)).relu().square().mean(), "no square: the slope is even"
    ),
    "no reference": Wrong(
        lambda pc, pr, rc, rr, b: _hinge_looped(pc, pr, 0 * rc, 0 * rr, b),
        "the reference is missing: here, too, a reward is a log-ratio",
    ),
    "sum": Wrong(
        lambda *given: _hinge_looped(*given) * len(given[0]), "mean over the pairs, not their sum"
    ),
    "mean first": Wrong(
        lambda *given: (1 - _margin(*given)).mean().relu(), "relu of each pair first, then the mean"
    ),
}


def _check_hinge(answer: Any, rng: random.Random) -> Iterator[Part]:
    for _ in range(2):
        given = draw_pairs(rng)
        yield judge(1, answer(*given), _hinge_looped(*given), HINGE_WRONG, given, FORMULA)


EXERCISES = [
    Exercise(
        name="sequence_logprob",
        chapter="06_dpo",
        title="The log-probability of a response",
        points=4,
        difficulty=2,
        minutes=12,
        hint="log_softmax, shift and gather as in the SFT loss; then the mask, shifted likewise",
        check=_check_logprob,
        solution=sequence_logprob,
        other_right=[_looped_logprob, _cross_entropy_logprob],
        wrong=LOGPROB_WRONG,
    ),
    Exercise(
        name="implicit_reward",
        chapter="06_dpo",
        title="The implicit reward",
        points=1,
        difficulty=1,
        minutes=4,
        hint="beta, and the difference between two log-probabilities of the same response",
        check=_check_reward,
        solution=implicit_reward,
        other_right=[_reward_listed, _reward_scaled_first],
        wrong=REWARD_WRONG,
    ),
    Exercise(
        name="dpo_loss",
        chapter="06_dpo",
        title="The DPO loss",
        points=4,
        difficulty=3,
        minutes=15,
        hint="the rewards' difference is the logit of 'chosen is better'; then logsigmoid",
        check=_check_dpo,
        solution=dpo_loss,
        other_right=[_dpo_softplus, _dpo_cross_entropy, _dpo_looped],
        wrong=DPO_WRONG,
    ),
    Exercise(
        name="hinge_loss",
        chapter="06_dpo",
        title="The hinge loss",
        points=2,
        difficulty=2,
        minutes=6,
        hint="the same margin as in DPO; relu(1 - margin), and the mean of that",
        check=_check_hinge,
        solution=hinge_loss,
        other_right=[_hinge_clamped, _hinge_looped],
        wrong=HINGE_WRONG,
    ),
]
