"""PPO in the pipeline: what is measured, and the record against a live slice of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ppo_toys import PROMPTS, make_trainer, share_of  # noqa: E402

from course_utils.ppo import overoptimization, pipeline  # noqa: E402


def test_mean_kl_against_each_row_alone(new_model: Callable[..., Any], tokenizer: Any) -> None:
    trainer = make_trainer(new_model(), tokenizer)
    reference = copy.deepcopy(trainer.policy.pretrained_model)
    trainer.train(PROMPTS, share_of("e"), 3)
    policy = trainer.policy.pretrained_model
    responses = [[40, 41, 42], [50], [60, 61], [70, 71, 72, 73]]
    want = 0.0
    for prompt, response in zip(PROMPTS, responses, strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"] + response])
        for model, sign in ((policy, 1), (reference, -1)):
            with torch.no_grad():
                rows = model(ids).logits.log_softmax(-1)[0, -len(response) - 1 : -1]
            want += sign * rows.gather(1, torch.tensor(response)[:, None]).sum().item() / 4
    assert abs(want) > 1e-3
    assert pipeline.mean_kl(trainer, PROMPTS, responses) == pytest.approx(want, abs=1e-4)


def test_a_value_head_may_learn_at_a_rate_of_its_own(
    new_model: Callable[..., Any], tokenizer: Any
) -> None:
    trainer = make_trainer(new_model(), tokenizer, value_learning_rate=0.5)
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == [5e-3, 0.5]
    head = trainer.policy.v_head.summary.weight
    assert any(p is head for p in trainer.optimizer.param_groups[1]["params"])


def test_the_rate_falls_over_a_run(
    course: Any, monkeypatch: Any, new_model: Any, tokenizer: Any
) -> None:
    from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig

    policy = AutoModelForCausalLMWithValueHead(new_model())
    monkeypatch.setattr(pipeline, "new_policy", lambda course: (policy, tokenizer))
    config = PPOConfig.of(course, batch_size=8, mini_batch_size=8, gradient_accumulation_steps=1)
    trainer = pipeline.make_trainer(course, config, 4)
    trainer.train(PROMPTS, share_of("e"), 4)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * config.learning_rate)


def test_a_saved_lora_policy_is_found_whole(
    course: Any, new_model: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    """The adapter was trained on top of the SFT model, not of the base."""
    from peft import get_peft_model

    from course_utils import models

    trainer = make_trainer(get_peft_model(new_model(), models.lora_config(2)), tokenizer)
    trainer.train(PROMPTS, share_of("e"), 2)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        wanted = trainer.policy.pretrained_model(ids).logits
        start = new_model()(ids).logits
    assert (wanted - start).abs().max() > 1e-3
    pipeline.save(trainer, tmp_path)
    again, _ = models.load(tmp_path, course)
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, wanted, atol=1e-4)


@pytest.mark.heavy
def test_the_record_of_overoptimization_against_a_live_slice(course: Any) -> None:
    from course_utils import sweeps

    header, record = sweeps.load_record("overoptimization")
    weakest = min(header["config"]["kl_coefs"])
    row = next(r for r in record if r["method"] == "ppo" and r["kl_coef"] == weakest)
    live = overoptimization.ppo_row(course, weakest, row["seed"], steps=overoptimization.EVERY)
    for here, there in zip(live["points"], row["points"], strict=False):
        # Another processor rounds differently, and then samples differ here and there.
        assert here["gold"] == pytest.approx(there["gold"], abs=0.4)
        assert here["proxy"] == pytest.approx(there["proxy"], abs=0.5)
        assert here["kl"] == pytest.approx(there["kl"], abs=1.5)


def test_the_record_shows_what_the_chapter_says() -> None:
    """PPO gains 1.0 of gold within 10 nats; with cheap KL gold falls while the proxy rises."""
    from course_utils import sweeps

    header, record = sweeps.load_record("overoptimization")
    ppo = [r for r in record if r["method"] == "ppo"]
    assert sorted((r["kl_coef"], r["seed"]) for r in ppo) == [
        (beta, seed) for beta in header["config"]["kl_coefs"] for seed in (0, 1, 2)
    ]
    assert {len(r["test"]) for r in record} == {300}
    assert all(r["points"][0]["kl"] == pytest.approx(0, abs=1e-3) for r in ppo)

    sft = {r["seed"]: r["test"] for r in record if r["method"] == "best_of_n"}
    default = [r for r in ppo if r["kl_coef"] == header["config"]["ppo"]["init_kl_coef"]]
    gains = [sum(r["test"]) / 300 - sum(sft[r["seed"]]) / 300 for r in default]
    assert sum(gains) / 3 >= 1.0
    assert all(r["points"][-1]["kl"] < 10 for r in default)
    for r in (r for r in ppo if r["kl_coef"] == min(header["config"]["kl_coefs"])):
        gold, proxy = ([point[key] for point in r["points"]] for key in ("gold", "proxy"))
        assert gold[-1] < max(gold) - 0.2
        assert proxy[-1] > proxy[gold.index(max(gold))]
