"""Probe tasks: each isolates one thing PPO must be able to do, and is learnt in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ppo_toys import PROMPTS, run, share_of  # noqa: E402


def mean(trainer: Any, key: str, rows: slice) -> float:
    values = [row[key] for row in trainer.history[rows]]
    return sum(values) / len(values)


START, END = slice(0, 3), slice(-5, None)


@pytest.mark.slow
def test_constant_reward_teaches_the_value_and_nothing_else(
    new_model: Callable[..., Any], tokenizer: Any
) -> None:
    trainer = run(
        new_model(),
        tokenizer,
        lambda p, r: [1.0] * len(r),
        40,
        learning_rate=2e-3,
        lam=1.0,
        vf_coef=1.0,
    )
    # The advantage of every token is the same once V = 1, so only noise moves the policy.
    queries = [torch.tensor(ids) for ids in tokenizer(list(PROMPTS))["input_ids"]]
    values = torch.cat([k.values for k in trainer._collect(queries, None, 6)])
    assert values.mean().item() == pytest.approx(1.0, abs=0.15)
    assert trainer.history[-1]["value/loss"] < 0.1 * trainer.history[0]["value/loss"]


@pytest.mark.slow
def test_reward_for_one_token(new_model: Callable[..., Any], tokenizer: Any) -> None:
    trainer = run(new_model(), tokenizer, share_of("e"), 40)
    assert mean(trainer, "scores/mean", START) < 0.15
    assert mean(trainer, "scores/mean", END) > 0.5
    assert mean(trainer, "objective/kl", END) > 1


@pytest.mark.slow
def test_reward_for_stopping_early(new_model: Callable[..., Any], tokenizer: Any) -> None:
    trainer = run(
        new_model(),
        tokenizer,
        lambda p, r: [-float(len(tokenizer(t)["input_ids"])) for t in r],
        50,
        missing_eos_penalty=5.0,
    )
    assert mean(trainer, "response/eos_rate", START) < 0.3
    assert mean(trainer, "response/eos_rate", END) > 0.9
    assert mean(trainer, "response/length", END) < 2.5


@pytest.mark.slow
def test_reward_that_depends_on_the_prompt(new_model: Callable[..., Any], tokenizer: Any) -> None:
    wanted = dict(zip(PROMPTS, "etet", strict=True))

    def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [share_of(wanted[p])([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]

    trainer = run(new_model(), tokenizer, reward, 80, learning_rate=1e-2)
    # One letter for all prompts would earn at most a half.
    assert mean(trainer, "scores/mean", END) > 0.6


@pytest.mark.slow
def test_a_high_price_of_kl_keeps_the_policy_where_it_is(
    new_model: Callable[..., Any], tokenizer: Any
) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 3, "learning_rate": 1e-3}
    free = run(new_model(), tokenizer, share_of("e"), 60, **settings)
    held = run(new_model(), tokenizer, share_of("e"), 60, init_kl_coef=100.0, **settings)
    assert mean(free, "objective/kl", END) > 1.0
    assert abs(mean(held, "objective/kl", END)) < 0.3


@pytest.mark.slow
def test_adaptive_control_reaches_its_target(new_model: Callable[..., Any], tokenizer: Any) -> None:
    trainer = run(
        new_model(),
        tokenizer,
        share_of("e"),
        80,
        init_kl_coef=0.01,
        adap_kl_ctrl=True,
        target=1.0,
        horizon=64,
    )
    assert mean(trainer, "objective/kl", slice(-20, None)) == pytest.approx(1.0, abs=0.5)


@pytest.mark.slow
def test_no_number_is_ever_non_finite(new_model: Callable[..., Any], tokenizer: Any) -> None:
    for seed in range(20):
        trainer = run(new_model(seed), tokenizer, share_of("a"), 4, seed=seed, learning_rate=2e-2)
        for row in trainer.history:
            assert all(math.isfinite(v) for v in row.values() if isinstance(v, (int, float))), row
        assert all(p.isfinite().all() for p in trainer.policy.parameters())
