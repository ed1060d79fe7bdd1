"""Exercises of chapter 07: the losses of IPO, KTO, ORPO and SimPO."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close, randn
from course_utils.exercises._judge import gradients, judge

NO_GRADIENT = "no gradient flows back: do not detach or convert to a number"
FORMULA = "compare with the formula, term by term"

# --- ipo_loss


def ipo_loss(
    policy_chosen: Any, policy_rejected: Any, ref_chosen: Any, ref_rejected: Any, beta: float
) -> Any:
    """Mean of (log-ratio of the chosen - log-ratio of the rejected - 1/(2 beta)) squared.

    Azar et al. 2023 (arXiv 2310.12036), eq. 17. All four: (N,), means over the tokens.
    """
    ratio = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
    return (ratio - 1 / (2 * beta)).square().mean()


def _ipo_mse(pc: Any, pr: Any, rc: Any, rr: Any, beta: float) -> Any:
    import torch

    ratio = pc - pr - (rc - rr)
    return torch.nn.functional.mse_loss(ratio, torch.full_like(ratio, 0.5 / beta))


def _ipo_looped(pc: Any, pr: Any, rc: Any, rr: Any, beta: float) -> Any:
    sides = (side.double() for side in (pc, pr, rc, rr))
    losses = [(c - r - a + b - 0.5 / beta) ** 2 for c, r, a, b in zip(*sides, strict=True)]
    return sum(losses) / len(losses)


IPO_WRONG = {
    "target of 1/beta": Wrong(
        lambda pc, pr, rc, rr, b: _ipo_looped(pc, pr, rc, rr, b / 2),
        "the target is 1/(2 beta): did you forget the 2?",
    ),
    "target of beta/2": Wrong(
        lambda pc, pr, rc, rr, b: _ipo_looped(pc, pr, rc, rr, 1 / b),
        "the target is 1/(2 beta): beta stands below the line, mind the brackets",
    ),
    "beta twice": Wrong(
        lambda pc, pr, rc, rr, b: _ipo_looped(b * pc, b * pr, b * rc, b * rr, b),
        "beta sets the target only: the log-ratio itself is not scaled",
    ),
    "sign": Wrong(
        lambda pc, pr, rc, rr, b: _ipo_looped(pr, pc, rr, rc, b),
        "the direction: the chosen side comes first, the rejected is taken off",
    ),
    "no reference": Wrong(
        lambda pc, pr, rc, rr, b: _ipo_looped(pc, pr, 0 * rc, 0 * rr, b),
        "the reference is missing: the target is for a log-ratio",
    ),
    "no square": Wrong(
        lambda pc, pr, rc, rr, b: (pc - pr - rc + rr - 0.5 / b).abs().mean(),
        "square the distance from the target",
    ),
    "one-sided": Wrong(
        lambda pc, pr, rc, rr, b: (0.5 / b - (pc - pr - rc + rr)).relu().square().mean(),
        "a log-ratio beyond the target is pulled back: no relu",
    ),
    "sum": Wrong(
        lambda pc, pr, rc, rr, b: _ipo_looped(pc, pr, rc, rr, b) * len(pc),
        "mean over the pairs, not their sum",
    ),
}


def _draw_ipo(rng: random.Random) -> tuple[Any, ...]:
    beta, count = rng.choice((0.15, 0.25, 0.35)), rng.randint(5, 8)
    pr, rc, rr = (-2 - randn(rng, count).abs() for _ in range(3))
    pc = rc + pr - rr + 0.5 / beta + 0.3 * randn(rng, count)
    pc[0] += 1.5  # log-ratios on both sides of the target
    pc[1] -= 1.5
    return pc, pr, rc, rr, beta


def _check_ipo(answer: Any, rng: random.Random) -> Iterator[Part]:
    for _ in range(2):  # twice, for two losses may agree by chance
        given = _draw_ipo(rng)
        yield judge(1, answer(*given), _ipo_looped(*given), IPO_WRONG, given, FORMULA)


# --- kto_loss


def kto_loss(
    policy: Any,
    ref: Any,
    desirable: Any,
    z0: Any,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Any:
    """Mean of weight x (1 - sigmoid(+-beta (log-ratio - z0))), + for the desirable.

    Ethayarajh et al. 2024 (arXiv 2402.01306). policy, ref: (B,), sums over the tokens;
    desirable: (B,) boolean; z0: a number through which no gradient flows.
    """
    import torch

    gain = policy - ref - z0.detach()
    up = desirable_weight * (1 - torch.sigmoid(beta * gain))
    down = undesirable_weight * (1 - torch.sigmoid(-beta * gain))
    return torch.where(desirable, up, down).mean()


def _kto_signed(p: Any, r: Any, d: Any, z0: Any, b: float, wd: float, wu: float) -> Any:
    sign = 2 * d.float() - 1
    weight = wd * d + wu * ~d
    return (weight * (-b * sign * (p - r - z0.detach())).sigmoid()).mean()  # 1 - s(x) = s(-x)


def _kto_looped(p: Any, r: Any, d: Any, z0: Any, b: float, wd: float, wu: float) -> Any:
    losses = []
    for policy, ref, up in zip(p.double(), r.double(), d.tolist(), strict=True):
        gain = policy - ref - z0.detach()
        losses.append(wd / (1 + (b * gain).exp()) if up else wu / (1 + (-b * gain).exp()))
    return sum(losses) / len(losses)


def _kto_live_z0(p: Any, r: Any, d: Any, z0: Any, b: float, wd: float, wu: float) -> Any:
    gain = p - r - z0
    up, down = wd * (-b * gain).sigmoid(), wu * (b * gain).sigmoid()
    return (up * d + down * ~d).mean()


def _kto_logs(p: Any, r: Any, d: Any, z0: Any, b: float, wd: float, wu: float) -> Any:
    from torch.nn.functional import softplus

    gain = b * (p - r - z0.detach())
    return (wd * softplus(-gain) * d + wu * softplus(gain) * ~d).mean()


def _kto_values(p: Any, r: Any, d: Any, z0: Any, b: float, wd: float, wu: float) -> Any:
    gain = b * (p - r - z0.detach())
    return (wd * gain.sigmoid() * d + wu * (-gain).sigmoid() * ~d).mean()


def _kto_one_sign(p: Any, r: Any, d: Any, z0: Any, b: float, wd: float, wu: float) -> Any:
    loss = (-b * (p - r - z0.detach())).sigmoid()
    return ((wd * d + wu * ~d) * loss).mean()


def _kto_two_means(p: Any, r: Any, d: Any, z0: Any, b: float, wd: float, wu: float) -> Any:
    gain = b * (p - r - z0.detach())
    return wd * (-gain[d]).sigmoid().mean() + wu * gain[~d].sigmoid().mean()


KTO_WRONG = {
    "weights swapped": Wrong(
        lambda p, r, d, z, b, wd, wu: _kto_looped(p, r, d, z, b, wu, wd),
        "the two weights are swapped",
    ),
    "labels swapped": Wrong(
        lambda p, r, d, z, b, wd, wu: _kto_looped(p, r, ~d, z, b, wd, wu),
        "the direction: a desirable response should rise above z0, an undesirable one fall",
    ),
    "no weights": Wrong(
        lambda p, r, d, z, b, wd, wu: _kto_looped(p, r, d, z, b, 1, 1), "the weights are missing"
    ),
    "one sign": Wrong(
        _kto_one_sign, "an undesirable response is measured the other way: z0 minus its log-ratio"
    ),
    "no z0": Wrong(
        lambda p, r, d, z, b, wd, wu: _kto_looped(p, r, d, 0 * z, b, wd, wu),
        "the reference point z0 is missing",
    ),
    "z0 not scaled": Wrong(
        lambda p, r, d, z, b, wd, wu: _kto_looped(p, r, d, z / b, b, wd, wu),
        "beta scales the log-ratio and z0 alike",
    ),
    "no reference": Wrong(
        lambda p, r, d, z, b, wd, wu: _kto_looped(p, 0 * r, d, z, b, wd, wu),
        "the reference model is missing: take its log-probability off",
    ),
    "log": Wrong(_kto_logs, "no logarithm: the value saturates on both sides, as a sigmoid does"),
    "values": Wrong(_kto_values, "that is the value, which should rise: the loss is 1 - sigmoid"),
    "two means": Wrong(
        _kto_two_means, "one mean over the whole batch, not a mean for each kind of label"
    ),
    "gradient through z0": Wrong(
        _kto_live_z0, "no gradient may flow through the reference point: detach z0"
    ),
    "detached": Wrong(
        lambda p, r, d, z, b, wd, wu: kto_loss(p.detach(), r, d, z, b, wd, wu), NO_GRADIENT
    ),
}


def _draw_kto(rng: random.Random) -> tuple[Any, ...]:
    import torch

    up = [False, False] + [True] * rng.randint(3, 6)
    rng.shuffle(up)
    ref = -8 - 4 * randn(rng, len(up)).abs()
    z0 = torch.tensor(rng.uniform(0.8, 1.6))
    policy = ref + z0 + 3 + 3 * randn(rng, len(up)).abs()  # all above z0: no sign error hides
    weights = rng.choice((1.2, 1.4)), rng.choice((0.6, 0.8))
    return policy, ref, torch.tensor(up), z0, rng.choice((0.2, 0.4)), *weights


def _check_kto(answer: Any, rng: random.Random) -> Iterator[Part]:
    for _ in range(2):
        given = _draw_kto(rng)
        yield judge(1.5, answer(*given), _kto_looped(*given), KTO_WRONG, given, FORMULA)
    policy, ref, desirable, z0, *settings = given
    live, point = policy.clone().requires_grad_(), z0.clone().requires_grad_()
    slope, leak = gradients(answer(live, ref, desirable, point, *settings), live, point)
    yield Part(0.5, slope is not None, NO_GRADIENT)
    leaks = leak is not None and bool(leak.abs() > 0)
    yield Part(0.5, not leaks, KTO_WRONG["gradient through z0"].says)


# --- orpo_loss


def orpo_loss(chosen: Any, rejected: Any, nll: Any, beta: float) -> Any:
    """nll + beta x mean of -log sigmoid(log odds(chosen) - log odds(rejected)).

    Hong et al. 2024 (arXiv 2403.07691), eqs. 4, 6, 7. chosen, rejected: (N,), means over the
    tokens; nll: the SFT loss on the chosen side, a number. odds(p) = p / (1 - p).
    """
    import torch
    from torch.nn.functional import logsigmoid

    def log_odds(logprob: Any) -> Any:
        return logprob - torch.log(-torch.expm1(logprob))

    return nll - beta * logsigmoid(log_odds(chosen) - log_odds(rejected)).mean()


def _orpo_double(c: Any, r: Any, nll: Any, beta: float) -> Any:
    """In double precision even 1 - exp keeps enough digits."""
    c, r = c.double(), r.double()
    ratio = (c - (1 - c.exp()).log()) - (r - (1 - r.exp()).log())
    return nll + beta * (1 + (-ratio).exp()).log().mean()


def _orpo_logits(c: Any, r: Any, nll: Any, beta: float) -> Any:
    """The log odds of a probability are its logit."""
    from torch.nn.functional import softplus

    logit_c, logit_r = c.double().exp().logit(), r.double().exp().logit()
    return nll + beta * softplus(logit_r - logit_c).mean()


def _orpo_naive(c: Any, r: Any, nll: Any, beta: float) -> Any:
    from torch.nn.functional import logsigmoid

    ratio = c - (1 - c.exp()).log() - r + (1 - r.exp()).log()
    return nll - beta * logsigmoid(ratio).mean()


def _orpo_of(ratio: Any, nll: Any, beta: float) -> Any:
    from torch.nn.functional import logsigmoid

    return nll - beta * logsigmoid(ratio).mean()


ORPO_WRONG = {
    "ratio of probabilities": Wrong(
        lambda c, r, nll, b: _orpo_of(c - r, nll, b),
        "odds are p / (1 - p): the log odds need log(1 - p), too",
    ),
    "1 - log p": Wrong(
        lambda c, r, nll, b: _orpo_of(c - (1 - c).log() - r + (1 - r).log(), nll, b),
        "1 - p, not 1 - log p: these are log-probabilities, so p is exp of them",
    ),
    "log odds added": Wrong(
        lambda c, r, nll, b: _orpo_of(c + (1 - c.exp()).log() - r - (1 - r.exp()).log(), nll, b),
        "log odds are log p minus log(1 - p)",
    ),
    "direction": Wrong(
        lambda c, r, nll, b: _orpo_double(r, c, nll, b),
        "the direction: the chosen side's odds should be the larger",
    ),
    "sign": Wrong(
        lambda c, r, nll, b: _orpo_double(c, r, nll, -b),
        "the penalty is added: minus the log of a sigmoid is above 0",
    ),
    "no nll": Wrong(
        lambda c, r, nll, b: _orpo_double(c, r, 0, b),
        "the SFT part, nll, is missing: without it nothing teaches the chosen responses",
    ),
    "beta on nll": Wrong(
        lambda c, r, nll, b: _orpo_double(c, r, b * nll, 1),
        "beta weighs the penalty, not the SFT part",
    ),
    "no beta": Wrong(lambda c, r, nll, b: _orpo_double(c, r, nll, 1), "beta is missing"),
    "sum": Wrong(
        lambda c, r, nll, b: _orpo_double(c, r, nll, b * len(c)),
        "mean of the penalty over the pairs, not the sum",
    ),
    "unstable": Wrong(
        _orpo_naive,
        "1 - exp(x) loses its digits as x nears 0: use expm1, which is exp(x) - 1 done with care",
    ),
    "detached": Wrong(lambda c, r, nll, b: orpo_loss(c.detach(), r.detach(), nll, b), NO_GRADIENT),
}


def _draw_orpo(rng: random.Random) -> tuple[Any, ...]:
    import torch

    count, beta = rng.randint(5, 8), rng.choice((1.4, 1.7, 2.2))
    likelier, rarer = -0.1 - 0.4 * randn(rng, count).abs(), -0.8 - randn(rng, count).abs()
    chosen, rejected = likelier.clone(), rarer.clone()
    chosen[:2], rejected[:2] = rarer[:2], likelier[:2]  # two pairs in the wrong order
    return chosen, rejected, torch.tensor(rng.uniform(0.6, 1.2)), beta


def _check_orpo(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    for _ in range(2):
        given = _draw_orpo(rng)
        yield judge(1, answer(*given), _orpo_double(*given), ORPO_WRONG, given, FORMULA)
    chosen, rejected, nll, beta = given
    # Probabilities a rounding step from 1, in the wrong order, so that the penalty is large.
    near = torch.tensor([-3e-6, -0.5]), torch.tensor([-2e-7, -3e-7]), nll, 1.0
    ok = close(answer(*near), _orpo_double(*near), 1e-3)
    yield Part(1, ok, ORPO_WRONG["unstable"].says)
    live = [side.clone().requires_grad_() for side in (chosen, rejected)]
    yield Part(1, None not in gradients(answer(*live, nll, beta), *live), NO_GRADIENT)


# --- simpo_loss


def simpo_loss(chosen: Any, rejected: Any, beta: float, gamma: float) -> Any:
    """Mean of -log sigmoid(beta (chosen - rejected) - gamma).

    Meng et al. 2024 (arXiv 2405.14734), eq. 6. chosen, rejected: (N,), means over the tokens.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected) - gamma).mean()


def _simpo_softplus(c: Any, r: Any, beta: float, gamma: float) -> Any:
    from torch.nn.functional import softplus

    return softplus(gamma - beta * c + beta * r).sum() / c.numel()


def _simpo_looped(c: Any, r: Any, beta: float, gamma: float) -> Any:
    losses = [(1 + (gamma - beta * x).exp()).log() for x in (c - r).double()]
    return sum(losses) / len(losses)


SIMPO_WRONG = {
    "gamma added": Wrong(
        lambda c, r, b, g: _simpo_looped(c, r, b, -g),
        "gamma is taken off: the chosen side has to win by more than it",
    ),
    "gamma scaled": Wrong(
        lambda c, r, b, g: _simpo_looped(c, r, b, b * g),
        "gamma stands outside the bracket: beta does not scale it",
    ),
    "no gamma": Wrong(lambda c, r, b, g: _simpo_looped(c, r, b, 0), "gamma is missing"),
    "no beta": Wrong(lambda c, r, b, g: _simpo_looped(c, r, 1, g), "beta is missing"),
    "direction": Wrong(
        lambda c, r, b, g: _simpo_looped(r, c, b, g),
        "the direction: the chosen side comes first, the rejected is taken off",
    ),
    "no minus": Wrong(
        lambda c, r, b, g: -_simpo_looped(c, r, b, g),
        "the minus is missing: -log sigmoid is above 0",
    ),
    "probability": Wrong(
        lambda c, r, b, g: 1 - (b * (c - r) - g).sigmoid().mean(),
        "the logarithm is missing: -log sigmoid, not 1 - sigmoid",
    ),
    "sum": Wrong(
        lambda c, r, b, g: _simpo_looped(c, r, b, g) * len(c), "mean over the pairs, not their sum"
    ),
    "mean first": Wrong(
        lambda c, r, b, g: _simpo_looped(c.mean()[None], r.mean()[None], b, g),
        "the mean comes last: the log sigmoid of each pair first",
    ),
}


def _check_simpo(answer: Any, rng: random.Random) -> Iterator[Part]:
    for _ in range(2):
        count = rng.randint(5, 8)
        chosen, rejected = (-1 - randn(rng, count).abs() for _ in range(2))
        given = chosen, rejected, rng.choice((2.0, 2.5, 3.0)), rng.choice((0.5, 0.8, 1.2))
        yield judge(1, answer(*given), _simpo_looped(*given), SIMPO_WRONG, given, FORMULA)


EXERCISES = [
    Exercise(
        name="ipo_loss",
        chapter="07_variants",
        title="The IPO loss",
        points=2,
        difficulty=2,
        minutes=8,
        hint="DPO's difference of log-ratios without beta; its squared distance from 1/(2 beta)",
        check=_check_ipo,
        solution=ipo_loss,
        other_right=[_ipo_mse, _ipo_looped],
        wrong=IPO_WRONG,
    ),
    Exercise(
        name="kto_loss",
        chapter="07_variants",
        title="The KTO loss",
        points=4,
        difficulty=3,
        minutes=15,
        hint="log-ratio minus z0 for the desirable, z0 minus log-ratio for the others",
        check=_check_kto,
        solution=kto_loss,
        other_right=[_kto_signed, _kto_looped],
        wrong=KTO_WRONG,
    ),
    Exercise(
        name="orpo_loss",
        chapter="07_variants",
        title="The ORPO loss",
        points=4,
        difficulty=3,
        minutes=15,
        hint="log odds are x - log(1 - exp(x)), and 1 - exp(x) is -expm1(x)",
        check=_check_orpo,
        solution=orpo_loss,
        other_right=[_orpo_double, _orpo_logits],
        wrong=ORPO_WRONG,
    ),
    Exercise(
        name="simpo_loss",
        chapter="07_variants",
        title="The SimPO loss",
        points=2,
        difficulty=2,
        minutes=6,
        hint="the rewards are beta times the mean log-probabilities; there is no reference",
        check=_check_simpo,
        solution=simpo_loss,
        other_right=[_simpo_softplus, _simpo_looped],
        wrong=SIMPO_WRONG,
    ),
]
