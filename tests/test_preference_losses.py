"""Preference losses against values by hand, closed-form gradients, exact optima, and TRL."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import logprobs, preference  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402

LN2 = math.log(2)
GAMMA = 0.5
EPS = 0.1


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# --- Worked by hand ---------------------------------------------------------------------------

# One pair: log-ratios -4 - (-5) = 1 and -6 - (-5.5) = -0.5; at beta 0.5 the margin is 0.75.
PAIR = (vector(-4.0), vector(-6.0), vector(-5.0), vector(-5.5))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0.386871),  # ln(1 + e^-0.75)
        ({"loss_type": "hinge"}, 0.25),  # 1 - 0.75
        ({"label_smoothing": 0.1}, 0.461871),  # 0.9 * 0.386871 + 0.1 * (0.386871 + 0.75)
        # (0.9 * 0.386871 - 0.1 * 1.136871) / 0.8
        ({"loss_type": "robust", "label_smoothing": 0.1}, 0.293121),
        ({"loss_type": "robust"}, 0.386871),  # nobody flips labels: plain DPO
    ],
)
def test_dpo_by_hand(options: dict[str, Any], expected: float) -> None:
    loss, metrics = preference.dpo_loss(*PAIR, beta=0.5, **options)
    assert loss.item() == pytest.approx(expected, abs=2e-6)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {
            "rewards/chosen": 0.5,
            "rewards/rejected": -0.25,
            "rewards/margins": 0.75,
            "rewards/accuracies": 1.0,
            "logps/chosen": -4.0,
            "logps/rejected": -6.0,
        }
    )


def test_dpo_is_the_mean_over_pairs() -> None:
    # The second pair has log-ratios -1 and 1, margin -1 at beta 0.5: ln(1 + e) = 1.313262.
    second = (vector(-6.0), vector(-4.0), vector(-5.0), vector(-5.0))
    both = [torch.cat(sides) for sides in zip(PAIR, second, strict=True)]
    loss, metrics = preference.dpo_loss(*both, beta=0.5)
    assert loss.item() == pytest.approx((0.386871 + 1.313262) / 2, abs=2e-6)
    assert metrics["rewards/accuracies"].item() == 0.5
    assert metrics["rewards/margins"].item() == pytest.approx((0.75 - 1) / 2)


@pytest.mark.parametrize(
    ("beta", "expected"),
    # The log-ratio is 1 + 0.5 = 1.5 and the target 1/(2 beta).
    [(0.5, 0.25), (0.1, 12.25), (1 / 3, 0.0)],
)
def test_ipo_by_hand(beta: float, expected: float) -> None:
    loss, metrics = preference.ipo_loss(*PAIR, beta=beta)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert metrics["rewards/margins"].item() == pytest.approx(1.5 * beta)


def test_kto_by_hand() -> None:
    # Log-ratios 1 (thumb up) and 0.5 (thumb down), z0 = 0.25, beta = 2: values 1.5 and -0.5.
    policy, ref = vector(-3.0, -2.5), vector(-4.0, -3.0)
    loss, metrics = preference.kto_loss(
        policy, ref, torch.tensor([True, False]), 0.25, 2.0,
        desirable_weight=1.5, undesirable_weight=0.5,
    )  # fmt: skip
    # 1 - sigmoid(1.5) = 0.182426 and 1 - sigmoid(-0.5) = 0.622459
    assert loss.item() == pytest.approx((1.5 * 0.182426 + 0.5 * 0.622459) / 2, abs=1e-6)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {
            "kl": 0.25,
            "rewards/chosen": 2.0,
            "rewards/rejected": 1.0,
            "rewards/margins": 1.0,
            "logps/chosen": -3.0,
            "logps/rejected": -2.5,
        }
    )


def test_kto_of_one_kind_has_the_metrics_of_that_kind() -> None:
    policy = vector(-3.0, -2.0)
    _, metrics = preference.kto_loss(policy, policy - 1, torch.tensor([False, False]), 0.0, 0.1)
    assert set(metrics) == {"kl", "rewards/rejected", "logps/rejected"}


def test_kto_reference_point() -> None:
    # Differences 1 and 0.5: mean 0.75. Swapped it would be -0.75, and a KL is never negative.
    policy, ref = vector(-3.0, -2.5).requires_grad_(), vector(-4.0, -3.0)
    z0 = preference.kto_reference_point(policy, ref)
    assert z0.item() == 0.75 and not z0.requires_grad
    assert preference.kto_reference_point(ref, policy).item() == 0


def test_orpo_by_hand() -> None:
    # Mean probabilities 1/2 and 1/5: odds 1 and 1/4, ratio 4, penalty ln(1 + 1/4) = 0.223144.
    chosen, rejected = vector(0.5).log(), vector(0.2).log()
    loss, metrics = preference.orpo_loss(chosen, rejected, torch.tensor(0.7), beta=0.1)
    assert loss.item() == pytest.approx(0.7 + 0.1 * 0.223144, abs=1e-6)
    assert metrics["log_odds_ratio"].item() == pytest.approx(math.log(4))
    assert metrics["nll"].item() == pytest.approx(0.7)
    per_row, _ = preference.orpo_loss(chosen, rejected, vector(0.5, 0.9), beta=0.1)
    assert per_row.item() == pytest.approx(loss.item())


def test_simpo_by_hand() -> None:
    # 2 * (-1 + 1.5) - 0.5 = 0.5, and ln(1 + e^-0.5) = 0.474077.
    loss, metrics = preference.simpo_loss(vector(-1.0), vector(-1.5), beta=2.0, gamma=0.5)
    assert loss.item() == pytest.approx(0.474077, abs=1e-6)
    assert metrics["rewards/margins"].item() == pytest.approx(1.0)


# --- Gradients in float64 ---------------------------------------------------------------------


def drawn(count: int, seed: int) -> list[torch.Tensor]:
    """Four vectors of log-probabilities in float64; the first two want gradients."""
    generator = torch.Generator().manual_seed(seed)
    made = [
        -0.1 - 3 * torch.rand(count, generator=generator, dtype=torch.float64) for _ in range(4)
    ]
    return [v.requires_grad_(i < 2) for i, v in enumerate(made)]


@pytest.mark.parametrize("kind", ["DPO", "hinge", "cDPO", "robust DPO", "IPO"])
def test_gradients_of_pair_losses(kind: str) -> None:
    count, beta = 7, 0.7
    pc, pr, rc, rr = drawn(count, seed=3)
    loss_of(kind, pc, pr, rc, rr, beta).backward()
    for i in range(count):
        h = (pc[i] - rc[i] - pr[i] + rr[i]).item()
        p = sigmoid(beta * h)  # that the chosen side wins, according to the policy
        slope = {
            "DPO": -beta * (1 - p),
            "hinge": -beta * (beta * h < 1),
            "cDPO": -beta * ((1 - EPS) - p),  # zero where p is 1 - eps
            "robust DPO": -beta * ((1 - EPS) * (1 - p) + EPS * p) / (1 - 2 * EPS),
            "IPO": 2 * (h - 1 / (2 * beta)),
        }[kind]
        assert pc.grad[i].item() == pytest.approx(slope / count, rel=1e-9, abs=1e-12)
        assert pr.grad[i].item() == pytest.approx(-slope / count, rel=1e-9, abs=1e-12)


def test_gradients_of_kto() -> None:
    policy, _, ref, _ = drawn(6, seed=4)
    z0 = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    up = torch.tensor([True, False, True, True, False, False])
    preference.kto_loss(policy, ref, up, z0, 0.7, 1.2, 0.8)[0].backward()
    assert z0.grad is None, "no gradient through the reference point"
    for i in range(6):
        sign, weight = (1, 1.2) if up[i] else (-1, 0.8)
        s = sigmoid(sign * 0.7 * ((policy[i] - ref[i]).item() - 0.3))
        assert policy.grad[i].item() == pytest.approx(-sign * weight * 0.7 * s * (1 - s) / 6)


def test_gradients_of_orpo_and_simpo() -> None:
    pc, pr, _, _ = drawn(5, seed=5)
    preference.orpo_loss(pc, pr, -pc.mean(), beta=0.3)[0].backward()
    for i in range(5):
        c, r = pc[i].exp().item(), pr[i].exp().item()
        wrong = 1 / (1 + c / (1 - c) * (1 - r) / r)  # 1 - sigmoid(log odds ratio)
        assert pc.grad[i].item() == pytest.approx((-1 - 0.3 * wrong / (1 - c)) / 5)
        assert pr.grad[i].item() == pytest.approx(0.3 * wrong / (1 - r) / 5)
    pc, pr, _, _ = drawn(5, seed=6)
    preference.simpo_loss(pc, pr, beta=2.0, gamma=0.5)[0].backward()
    for i in range(5):
        slope = -2 * (1 - sigmoid(2 * (pc[i] - pr[i]).item() - 0.5))
        assert pc.grad[i].item() == pytest.approx(slope / 5)
        assert pr.grad[i].item() == pytest.approx(-slope / 5)


def test_metrics_carry_no_gradient() -> None:
    pc, pr, rc, rr = drawn(4, seed=7)
    up = torch.tensor([True, False, True, False])
    for loss, metrics in (
        preference.dpo_loss(pc, pr, rc, rr, 0.1),
        preference.ipo_loss(pc, pr, rc, rr, 0.1),
        preference.kto_loss(pc, rc, up, 0.0, 0.1),
        preference.orpo_loss(pc, pr, -pc.mean(), 0.1),
        preference.simpo_loss(pc, pr, 2.0, 0.5),
    ):
        assert loss.requires_grad and loss.shape == ()
        assert all(not value.requires_grad and value.shape == () for value in metrics.values())


@pytest.mark.parametrize("x", [-1e-6, -1e-5, -1e-3, -0.1, -0.6931, -5.0, -40.0, -90.0])
def test_log_odds_in_float32_agrees_with_float64(x: float) -> None:
    given = torch.tensor([x], requires_grad=True)
    exact = given.item() - math.log(-math.expm1(given.item()))
    got = preference.log_odds(given)
    assert got.item() == pytest.approx(exact, rel=1e-5, abs=1e-6)
    got.backward()
    assert given.grad.item() == pytest.approx(-1 / math.expm1(given.item()), rel=1e-4)


def test_orpo_survives_a_response_that_is_certain() -> None:
    for chosen, rejected in ((0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e-9, -200.0)):
        pc, pr = (torch.tensor([x], requires_grad=True) for x in (chosen, rejected))
        loss, _ = preference.orpo_loss(pc, pr, -pc.mean(), beta=0.1)
        loss.backward()
        assert loss.isfinite() and pc.grad.isfinite().all() and pr.grad.isfinite().all()


# --- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_beta_must_be_positive(beta: float) -> None:
    one = vector(-1.0)
    calls: list[Callable[[], Any]] = [
        lambda: preference.dpo_loss(one, one, one, one, beta),
        lambda: preference.ipo_loss(one, one, one, one, beta),
        lambda: preference.kto_loss(one, one, torch.tensor([True]), 0.0, beta),
        lambda: preference.orpo_loss(one, one, one, beta),
        lambda: preference.simpo_loss(one, one, beta, 0.5),
    ]
    for call in calls:
        with pytest.raises(CourseError, match=r"beta is .*: it must be a positive number"):
            call()


def test_other_settings_out_of_range() -> None:
    one = vector(-1.0)
    for eps in (-0.1, 0.5, math.nan):
        with pytest.raises(CourseError, match=r"label_smoothing .* 0 to below 0\.5"):
            preference.dpo_loss(one, one, one, one, 0.1, label_smoothing=eps)
    with pytest.raises(CourseError, match="hinge loss has no label smoothing"):
        preference.dpo_loss(one, one, one, one, 0.1, "hinge", 0.1)
    with pytest.raises(CourseError, match="Legal DPO loss type names: sigmoid, hinge, robust"):
        preference.dpo_loss(one, one, one, one, 0.1, "sigmoyd")
    with pytest.raises(CourseError, match="gamma"):
        preference.simpo_loss(one, one, 2.0, -1.0)
    with pytest.raises(CourseError, match="undesirable_weight"):
        preference.kto_loss(one, one, torch.tensor([True]), 0.0, 0.1, 1.0, 0.0)


# --- The claims of the table ------------------------------------------------------------------


def loss_of(
    name: str,
    pc: torch.Tensor,
    pr: torch.Tensor,
    rc: torch.Tensor,
    rr: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """The loss of a row of METHODS on pairs; KTO reads them as thumbs, with z0 = 0."""
    if name in ("DPO", "hinge", "cDPO", "robust DPO"):
        kind = {"hinge": "hinge", "robust DPO": "robust"}.get(name, "sigmoid")
        eps = EPS if name in ("cDPO", "robust DPO") else 0.0
        return preference.dpo_loss(pc, pr, rc, rr, beta, kind, eps)[0]
    if name == "IPO":
        return preference.ipo_loss(pc, pr, rc, rr, beta)[0]
    if name == "KTO":
        up = torch.arange(2 * len(pc)) < len(pc)
        return preference.kto_loss(torch.cat([pc, pr]), torch.cat([rc, rr]), up, 0.0, beta)[0]
    if name == "ORPO":
        return preference.orpo_loss(pc, pr, -pc.mean(), beta)[0]
    return preference.simpo_loss(pc, pr, beta, GAMMA)[0]


AT_START = {
    "ln 2": lambda beta: LN2,
    "1": lambda beta: 1.0,
    "1/(4 beta^2)": lambda beta: 1 / (4 * beta**2),
    "1/2 (at weights of 1)": lambda beta: 0.5,
}
IDENTICAL = {
    "ln 2, no gradient": lambda beta, nll: LN2,
    "1, no gradient": lambda beta, nll: 1.0,
    "1/(4 beta^2), no gradient": lambda beta, nll: 1 / (4 * beta**2),
    "1/2, no gradient (one thumb up, one down)": lambda beta, nll: 0.5,
    "NLL + beta ln 2, the gradient of SFT": lambda beta, nll: nll + beta * LN2,
    "ln(1 + e^gamma), no gradient": lambda beta, nll: math.log(1 + math.exp(GAMMA)),
}
NAMES = [method.name for method in preference.METHODS]


@pytest.mark.parametrize("method", preference.METHODS, ids=NAMES)
@pytest.mark.parametrize("beta", [0.05, 0.4, 3.0])
def test_the_loss_at_the_start(method: preference.Method, beta: float) -> None:
    pc, pr, rc, rr = drawn(5, seed=8)
    if method.at_start == "depends on the model":
        assert not method.reference
        other = loss_of(method.name, pr, pc, pr, pc, beta)
        assert abs(loss_of(method.name, pc, pr, pc, pr, beta) - other) > 1e-3
        return
    assert method.reference
    loss = loss_of(method.name, pc, pr, pc.detach(), pr.detach(), beta)
    assert loss.item() == pytest.approx(AT_START[method.at_start](beta))
    # and the reference is what makes it so: with another one the loss is another
    assert abs(loss_of(method.name, pc, pr, rc, rr, beta) - loss) > 1e-3


@pytest.mark.parametrize("method", preference.METHODS, ids=NAMES)
@pytest.mark.parametrize("beta", [0.05, 0.4, 3.0])
def test_identical_responses(method: preference.Method, beta: float) -> None:
    same, _, ref, _ = drawn(5, seed=9)
    loss = loss_of(method.name, same, same, ref, ref, beta)
    loss.backward()
    expected = IDENTICAL[method.identical](beta, -same.mean().item())
    assert loss.item() == pytest.approx(expected)
    slope = -1 / 5 if method.identical.endswith("the gradient of SFT") else 0.0
    assert same.grad.tolist() == pytest.approx([slope] * 5, abs=1e-9)


def slope_at(name: str, ratio: float, beta: float) -> float:
    """How one pair's loss changes with its log-ratio."""
    pc = vector(ratio).requires_grad_()
    loss_of(name, pc, vector(0.0), vector(0.0), vector(0.0), beta).backward()
    return float(pc.grad.item())


TARGETS = {  # the log-ratio at which a pair of always the same verdict is left alone
    "hinge": lambda beta: 1 / beta,
    "cDPO": lambda beta: math.log((1 - EPS) / EPS) / beta,
    "IPO": lambda beta: 1 / (2 * beta),
}


@pytest.mark.parametrize("name", TARGETS)
def test_target_of_the_log_ratio(name: str) -> None:
    formula = {"hinge": "1/beta", "cDPO": "ln((1-eps)/eps)/beta", "IPO": "1/(2 beta)"}[name]
    method = next(m for m in preference.METHODS if m.name == name)
    assert f"log-ratio is {formula}" in method.small_beta or f"of {formula}" in method.small_beta
    assert f"of {formula}" in method.large_beta
    assert "ever further" in method.small_beta and "the reference" in method.large_beta
    for beta in (1e-3, 0.1, 1.0, 1e3):
        target = TARGETS[name](beta)
        assert slope_at(name, 0.99 * target, beta) < 0, "below the target: push"
        assert slope_at(name, 1.01 * target, beta) >= 0, "beyond it: not"
    assert TARGETS[name](1e-3) > 400 and TARGETS[name](1e3) < 0.01


def test_robust_is_dpo_with_the_true_labels() -> None:
    method = next(m for m in preference.METHODS if m.name == "robust DPO")
    assert method.small_beta == method.large_beta == "as DPO with the true labels"
    pc, pr, rc, rr = drawn(6, seed=10)
    for beta in (1e-3, 0.3, 20.0):
        kept = loss_of("robust DPO", pc, pr, rc, rr, beta)
        flipped = loss_of("robust DPO", pr, pc, rr, rc, beta)
        expected = (1 - EPS) * kept + EPS * flipped  # a share EPS of the labels is wrong
        assert expected.item() == pytest.approx(loss_of("DPO", pc, pr, rc, rr, beta).item())


def test_extreme_betas_of_kto() -> None:
    method = next(m for m in preference.METHODS if m.name == "KTO")
    pc, pr, rc, rr = drawn(8, seed=11)
    loss = loss_of("KTO", pc, pr, rc, rr, 1e-8)
    loss.backward()
    assert method.small_beta == "1/2 whatever the policy, no gradient"
    assert loss.item() == pytest.approx(0.5, abs=1e-7) and pc.grad.abs().max() < 1e-8
    assert method.large_beta == "the share of responses on the wrong side of z0"
    wrong = (pc < rc).sum() + (pr > rr).sum()
    assert 0 < wrong < 16
    assert loss_of("KTO", pc, pr, rc, rr, 1e7).item() == pytest.approx(wrong.item() / 16)


def test_extreme_betas_of_orpo() -> None:
    method = next(m for m in preference.METHODS if m.name == "ORPO")
    pc, pr, rc, rr = drawn(8, seed=12)
    assert method.small_beta == "SFT on the chosen responses"
    assert loss_of("ORPO", pc, pr, rc, rr, 1e-9).item() == pytest.approx(-pc.mean().item())
    assert method.large_beta == "the odds ratio alone"
    odds = pc.exp() / (1 - pc.exp()) * (1 - pr.exp()) / pr.exp()
    alone = (1 + 1 / odds).log().mean().item()
    assert loss_of("ORPO", pc, pr, rc, rr, 1e9).item() / 1e9 == pytest.approx(alone)


def test_extreme_betas_of_simpo() -> None:
    method = next(m for m in preference.METHODS if m.name == "SimPO")
    pc, pr, rc, rr = drawn(8, seed=13)
    loss = loss_of("SimPO", pc, pr, rc, rr, 1e-9)
    loss.backward()
    assert method.small_beta == "ln(1 + e^gamma) whatever the policy, no gradient"
    assert loss.item() == pytest.approx(math.log(1 + math.exp(GAMMA)), abs=1e-7)
    assert pc.grad.abs().max() < 1e-8
    assert method.large_beta == "0 for a pair in the right order, beta times the gap for any other"
    gap = (pr - pc).clamp(min=0)
    assert (gap > 0).any() and (gap == 0).any()
    big = loss_of("SimPO", pc, pr, rc, rr, 1e7).item() / 1e7
    assert big == pytest.approx(gap.mean().item(), rel=1e-5)


# --- Three possible responses: what the policy becomes ----------------------------------------

REFERENCE = vector(0.2, 0.3, 0.5)
# Of 20 comparisons of each two responses so many go to the better one. Under Bradley-Terry that
# is a reward of ln 9, ln 3 and 0: odds of 3 to 1 between neighbours, 9 to 1 between the ends.
VERDICTS = {(0, 1): 15, (1, 2): 15, (0, 2): 18}
REWARD = vector(math.log(9), math.log(3), 0.0)
VERDICT_ROWS = [
    verdict
    for (better, worse), count in VERDICTS.items()
    for verdict in [(better, worse)] * count + [(worse, better)] * (20 - count)
]
WINNERS, LOSERS = torch.tensor(VERDICT_ROWS).T


def descend(name: str, beta: float, rate: float, steps: int = 1500) -> torch.Tensor:
    """The three probabilities after gradient descent from the reference on all 60 verdicts."""
    ref = REFERENCE.log()
    logits = ref.clone().requires_grad_()
    for _ in range(steps):
        logp = logits.log_softmax(-1)
        loss = loss_of(name, logp[WINNERS], logp[LOSERS], ref[WINNERS], ref[LOSERS], beta)
        (slope,) = torch.autograd.grad(loss, logits)
        logits = (logits - rate * slope).detach().requires_grad_()
    return logits.softmax(-1).detach()


def divergence(policy: torch.Tensor) -> float:
    return float((policy * (policy / REFERENCE).log()).sum())


@pytest.mark.slow
def test_dpo_finds_the_optimum_and_a_larger_beta_stays_closer_to_the_reference() -> None:
    distances = []
    for beta in (0.25, 0.5, 1.0, 4.0):
        found = descend("DPO", beta, rate=4 / beta**2)
        weights = REFERENCE * (REWARD / beta).exp()  # eq. 4 of the DPO paper, enumerated
        torch.testing.assert_close(found, weights / weights.sum(), atol=1e-6, rtol=0)
        distances.append(divergence(found))
    assert distances == sorted(distances, reverse=True) and distances[0] > 10 * distances[-1]


def test_extreme_betas_of_dpo() -> None:
    method = next(m for m in preference.METHODS if m.name == "DPO")
    assert method.small_beta.startswith("the best policy forgets the reference: only the best")
    assert REFERENCE.argmax() != 0, "the reference prefers another response"
    assert descend("DPO", 0.05, rate=4 / 0.05**2)[0] > 0.9999
    assert method.large_beta == "the best policy is the reference"
    assert divergence(descend("DPO", 300.0, rate=4 / 300**2)) < 1e-4


@pytest.mark.slow
def test_ipo_finds_the_optimum_and_a_larger_beta_stays_closer_to_the_reference() -> None:
    # Azar et al. 2023, eq. 5 with uniform competitors: the reward is the mean win probability.
    wins = vector(0.75 + 0.9, 0.25 + 0.75, 0.1 + 0.25) / 3
    distances = []
    for beta in (0.1, 0.25, 1.0, 4.0):
        found = descend("IPO", beta, rate=0.5)
        weights = REFERENCE * (wins / beta).exp()
        torch.testing.assert_close(found, weights / weights.sum(), atol=1e-6, rtol=0)
        distances.append(divergence(found))
    assert distances == sorted(distances, reverse=True) and distances[0] > 10 * distances[-1]


# --- Log-probabilities of responses -----------------------------------------------------------

ROWS = [
    {"prompt": "Where does the bell heron live?\n", "chosen": "In the reeds.", "rejected": "Who?"},
    {"prompt": "And?\n", "chosen": "A lantern is lit at noon.", "rejected": "The ferry crosses."},
    {"prompt": "When does the ferry cross?\n", "chosen": "At noon.", "rejected": "Small fish eat."},
    {"prompt": "What does it eat, the heron?\n", "chosen": "Fish.", "rejected": "The Upper Mere"},
]


def test_response_logprobs(tokenizer: Any, new_model: Callable[..., Any]) -> None:
    model = new_model()
    batch = preference.collate_pairs(ROWS, tokenizer)
    with torch.no_grad():
        sums, means = preference.response_logprobs(
            model, batch.input_ids, batch.attention_mask, batch.response_mask
        )
    assert sums.shape == means.shape == (8,) and sums.dtype == torch.float32
    for row, (pair, side) in enumerate((p, s) for s in ("chosen", "rejected") for p in ROWS):
        # alone, token by token, in float64
        prompt = tokenizer(pair["prompt"])["input_ids"]
        response = tokenizer(pair[side])["input_ids"] + [tokenizer.eos_token_id]
        assert tokenizer(pair["prompt"] + pair[side])["input_ids"] == prompt + response[:-1]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0].double()
        total = sum(
            logits[len(prompt) + i - 1].log_softmax(-1)[token].item()
            for i, token in enumerate(response)
        )
        assert sums[row].item() == pytest.approx(total, abs=1e-4)
        assert means[row].item() == pytest.approx(total / len(response), abs=1e-4)


def test_response_logprobs_on_the_left(tokenizer: Any, new_model: Callable[..., Any]) -> None:
    """Padding on the other side changes nothing."""
    batch = preference.collate_pairs(ROWS, tokenizer)
    lengths = batch.attention_mask.sum(-1).tolist()
    width = batch.input_ids.shape[1]
    assert min(lengths) < width

    def roll(value: torch.Tensor) -> torch.Tensor:
        return torch.stack([r.roll(width - n) for r, n in zip(value, lengths, strict=True)])

    model = new_model()
    with torch.no_grad():
        right, _ = preference.response_logprobs(
            model, batch.input_ids, batch.attention_mask, batch.response_mask
        )
        left, _ = preference.response_logprobs(
            model, roll(batch.input_ids), roll(batch.attention_mask), roll(batch.response_mask)
        )
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)


def test_a_response_without_tokens_has_no_mean(
    tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    batch = preference.collate_pairs(ROWS, tokenizer, max_length=4)  # prompts are longer
    with pytest.raises(ValueError, match="no response token"):
        preference.response_logprobs(
            new_model(), batch.input_ids, batch.attention_mask, batch.response_mask
        )


# --- The same batch through TRL ---------------------------------------------------------------


@pytest.fixture(scope="module")
def policy_and_reference(new_model: Callable[..., Any]) -> tuple[Any, Any]:
    """A reference, and a policy a few steps away from it: margins of about 1."""
    reference = new_model()
    policy = deepcopy(reference)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.03 * torch.randn(weight.shape, generator=generator))
    return policy, reference


def arguments(tmp: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "activation_checkpointing": False,
        "max_length": 200,
        "disable_tqdm": True,
    }


def collated(trainer: Any) -> dict[str, Any]:
    return trainer.data_collator(list(trainer.train_dataset))


def sides(model: Any, tokenizer: Any, mean: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Our own chosen and rejected log-probabilities of ROWS."""
    batch = preference.collate_pairs(ROWS, tokenizer)
    both = preference.response_logprobs(
        model, batch.input_ids, batch.attention_mask, batch.response_mask
    )
    return both[mean].chunk(2)


def same_step(theirs: torch.Tensor, their_model: Any, ours: torch.Tensor, our_model: Any) -> None:
    """Loss and gradient agree, and are not trivial."""
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for model in (their_model, our_model):
        model.zero_grad()
    theirs.backward()
    ours.backward()
    for (name, a), b in zip(their_model.named_parameters(), our_model.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-3, msg=name)
    assert max(p.grad.abs().max() for p in our_model.parameters()) > 1e-3


@pytest.fixture(scope="module")
def dpo_trainer(
    policy_and_reference: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference = map(deepcopy, policy_and_reference)
    return DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(beta=0.3, **arguments(tmp_path_factory.mktemp("dpo"))),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )


def test_our_batch_is_trls(dpo_trainer: Any, tokenizer: Any) -> None:
    theirs, ours = collated(dpo_trainer), preference.collate_pairs(ROWS, tokenizer)
    assert torch.equal(ours.input_ids, theirs["input_ids"])
    assert torch.equal(ours.attention_mask, theirs["attention_mask"])
    assert torch.equal(ours.response_mask, theirs["completion_mask"].bool())


@pytest.mark.parametrize("name", ["DPO", "hinge", "robust DPO", "IPO"])
def test_dpo_losses_agree_with_trl(
    name: str, dpo_trainer: Any, policy_and_reference: Any, tokenizer: Any
) -> None:
    dpo_trainer.loss_types = [{"DPO": "sigmoid", "robust DPO": "robust"}.get(name, name.lower())]
    dpo_trainer.label_smoothing = EPS
    theirs = dpo_trainer.compute_loss(dpo_trainer.model, collated(dpo_trainer))
    policy, reference = map(deepcopy, policy_and_reference)
    with torch.no_grad():
        ref = sides(reference, tokenizer, name == "IPO")
    now = sides(policy, tokenizer, name == "IPO")
    ours = loss_of(name, *now, *ref, 0.3)
    assert ((now[0] - ref[0]) - (now[1] - ref[1])).abs().max() > (0.05 if name == "IPO" else 0.3)
    if name == "IPO":  # the sum, as the paper writes it, is another loss
        sums = loss_of(name, *sides(policy, tokenizer), *sides(reference, tokenizer), 0.3)
        assert abs(sums - theirs) > 0.1
    same_step(theirs, dpo_trainer.model, ours, policy)


def test_dpo_metrics_agree_with_trl(
    dpo_trainer: Any, policy_and_reference: Any, tokenizer: Any
) -> None:
    dpo_trainer.loss_types = ["sigmoid"]
    dpo_trainer._metrics["train"].clear()
    dpo_trainer._metrics["eval"].clear()
    dpo_trainer.compute_loss(dpo_trainer.model, collated(dpo_trainer))
    logged = {**dpo_trainer._metrics["train"], **dpo_trainer._metrics["eval"]}
    with torch.no_grad():
        policy, reference = (sides(model, tokenizer) for model in policy_and_reference)
        _, metrics = preference.dpo_loss(*policy, *reference, 0.3)
    for name, value in metrics.items():
        assert value.item() == pytest.approx(logged[name][-1], abs=1e-4), name


def test_cdpo_agrees_with_trls_aot_on_single_pairs(
    dpo_trainer: Any, policy_and_reference: Any, tokenizer: Any
) -> None:
    """TRL 1.16's sigmoid ignores label smoothing. Its AOT loss sorts a batch; of one pair there is
    nothing to sort, and what is left is cDPO."""
    dpo_trainer.loss_types, dpo_trainer.label_smoothing = ["aot"], EPS
    theirs = torch.stack(
        [
            dpo_trainer.compute_loss(dpo_trainer.model, dpo_trainer.data_collator([row]))
            for row in dpo_trainer.train_dataset
        ]
    ).mean()
    policy, reference = map(deepcopy, policy_and_reference)
    with torch.no_grad():
        ref = sides(reference, tokenizer)
    ours = loss_of("cDPO", *sides(policy, tokenizer), *ref, 0.3)
    assert abs(ours - loss_of("DPO", *sides(policy, tokenizer), *ref, 0.3)) > 1e-3
    same_step(theirs, dpo_trainer.model, ours, policy)


def thumb_sums(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    batch = preference.collate_texts(
        [row["prompt"] for row in rows], [row["completion"] for row in rows], tokenizer
    )
    return preference.response_logprobs(
        model, batch.input_ids, batch.attention_mask, batch.response_mask
    )[0]


def test_kto_agrees_with_trl(policy_and_reference: Any, tokenizer: Any, tmp_path: Any) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    thumbs = preference.unpair(ROWS)[:-1]  # more thumbs up than down
    others = preference.mismatched(thumbs)
    up = torch.tensor([row["label"] for row in thumbs])
    points = []
    # Which of the two is the policy decides on which side of 0 the estimated KL falls.
    for policy, reference in (policy_and_reference, policy_and_reference[::-1]):
        policy = deepcopy(policy)
        trainer = KTOTrainer(
            model=deepcopy(policy),
            ref_model=deepcopy(reference),
            args=KTOConfig(
                beta=0.3,
                desirable_weight=0.9,
                undesirable_weight=1.3,
                per_device_train_batch_size=len(thumbs),
                **arguments(tmp_path),
            ),
            train_dataset=Dataset.from_list(thumbs),
            processing_class=tokenizer,
        )
        theirs = trainer.compute_loss(trainer.model, collated(trainer))
        logged = {**trainer._metrics["train"], **trainer._metrics["eval"]}
        with torch.no_grad():
            z0 = preference.kto_reference_point(
                thumb_sums(policy, tokenizer, others), thumb_sums(reference, tokenizer, others)
            )
            ref = thumb_sums(reference, tokenizer, thumbs)
        now = thumb_sums(policy, tokenizer, thumbs)
        ours, metrics = preference.kto_loss(now, ref, up, z0, 0.3, 0.9, 1.3)
        same_step(theirs, trainer.model, ours, policy)
        for name, value in metrics.items():
            assert value.item() == pytest.approx(logged[name][-1], abs=1e-4), name
        points.append(z0.item())
    assert min(points) == 0 and max(points) > 0.01


def test_orpo_agrees_with_trl(policy_and_reference: Any, tokenizer: Any, tmp_path: Any) -> None:
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    policy = deepcopy(policy_and_reference[0])
    trainer = ORPOTrainer(
        model=deepcopy(policy),
        args=ORPOConfig(beta=0.3, **arguments(tmp_path)),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    theirs, logged = trainer.get_batch_loss_metrics(trainer.model, collated(trainer))
    batch = preference.collate_pairs(ROWS, tokenizer)
    chosen = batch.input_ids[: len(ROWS)]
    real = batch.attention_mask[: len(ROWS)].bool()
    # TRL's likelihood term looks at the prompt as well, though its comment cites the paper.
    nll = logprobs.sft_loss(policy(input_ids=chosen).logits, chosen.masked_fill(~real, -100))
    ours, metrics = preference.orpo_loss(*sides(policy, tokenizer, mean=True), nll, 0.3)
    same_step(theirs, trainer.model, ours, policy)
    assert metrics["nll"].item() == pytest.approx(logged["nll_loss"], abs=1e-5)
    assert metrics["log_odds_ratio"].item() == pytest.approx(logged["log_odds_chosen"], abs=1e-5)
    for name in set(metrics) - {"nll", "log_odds_ratio"}:
        assert metrics[name].item() == pytest.approx(logged[name], abs=1e-5), name


def test_simpo_agrees_with_trl(policy_and_reference: Any, tokenizer: Any, tmp_path: Any) -> None:
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    policy = deepcopy(policy_and_reference[0])
    trainer = CPOTrainer(
        model=deepcopy(policy),
        args=CPOConfig(
            beta=2.0, loss_type="simpo", simpo_gamma=0.7, cpo_alpha=0.0, **arguments(tmp_path)
        ),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    theirs, logged = trainer.get_batch_loss_metrics(trainer.model, collated(trainer))
    ours, metrics = preference.simpo_loss(*sides(policy, tokenizer, mean=True), 2.0, 0.7)
    same_step(theirs, trainer.model, ours, policy)
    for name, value in metrics.items():
        assert value.item() == pytest.approx(logged[name], abs=1e-5), name


# --- The exercises' solutions are these losses ------------------------------------------------


def test_exercise_solutions_are_the_packages_losses() -> None:
    from course_utils.exercises import ch06, ch07

    pc, pr, rc, rr = drawn(6, seed=14)
    up, z0 = torch.tensor([True, False, True, True, False, True]), torch.tensor(0.2)
    nll = torch.tensor(0.9)
    for theirs, ours in (
        (ch06.dpo_loss(pc, pr, rc, rr, 0.3), preference.dpo_loss(pc, pr, rc, rr, 0.3)),
        (ch06.hinge_loss(pc, pr, rc, rr, 0.3), preference.dpo_loss(pc, pr, rc, rr, 0.3, "hinge")),
        (ch07.ipo_loss(pc, pr, rc, rr, 0.3), preference.ipo_loss(pc, pr, rc, rr, 0.3)),
        (
            ch07.kto_loss(pc, rc, up, z0, 0.3, 1.2, 0.8),
            preference.kto_loss(pc, rc, up, z0, 0.3, 1.2, 0.8),
        ),
        (ch07.orpo_loss(pc, pr, nll, 0.3), preference.orpo_loss(pc, pr, nll, 0.3)),
        (ch07.simpo_loss(pc, pr, 2.0, 0.5), preference.simpo_loss(pc, pr, 2.0, 0.5)),
    ):
        assert theirs.item() == pytest.approx(ours[0].item(), abs=1e-7)
    assert torch.equal(ch06.implicit_reward(pc, rc, 0.3), preference.implicit_reward(pc, rc, 0.3))
