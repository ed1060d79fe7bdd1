"""PPOTrainer: rollouts, masks, one update against torch written out, LoRA, legacy calls, errors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ppo_toys import PROMPTS, SETTINGS, make_trainer, share_of  # noqa: E402

from course_utils.errors import CourseError  # noqa: E402
from course_utils.ppo import (  # noqa: E402
    AutoModelForCausalLMWithValueHead,
    PPOConfig,
    PPOTrainer,
    losses,
)

NewModel = Callable[..., Any]


def queries_of(tokenizer: Any, count: int) -> list[Any]:
    rows = tokenizer(list(PROMPTS))["input_ids"]
    return [torch.tensor(rows[i % len(rows)]) for i in range(count)]


def row_logprobs(model: Any, query: Any, response: Any) -> Any:
    """Log-probs of one response, the row all by itself and unpadded."""
    ids = torch.cat([query, response])[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits.double()
    rows = logits.log_softmax(-1)[0, len(query) - 1 : -1]
    return rows.gather(1, response[:, None]).squeeze(1)


def weights(trainer: PPOTrainer) -> Any:
    return torch.cat([p.detach().flatten() for p in trainer.policy.parameters()]).clone()


# -- rollouts ---------------------------------------------------------------------------------


def test_kept_logprobs_and_values_are_those_of_each_row_alone(
    new_model: NewModel, tokenizer: Any
) -> None:
    model = new_model()
    trainer = make_trainer(model, tokenizer)
    torch.nn.init.normal_(trainer.policy.v_head.summary.weight)
    queries = queries_of(tokenizer, 16)
    for query, kept in zip(queries, trainer._collect(queries, None, 12), strict=True):
        alone = row_logprobs(model, query, kept.tokens)
        torch.testing.assert_close(kept.logprobs.double(), alone, atol=1e-4, rtol=0)
        with torch.no_grad():
            _, _, values = trainer.policy(torch.cat([query, kept.tokens])[None])
        want = values[0, len(query) - 1 : -1]
        torch.testing.assert_close(kept.values, want, atol=1e-4, rtol=0)


def test_rows_leave_after_their_eos_and_the_rest_goes_on(
    new_model: NewModel, tokenizer: Any
) -> None:
    model = new_model()
    with torch.no_grad():  # a tied embedding: push the EOS up so that many rows end early
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    trainer = make_trainer(model, tokenizer)
    kept = trainer._collect(queries_of(tokenizer, 48), None, 30)
    lengths = [len(k.tokens) for k in kept]
    eos = tokenizer.eos_token_id
    assert len(set(lengths)) > 5
    for k, length in zip(kept, lengths, strict=True):
        assert eos not in k.tokens[:-1].tolist()
        assert length == 30 or k.tokens[-1] == eos
        assert len(k.logprobs) == len(k.values) == length


def test_sampling_follows_the_models_own_distribution(new_model: NewModel, tokenizer: Any) -> None:
    trainer = make_trainer(new_model(), tokenizer)
    query = queries_of(tokenizer, 1)[0]
    with torch.no_grad():
        logits = trainer.policy.pretrained_model(query[None]).logits[0, -1]
    for temperature in (1.0, 2.0):
        trainer.temperature = temperature
        drawn = trainer._collect([query] * 4000, None, 1)
        counts = torch.bincount(torch.cat([k.tokens for k in drawn]), minlength=len(logits))
        want = (logits / temperature).softmax(-1)
        top = want.topk(5).indices
        error = 4 * (want[top] * (1 - want[top]) / 4000).sqrt()
        assert ((counts[top] / 4000 - want[top]).abs() < error).all()


def test_what_follows_the_eos_counts_nowhere(new_model: NewModel, tokenizer: Any) -> None:
    eos = tokenizer.eos_token_id
    queries = queries_of(tokenizer, 8)
    clean = [torch.tensor([40 + i, 50, eos]) for i in range(8)]
    dirty = [torch.cat([r, torch.tensor([60, eos, 61])]) for r in clean]
    stats, after = [], []
    for responses in (clean, dirty):
        trainer = make_trainer(new_model(), tokenizer, batch_size=8, mini_batch_size=4)
        stats.append(trainer.step(queries, responses, [float(i) for i in range(8)]))
        after.append(weights(trainer))
    assert stats[0] == stats[1]
    assert torch.equal(*after)
    assert stats[0]["response/length"] == 3 and stats[0]["response/eos_rate"] == 1


# -- one update -------------------------------------------------------------------------------


def test_one_step_is_the_update_written_out(new_model: NewModel, tokenizer: Any) -> None:
    """One epoch, one mini batch: float64 and one row at a time, no padding anywhere."""
    config = {
        "batch_size": 4,
        "mini_batch_size": 4,
        "ppo_epochs": 1,
        "init_kl_coef": 0.3,
        "missing_eos_penalty": 1.5,
        "max_grad_norm": None,
        "learning_rate": 1e-3,
        "vf_coef": 0.4,
    }
    reference = new_model(seed=1)
    policy = AutoModelForCausalLMWithValueHead(new_model())
    torch.nn.init.normal_(policy.v_head.summary.weight, std=0.1)
    twin = copy.deepcopy(policy).double()
    trainer = PPOTrainer(
        PPOConfig(**config, adap_kl_ctrl=False, accelerator_kwargs={"cpu": True}),
        policy,
        reference,
        tokenizer,
    )
    eos = tokenizer.eos_token_id
    queries = queries_of(tokenizer, 4)
    responses = [torch.tensor(r) for r in ([40, 41, eos], [50], [60, 61, 62, 63, eos], [70, 71])]
    scores = [1.0, -0.5, 2.0, 0.25]
    stats = trainer.step(queries, responses, scores)

    logprobs, values, advantages, returns = [], [], [], []
    kl = 0.0
    for query, response, score in zip(queries, responses, scores, strict=True):
        logits, _, value = twin(torch.cat([query, response])[None])
        rows = logits.log_softmax(-1)[0, len(query) - 1 : -1]
        lp = rows.gather(1, response[:, None]).squeeze(1)
        v = value[0, len(query) - 1 : -1].double()
        difference = lp.detach() - row_logprobs(reference, query, response)
        kl += difference.sum().item() / 4
        rewards = (-0.3 * difference).tolist()
        rewards[-1] += score - (0 if response[-1] == eos else 1.5)
        a, following = [], 0.0
        for t in reversed(range(len(response))):
            ahead = v[t + 1].item() if t + 1 < len(response) else 0.0
            following = rewards[t] + ahead - v[t].item() + 0.95 * following
            a.insert(0, following)
        logprobs.append(lp)
        values.append(v)
        advantages += a
        returns += [x + y.item() for x, y in zip(a, v, strict=True)]
    adv = torch.tensor(advantages, dtype=torch.float64)
    adv = (adv - adv.mean()) / (adv.var(correction=0) + 1e-8).sqrt()
    errors = torch.cat(values) - torch.tensor(returns, dtype=torch.float64)
    loss = -(adv * torch.cat(logprobs)).mean() + 0.4 * 0.5 * errors.square().mean()
    loss.backward()
    assert stats["objective/kl"] == pytest.approx(kl, abs=1e-4)
    assert stats["value/loss"] == pytest.approx(0.5 * errors.square().mean().item(), rel=1e-4)
    assert stats["policy/clipfrac"] == 0
    # Adam's first step is lr * g / (|g| + eps): compare with the gradient of the twin.
    for mine, other, start in zip(
        trainer.policy.parameters(),
        twin.parameters(),
        copy.deepcopy(twin).parameters(),
        strict=True,
    ):
        if other.grad is None:
            continue
        step = 1e-3 * other.grad / (other.grad.abs() + 1e-5)
        clear = other.grad.abs() > 1e-5  # below, float32 decides the sign
        torch.testing.assert_close(
            mine.detach().double()[clear], (start - step)[clear], atol=5e-5, rtol=0
        )


def test_ratio_is_one_before_the_first_update(new_model: NewModel, tokenizer: Any) -> None:
    trainer = make_trainer(new_model(), tokenizer)
    seen: list[float] = []
    check = trainer._check_ratio

    def spy(logprobs: Any, part: Any) -> None:
        ratio = (logprobs.detach() - part.logprobs)[part.response_mask].exp()
        seen.append((ratio - 1).abs().max().item())
        check(logprobs, part)

    trainer._check_ratio = spy  # type: ignore[method-assign]
    trainer.train(PROMPTS, share_of("e"), 3)
    assert len(seen) == 3 and max(seen) < 1e-4


def test_a_policy_changed_behind_the_trainers_back_is_noticed(
    new_model: NewModel, tokenizer: Any
) -> None:
    trainer = make_trainer(new_model(), tokenizer)
    queries = queries_of(tokenizer, 64)
    kept = trainer._collect(queries, None, 6)
    with torch.no_grad():
        trainer.policy.pretrained_model.model.layers[0].mlp.up_proj.weight.mul_(3)
    with pytest.raises(CourseError, match="ratio"):
        trainer.step(queries, [k.tokens for k in kept], [0.0] * 64)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_changes_nothing(new_model: NewModel, tokenizer: Any, accumulate: int) -> None:
    results = []
    for mini, steps in ((16, 1), (16 // accumulate, accumulate)):
        trainer = make_trainer(
            new_model(),
            tokenizer,
            batch_size=16,
            mini_batch_size=mini,
            gradient_accumulation_steps=steps,
        )
        trainer.train(PROMPTS, share_of("e"), 2)
        results.append((weights(trainer), trainer.history[-1]["policy/loss"]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=2e-5, rtol=0)
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-5)


def test_kept_logprobs_change_nothing(new_model: NewModel, tokenizer: Any) -> None:
    """`step` on tokens the trainer does not remember computes the same update again."""
    after = []
    for forget in (False, True):
        trainer = make_trainer(new_model(), tokenizer)
        queries = queries_of(tokenizer, 64)
        kept = trainer._collect(queries, None, 6)
        if forget:
            trainer._kept.clear()
        trainer.step(queries, [k.tokens for k in kept], [float(i % 3) for i in range(64)])
        after.append(weights(trainer))
    torch.testing.assert_close(*after, atol=2e-5, rtol=0)


def test_early_stopping_leaves_the_rest_of_the_epochs_out(
    new_model: NewModel, tokenizer: Any
) -> None:
    settings = {"ppo_epochs": 6, "learning_rate": 3e-2}
    free = make_trainer(new_model(), tokenizer, **settings)
    free.train(PROMPTS, share_of("e"), 1)
    held = make_trainer(new_model(), tokenizer, early_stopping=True, target_kl=0.01, **settings)
    held.train(PROMPTS, share_of("e"), 1)
    assert free.history[0]["policy/updates"] == 12
    assert held.history[0]["policy/updates"] == 2


def test_score_clip_bounds_what_is_learnt_from(new_model: NewModel, tokenizer: Any) -> None:
    trainer = make_trainer(new_model(), tokenizer, score_clip=1.0)
    trainer.train(PROMPTS, lambda p, r: [50.0, -50.0] * 32, 1)
    assert trainer.history[0]["scores/mean"] == 0 and trainer.history[0]["scores/std"] == 1
    assert trainer.history[0]["env/reward_mean"] == 0


@pytest.mark.parametrize("penalty", ["kl", "abs", "mse"])
def test_kl_penalties_by_hand(new_model: NewModel, tokenizer: Any, penalty: str) -> None:
    reference = new_model(seed=3)
    policy = AutoModelForCausalLMWithValueHead(new_model())
    config = PPOConfig(
        batch_size=2,
        mini_batch_size=2,
        kl_penalty=penalty,
        init_kl_coef=1.0,
        missing_eos_penalty=0.0,
        accelerator_kwargs={"cpu": True},
    )
    trainer = PPOTrainer(config, policy, reference, tokenizer)
    queries, responses = queries_of(tokenizer, 2), [torch.tensor([40, 41]), torch.tensor([42])]
    d = [
        row_logprobs(policy.pretrained_model, q, r) - row_logprobs(reference, q, r)
        for q, r in zip(queries, responses, strict=True)
    ]
    by_hand = {"kl": lambda x: x, "abs": abs, "mse": lambda x: x * x / 2}[penalty]
    want = 1.0 - sum(by_hand(x.item()) for row in d for x in row) / 2
    stats = trainer.step(queries, responses, [1.0, 1.0])
    assert stats["rewards/mean"] == pytest.approx(want, abs=1e-4)
    assert stats["objective/kl"] == pytest.approx(sum(x.sum().item() for x in d) / 2, abs=1e-4)


# -- LoRA -------------------------------------------------------------------------------------


def test_a_lora_policy_needs_no_second_model(new_model: NewModel, tokenizer: Any) -> None:
    from course_utils.models import lora_config

    base = new_model()
    before = copy.deepcopy(base)
    policy = AutoModelForCausalLMWithValueHead.from_pretrained(base, peft_config=lora_config(4))
    assert policy.is_peft_model
    config = PPOConfig(
        batch_size=16,
        mini_batch_size=8,
        learning_rate=2e-2,
        init_kl_coef=0.0,
        adap_kl_ctrl=False,
        max_new_tokens=6,
        accelerator_kwargs={"cpu": True},
    )
    trainer = PPOTrainer(config, policy, None, tokenizer)
    assert trainer.ref_model is None
    history = trainer.train(PROMPTS, share_of("e"), 12)
    assert history[0]["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert history[-1]["objective/kl"] > 0.1
    with policy.without_adapter() as reference, torch.no_grad():
        ids = queries_of(tokenizer, 1)[0][None]
        torch.testing.assert_close(reference(ids).logits, before(ids).logits)
        trained = [n for n, p in policy.named_parameters() if p.requires_grad]
    assert all("lora_" in n or n.startswith("v_head") for n in trained)


# -- the value head model ---------------------------------------------------------------------


def test_save_and_load_with_value_head(new_model: NewModel, tokenizer: Any, tmp_path: Any) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLMWithValueHead(new_model())
    torch.nn.init.normal_(model.v_head.summary.weight)
    model.save_pretrained(tmp_path)
    ids = queries_of(tokenizer, 1)[0][None]
    again = AutoModelForCausalLMWithValueHead.from_pretrained(tmp_path)
    for got, want in zip(again(ids), model(ids), strict=True):
        if want is not None:
            torch.testing.assert_close(got, want)
    # The folder is an ordinary model for everybody else.
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(plain(ids).logits, model(ids)[0])


def test_save_and_load_a_lora_policy(new_model: NewModel, tokenizer: Any, tmp_path: Any) -> None:
    from course_utils.models import lora_config

    base = new_model()
    base.save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLMWithValueHead.from_pretrained(
        tmp_path / "base", peft_config=lora_config(2)
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    model.save_pretrained(tmp_path / "adapter")
    again = AutoModelForCausalLMWithValueHead.from_pretrained(tmp_path / "adapter")
    ids = queries_of(tokenizer, 1)[0][None]
    torch.testing.assert_close(again(ids)[0], model(ids)[0])
    assert any("lora_" in n for n, p in again.named_parameters() if p.requires_grad)


def test_values_start_at_zero(new_model: NewModel, tokenizer: Any) -> None:
    _, _, values = AutoModelForCausalLMWithValueHead(new_model())(queries_of(tokenizer, 1)[0][None])
    assert not values.any()


def test_a_second_adapter_is_refused(new_model: NewModel) -> None:
    from peft import get_peft_model

    from course_utils.models import lora_config

    adapted = get_peft_model(new_model(), lora_config(2))
    with pytest.raises(CourseError, match="merge_and_unload"):
        AutoModelForCausalLMWithValueHead.from_pretrained(adapted, peft_config=lora_config(2))


# -- older material ---------------------------------------------------------------------------


def test_the_classic_loop_runs_after_one_changed_import(
    new_model: NewModel, tokenizer: Any, tmp_path: Any
) -> None:
    new_model().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="model_name"):
        config = PPOConfig(
            model_name="gpt2",
            learning_rate=1.41e-5,
            batch_size=4,
            mini_batch_size=2,
            accelerator_kwargs={"cpu": True},
        )
    model = AutoModelForCausalLMWithValueHead.from_pretrained(tmp_path)
    ref_model = AutoModelForCausalLMWithValueHead.from_pretrained(tmp_path)
    data = [{"input_ids": torch.tensor(tokenizer(p)["input_ids"]), "query": p} for p in PROMPTS] * 2
    trainer = PPOTrainer(
        config,
        model,
        ref_model,
        tokenizer,
        dataset=data,
        data_collator=lambda rows: {k: [r[k] for r in rows] for k in rows[0]},
    )
    kwargs = {
        "min_length": -1,
        "top_k": 0.0,
        "top_p": 1.0,
        "do_sample": True,
        "pad_token_id": tokenizer.eos_token_id,
        "max_new_tokens": 5,
    }
    for batch in trainer.dataloader:
        queries = batch["input_ids"]
        responses = [trainer.generate(query, **kwargs).squeeze()[len(query) :] for query in queries]
        batch["response"] = [tokenizer.decode(r) for r in responses]
        rewards = [torch.tensor(float(len(t))) for t in batch["response"]]
        stats = trainer.step(queries, responses, rewards)
        trainer.log_stats(stats, batch, rewards)
    assert len(trainer.history) == 2
    row = trainer.history[-1]
    assert row["sample/query"] in PROMPTS
    assert row["env/reward_mean"] == pytest.approx(row["scores/mean"])


def test_generate_returns_what_it_always_did(new_model: NewModel, tokenizer: Any) -> None:
    trainer = make_trainer(new_model(), tokenizer)
    queries = queries_of(tokenizer, 3)
    one = trainer.generate(queries[0], max_new_tokens=4)
    assert one.shape[0] == 1 and torch.equal(one[0, : len(queries[0])], queries[0])
    many = trainer.generate(queries, return_prompt=False, length_sampler=lambda: 2, batch_size=2)
    assert len(many) == 3 and all(1 <= len(r) <= 2 for r in many)
    with pytest.warns(UserWarning, match="top_p=0.9"):
        trainer.generate(queries[0], top_p=0.9)


def test_temperature_of_sampling_is_that_of_the_logprobs(
    new_model: NewModel, tokenizer: Any
) -> None:
    trainer = make_trainer(new_model(), tokenizer)
    queries = queries_of(tokenizer, 64)
    responses = trainer.generate(queries, return_prompt=False, temperature=2.0)
    batch = trainer._experience(queries, responses, torch.zeros(64))
    for i in (0, 17):
        ids = torch.cat([queries[i], responses[i]])[None]
        with torch.no_grad():
            rows = (trainer.policy.pretrained_model(ids).logits / 2).log_softmax(-1)
        want = rows[0, len(queries[i]) - 1 : -1].gather(1, responses[i][:, None])[:, 0]
        torch.testing.assert_close(batch.logprobs[i, : len(want)], want, atol=1e-4, rtol=0)


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"queries": 15}, "15 queries, 16 responses, 16 scores"),
        ({"responses": 3}, "3 responses"),
        ({"scores": 0}, "0 scores"),
        ({"empty": "responses"}, r"responses\[2\] is empty"),
        ({"empty": "queries"}, r"queries\[2\] is empty"),
        ({"score": float("nan")}, r"scores\[5\] is nan"),
        ({"score": float("inf")}, r"scores\[5\] is inf"),
        ({"score": torch.tensor([1.0, 2.0])}, "one number per response"),
        ({"matrix": True}, "1-D tensor"),
        ({"text": True}, "1-D tensor"),
    ],
)
def test_bad_batches_change_no_weight(
    new_model: NewModel, tokenizer: Any, change: dict[str, Any], says: str
) -> None:
    trainer = make_trainer(new_model(), tokenizer, batch_size=16, mini_batch_size=8)
    batch: dict[str, list[Any]] = {
        "queries": queries_of(tokenizer, 16),
        "responses": [torch.tensor([40, 41])] * 16,
        "scores": [1.0] * 16,
    }
    for name, value in change.items():
        if name in batch:
            batch[name] = batch[name][:value]
        elif name == "empty":
            batch[value][2] = torch.tensor([], dtype=torch.long)
        elif name == "score":
            batch["scores"][5] = value
        elif name == "matrix":
            batch["responses"][0] = torch.tensor([[1, 2]])
        else:
            batch["queries"][0] = "a text"
    before = weights(trainer)
    with pytest.raises(CourseError, match=says):
        trainer.step(batch["queries"], batch["responses"], batch["scores"])
    assert torch.equal(before, weights(trainer))


def test_the_same_bad_scores_through_train(new_model: NewModel, tokenizer: Any) -> None:
    trainer = make_trainer(new_model(), tokenizer)
    before = weights(trainer)
    with pytest.raises(CourseError, match="63 scores"):
        trainer.train(PROMPTS, lambda p, r: [0.0] * 63, 1)
    assert torch.equal(before, weights(trainer)) and trainer.history == []


def test_parts_that_do_not_fit(new_model: NewModel, tokenizer: Any) -> None:
    policy = AutoModelForCausalLMWithValueHead(new_model())
    config = PPOConfig(batch_size=4, mini_batch_size=2, accelerator_kwargs={"cpu": True})
    for name in ("pad", "eos"):
        bare = copy.deepcopy(tokenizer)
        setattr(bare, f"{name}_token", None)
        with pytest.raises(CourseError, match=f"no {name} token"):
            PPOTrainer(config, policy, None, bare)
    with pytest.raises(CourseError, match="value head"):
        PPOTrainer(config, new_model(), None, tokenizer)  # type: ignore[arg-type]
    with pytest.raises(CourseError, match="tokenizer"):
        PPOTrainer(config, policy, None, None)
    other = new_model()
    other.resize_token_embeddings(300)
    with pytest.raises(CourseError, match="320 tokens and the reference 300"):
        PPOTrainer(config, policy, other, tokenizer)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 10, "mini_batch_size": 4}, "not divisible"),
        (
            {"batch_size": 8, "mini_batch_size": 4, "gradient_accumulation_steps": 3},
            "not divisible",
        ),
        ({"mini_batch_size": 0}, "mini_batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"temperature": 0}, "temperature"),
        ({"gamma": 1.5}, "gamma"),
        ({"kl_penalty": "full"}, "abs"),
        ({"learning_rat": 1e-3}, "learning_rate"),
        ({"cliprange": float("nan")}, "cliprange"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(CourseError, match=says):
        PPOConfig(**settings)


def test_losses_are_exported() -> None:
    from course_utils import ppo

    assert ppo.gae is losses.gae and set(ppo.__all__) <= set(dir(ppo))


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """`accelerate` remembers the precision it was first given."""
    from accelerate.state import AcceleratorState, GradientState

    def forget() -> None:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()

    forget()
    yield
    forget()


def test_in_16_bits_values_and_log_probs_stay_in_float32(
    new_model: NewModel, tokenizer: Any, fresh_accelerate: None
) -> None:
    trainer = make_trainer(
        new_model(),
        tokenizer,
        batch_size=8,
        mini_batch_size=4,
        accelerator_kwargs={"cpu": True, "mixed_precision": "bf16"},
    )
    before = weights(trainer)
    kept = trainer._collect([torch.tensor([5, 6])] * 2, None, 3)
    assert {(k.logprobs.dtype, k.values.dtype) for k in kept} == {(torch.float32, torch.float32)}
    history = trainer.train(PROMPTS, share_of("e"), 2)
    assert all(math.isfinite(row["policy/loss"]) for row in history)
    assert not torch.equal(before, weights(trainer))


def test_a_schedule_takes_one_step_for_a_batch_whatever_the_processes(
    new_model: NewModel, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from course_utils.ppo.trainer import adam

    policy = AutoModelForCausalLMWithValueHead.from_pretrained(new_model())
    config = PPOConfig(**(SETTINGS | {"batch_size": 8, "mini_batch_size": 4}))
    optimizer = adam(policy, config)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=10)
    trainer = PPOTrainer(config, policy, None, tokenizer, optimizer=optimizer, lr_scheduler=decay)
    trainer.train(PROMPTS, share_of("e"), 1)
    four = SimpleNamespace(num_processes=4)
    monkeypatch.setattr("accelerate.scheduler.AcceleratorState", lambda: four)
    trainer.lr_scheduler.step()
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0.8 * config.learning_rate)
