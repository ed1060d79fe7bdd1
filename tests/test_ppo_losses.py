"""PPO's formulas against numbers worked by hand, enumeration and float64 autograd."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from course_utils import logprobs  # noqa: E402
from course_utils.ppo import losses  # noqa: E402
from course_utils.ppo.kl_control import AdaptiveKLController, FixedKLController  # noqa: E402

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
EXACT_KL = 0.5 * math.log(2.5) + 0.3 * math.log(1.5) + 0.2 * math.log(1 / 3)


def test_kl_estimates_in_expectation() -> None:
    # Every symbol once, weighted by the policy's probability: the exact expectation.
    k1, k2, k3 = logprobs.kl_estimates(POLICY.log(), REFERENCE.log())
    assert (POLICY * k1).sum().item() == pytest.approx(EXACT_KL, abs=1e-12)
    assert (POLICY * k3).sum().item() == pytest.approx(EXACT_KL, abs=1e-12)
    assert (k3 >= 0).all() and (k1 < 0).any()
    squares = [math.log(2.5) ** 2, math.log(1.5) ** 2, math.log(3) ** 2]
    by_hand = sum(p * s / 2 for p, s in zip((0.5, 0.3, 0.2), squares, strict=True))
    assert (POLICY * k2).sum().item() == pytest.approx(by_hand, abs=1e-12)


def test_k2_has_the_gradient_of_the_kl() -> None:
    # At equal distributions KL and k2 agree to second order; compare near them.
    logits = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    reference = torch.zeros(3, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    exact = (policy.exp() * (policy - reference)).sum()
    _, k2, _ = logprobs.kl_estimates(policy, reference)
    assert (policy.exp() * k2).sum().item() == pytest.approx(exact.item(), rel=0.1)


def test_whiten_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0, 99.0], [5.0, 7.0, -99.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    # Mean 4, variance (9 + 1 + 1 + 9) / 4 = 5.
    got = logprobs.whiten(values, mask)
    want = [[-3 / 5**0.5, -1 / 5**0.5, 0], [1 / 5**0.5, 3 / 5**0.5, 0]]
    torch.testing.assert_close(got, torch.tensor(want), atol=1e-6, rtol=0)
    kept_mean = logprobs.whiten(values, mask, shift_mean=False)
    assert kept_mean[mask].mean().item() == pytest.approx(4.0, abs=1e-5)
    assert kept_mean[mask].var(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    assert not kept_mean[~mask].any()


def test_token_rewards_by_hand() -> None:
    kl = torch.tensor([[1.0, -2.0, 50.0], [0.5, 0.0, 4.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    got = losses.token_rewards(torch.tensor([3.0, -1.0]), kl, mask, 0.1)
    want = torch.tensor([[-0.1, 0.2 + 3.0, 0.0], [-0.05, 0.0, -0.4 - 1.0]])
    torch.testing.assert_close(got, want)


def test_gae_on_four_tokens_by_hand() -> None:
    # gamma 1/2, lambda 1/2; three tokens and one of padding whose value must not be seen.
    rewards = torch.tensor([[0.0, 1.0, 4.0, 0.0]])
    values = torch.tensor([[2.0, 1.0, 3.0, 77.0]])
    mask = torch.tensor([[True, True, True, False]])
    # deltas: 0 + .5*1 - 2 = -1.5; 1 + .5*3 - 1 = 1.5; 4 - 3 = 1
    # A3 = 1; A2 = 1.5 + .25*1 = 1.75; A1 = -1.5 + .25*1.75 = -1.0625
    advantages, returns = losses.gae(rewards, values, mask, 0.5, 0.5)
    assert advantages.tolist() == [[-1.0625, 1.75, 1.0, 0.0]]
    assert returns.tolist() == [[0.9375, 2.75, 4.0, 0.0]]


def test_gae_at_lambda_one_is_reward_to_go_minus_value() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    values = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [1], [4]])
    rewards = rewards * mask
    advantages, returns = losses.gae(rewards, values, mask, 1.0, 1.0)
    for row, length in enumerate((6, 1, 4)):
        for t in range(length):
            to_go = rewards[row, t:length].sum().item()
            assert returns[row, t].item() == pytest.approx(to_go, abs=1e-12)
            assert advantages[row, t].item() == pytest.approx(to_go - values[row, t].item())
    one_step, _ = losses.gae(rewards, values, mask, 1.0, 0.0)
    assert one_step[0, 0].item() == pytest.approx((rewards + values.roll(-1, 1) - values)[0, 0])


def test_policy_loss_by_hand() -> None:
    old = torch.zeros(1, 4)
    new = torch.tensor([[math.log(1.5), math.log(1.5), math.log(0.5), 9.0]])
    advantages = torch.tensor([[1.0, -1.0, -2.0, 5.0]])
    mask = torch.tensor([[True, True, True, False]])
    # Clip 0.2: max(-1.5, -1.2) = -1.2; max(1.5, 1.2) = 1.5; max(1.0, 1.6) = 1.6; mean 1.9/3.
    loss, metrics = losses.policy_loss(new, old, advantages, mask, 0.2)
    assert loss.item() == pytest.approx(1.9 / 3, abs=1e-6)
    assert metrics["clipfrac"].item() == pytest.approx(2 / 3)
    k3 = (0.5 - math.log(1.5)) * 2 + (-0.5 - math.log(0.5))
    assert metrics["approx_kl"].item() == pytest.approx(k3 / 3, abs=1e-6)


def test_policy_gradient_at_ratio_one_is_the_plain_one() -> None:
    # Before the first update the gradient is that of -A log p, token mean.
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    logits.requires_grad_()
    picked = logits.log_softmax(-1)[..., 0]
    advantages = torch.tensor([[1.0, -2.0, 0.5], [3.0, 1.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    loss, metrics = losses.policy_loss(picked, picked.detach(), advantages, mask)
    (got,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (want,) = torch.autograd.grad(-(advantages * picked)[mask].mean(), logits)
    torch.testing.assert_close(got, want)
    assert metrics["clipfrac"] == 0 and metrics["approx_kl"] == 0


def test_clipped_tokens_have_no_gradient() -> None:
    new = torch.tensor([[math.log(1.5), math.log(0.5)]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, _ = losses.policy_loss(new, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), mask)
    loss.backward()
    assert new.grad is not None and new.grad.abs().max() == 0


def test_losses_in_pieces_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(5)
    new, old, adv, ret = (torch.randn(4, 6, generator=generator) for _ in range(4))
    mask = torch.arange(6) < torch.tensor([[6], [2], [1], [5]])
    whole, metrics = losses.policy_loss(new, old, adv, mask)
    values = losses.value_loss(new, old, ret, mask)
    p = v = clip = 0.0
    for rows in (slice(0, 1), slice(1, 4)):
        args = (new[rows], old[rows])
        piece, m = losses.policy_loss(*args, adv[rows], mask[rows], tokens=mask.sum())
        p, clip = p + piece.item(), clip + m["clipfrac"].item()
        v += losses.value_loss(*args, ret[rows], mask[rows], tokens=mask.sum()).item()
    assert p == pytest.approx(whole.item(), abs=1e-5) and v == pytest.approx(
        values.item(), abs=1e-5
    )
    assert clip == pytest.approx(metrics["clipfrac"].item())


def test_value_loss_by_hand() -> None:
    # Clip 0.2 around 0: 1.0 becomes 0.2. Return 2: max(1, 3.24). Return 0: max(1, 0.04).
    values, old = torch.tensor([[1.0, 1.0, 8.0]]), torch.zeros(1, 3)
    mask = torch.tensor([[True, True, False]])
    loss = losses.value_loss(values, old, torch.tensor([[2.0, 0.0, 0.0]]), mask, 0.2)
    assert loss.item() == pytest.approx(0.5 * (3.24 + 1.0) / 2, abs=1e-6)


def test_adaptive_controller_by_hand() -> None:
    controller = AdaptiveKLController(0.2, target=6.0, horizon=1000)
    controller.update(6.6, 100)  # error 0.1: times 1 + 0.1 * 100 / 1000
    assert controller.value == pytest.approx(0.2 * 1.01)
    controller.update(60.0, 100)  # clipped at 0.2
    assert controller.value == pytest.approx(0.2 * 1.01 * 1.02)
    controller.update(-5.0, 100)
    assert controller.value == pytest.approx(0.2 * 1.01 * 1.02 * 0.98)


def test_fixed_controller_stays() -> None:
    controller = FixedKLController(0.3)
    controller.update(100.0, 1000)
    assert controller.value == 0.3
