"""Seconds per PPO step: the course's trainer, the one-at-a-time loop, and a bare torch loop.

    python benchmarks/ppo.py [--quick] [--out benchmarks/results/ppo.json]

Every way does the same work: prompts of 16 random tokens, responses of exactly 32, a random Llama
of about 5 million parameters with a value head on its trunk, a reference, a reward model of the
same size whose output is the score, 4 epochs of mini batches, float32.

ours           `generate` for all prompts, one reward pass, `step`; `step` takes the log-probs and
               values that sampling kept
one_at_a_time  the same trainer as the loop is commonly written: `generate` and the reward model
               for one query after the other, then `step`; sampling keeps its log-probs here too
classic        as one_at_a_time, but each query goes through the model's own `generate`, which keeps
               nothing, as in TRL's former trainer: `step` computes the log-probs again
floor          plain torch and `transformers`: batched `generate` with a KV cache, one policy and
               value pass, one reference and one reward pass, then per mini batch forward, PPO
               loss, backward, clipping and fused AdamW. No masks, no statistics, no checks.

The EOS has an id just outside the models' vocabulary, so it cannot be sampled and every response
is cut at 32 tokens; no row is padded, and nothing is gained by trimming. The floor computes the
logits of the prompt as well, which a plain forward does; ours leaves them out.

The ways take turns in each round, after one round that is not counted. A ratio is the median of
the rounds' ratios; CPU seconds are of the whole process, all threads added up.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import (
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerBase,
    )

    from course_utils.ppo import PPOTrainer

PROMPT, RESPONSE, VOCABULARY, EPOCHS = 16, 32, 2048, 4
PAD, EOS = 0, VOCABULARY
LEARNING_RATE, KL_COEF, LAMBDA, CLIP, VF_COEF, MAX_GRAD_NORM = 1e-5, 0.2, 0.95, 0.2, 0.1, 1.0
BATCHES = {16: (4, 5), 64: (16, 3)}  # batch: (mini batch, rounds)
MODEL = {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 688}
QUICK_MODEL = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
SAMPLING: dict[str, Any] = {
    "max_new_tokens": RESPONSE,
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "pad_token_id": PAD,
}


class Clock:
    """CPU and wall seconds of the phases of one PPO step."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[name] = time.process_time() - cpu
        self.wall[name] = time.perf_counter() - wall


Way = Callable[[list["torch.Tensor"]], Clock]


# The models


def make_models(
    size: dict[str, int],
) -> tuple[LlamaForCausalLM, LlamaForSequenceClassification]:
    """A random policy and a random reward model."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        LlamaConfig,
    )

    torch.manual_seed(0)
    config = LlamaConfig(
        **size,
        vocab_size=VOCABULARY,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
    )
    policy = AutoModelForCausalLM.from_config(config).eval()
    reward = AutoModelForSequenceClassification.from_config(config).eval()
    return policy, reward


def make_tokenizer() -> PreTrainedTokenizerBase:
    """One word per id. The EOS lies behind the models' vocabulary."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(1, VOCABULARY)} | {"<pad>": PAD, "<eos>": EOS}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="<eos>",
    )


def make_trainer(policy: LlamaForCausalLM, batch: int, mini_batch: int) -> PPOTrainer:
    """The course's trainer on a copy of `policy`."""
    from copy import deepcopy

    from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

    config = PPOConfig(
        learning_rate=LEARNING_RATE,
        batch_size=batch,
        mini_batch_size=mini_batch,
        ppo_epochs=EPOCHS,
        max_grad_norm=MAX_GRAD_NORM,
        init_kl_coef=KL_COEF,
        adap_kl_ctrl=False,
        lam=LAMBDA,
        cliprange=CLIP,
        cliprange_value=CLIP,
        vf_coef=VF_COEF,
        missing_eos_penalty=0.0,
        max_new_tokens=RESPONSE,
        accelerator_kwargs={"cpu": True},
    )
    model = AutoModelForCausalLMWithValueHead.from_pretrained(deepcopy(policy))
    return PPOTrainer(config, model, None, make_tokenizer())


# The ways


def batched(trainer: PPOTrainer, reward: LlamaForSequenceClassification) -> Way:
    """Ours: all queries at once."""
    import torch

    def step(queries: list[torch.Tensor]) -> Clock:
        clock = Clock()
        with clock.phase("generate"):
            responses = trainer.generate(queries, return_prompt=False)
        with clock.phase("reward"), torch.no_grad():
            texts = torch.cat([torch.stack(queries), torch.stack(responses)], 1)
            scores = reward(texts).logits[:, 0].tolist()
        with clock.phase("step"):
            trainer.step(queries, responses, scores)
        return clock

    return step


def one_at_a_time(
    trainer: PPOTrainer,
    reward: LlamaForSequenceClassification,
    generate: Callable[[torch.Tensor], torch.Tensor],
) -> Way:
    """One query after the other. `generate` takes a prompt (P,) and gives its response (R,)."""
    import torch

    def step(queries: list[torch.Tensor]) -> Clock:
        clock = Clock()
        with clock.phase("generate"):
            responses = [generate(query) for query in queries]
        with clock.phase("reward"), torch.no_grad():
            scores = []
            for query, response in zip(queries, responses, strict=True):
                text = torch.cat([query, response])[None]
                scores.append(reward(text).logits[0, 0].item())
        with clock.phase("step"):
            trainer.step(queries, responses, scores)
        return clock

    return step


def trainers_generate(trainer: PPOTrainer) -> Callable[[torch.Tensor], torch.Tensor]:
    """The trainer's `generate`, which keeps log-probs and values."""

    def generate(query: torch.Tensor) -> torch.Tensor:
        response: torch.Tensor = trainer.generate(query, return_prompt=False)[0]
        return response

    return generate


def models_generate(trainer: PPOTrainer) -> Callable[[torch.Tensor], torch.Tensor]:
    """The model's own `generate`, which keeps nothing."""
    import torch

    def generate(query: torch.Tensor) -> torch.Tensor:
        ids = query[None]
        output: torch.Tensor = trainer.policy.generate(
            ids, attention_mask=torch.ones_like(ids), eos_token_id=EOS, **SAMPLING
        )
        return output[0, PROMPT:]

    return generate


class Floor:
    """The bare compute of one PPO step, without masks: every response has the same length."""

    def __init__(
        self, policy: LlamaForCausalLM, reward: LlamaForSequenceClassification, mini_batch: int
    ) -> None:
        from copy import deepcopy

        import torch

        self.policy, self.reward, self.mini_batch = deepcopy(policy), reward, mini_batch
        self.reference = deepcopy(policy)
        self.head = torch.nn.Linear(policy.config.hidden_size, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.weights = [*self.policy.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=LEARNING_RATE, eps=1e-5, weight_decay=0.0, fused=True
        )

    def __call__(self, queries: list[torch.Tensor]) -> Clock:
        import torch

        clock = Clock()
        with clock.phase("generate"):
            ids = torch.stack(queries)
            texts = self.policy.generate(ids, attention_mask=torch.ones_like(ids), **SAMPLING)
        with clock.phase("reward"), torch.no_grad():
            scores = self.reward(texts).logits[:, 0]
        with clock.phase("step"):
            self.step(texts, scores)
        return clock

    def step(self, texts: torch.Tensor, scores: torch.Tensor) -> None:
        """Old and reference log-probs, advantages, then the epochs. texts (B, T), scores (B,)."""
        import torch

        with torch.no_grad():
            old_logprobs, old_values = self.outputs(texts)
            ref_logprobs = response_logprobs(self.reference(texts).logits, texts)
            rewards = -KL_COEF * (old_logprobs - ref_logprobs)
            rewards[:, -1] += scores
            advantages = advantages_of(rewards, old_values)
            returns = advantages + old_values
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(texts)).split(self.mini_batch):
                logprobs, values = self.outputs(texts[rows])
                ratio = (logprobs - old_logprobs[rows]).exp()
                gains = advantages[rows]
                policy_loss = torch.maximum(
                    -gains * ratio, -gains * ratio.clamp(1 - CLIP, 1 + CLIP)
                ).mean()
                near = old_values[rows] + (values - old_values[rows]).clamp(-CLIP, CLIP)
                errors = torch.maximum(
                    (values - returns[rows]).square(), (near - returns[rows]).square()
                )
                (policy_loss + VF_COEF * 0.5 * errors.mean()).backward()
                torch.nn.utils.clip_grad_norm_(self.weights, MAX_GRAD_NORM)
                self.optimiser.step()
                self.optimiser.zero_grad()

    def outputs(self, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logprobs, values), both (B, R), from one pass over texts (B, T)."""
        output = self.policy(texts, output_hidden_states=True)
        values = self.head(output.hidden_states[-1][:, PROMPT - 1 : -1]).squeeze(-1)
        return response_logprobs(output.logits, texts), values


def response_logprobs(logits: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Log-probs (B, R) of the response tokens. logits (B, T, V), texts (B, T)."""
    logprobs = logits[:, PROMPT - 1 : -1].log_softmax(-1)
    return logprobs.gather(-1, texts[:, PROMPT:, None]).squeeze(-1)


def advantages_of(rewards: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """GAE (B, R) with gamma 1."""
    import torch

    advantages = torch.zeros_like(values)
    following = following_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(RESPONSE)):
        following = rewards[:, t] + following_value - values[:, t] + LAMBDA * following
        following_value = values[:, t]
        advantages[:, t] = following
    return advantages


# Measuring


def make_ways(size: dict[str, int], batch: int, mini_batch: int) -> dict[str, Way]:
    """All ways from the same weights."""
    policy, reward = make_models(size)
    ours, single, classic = (make_trainer(policy, batch, mini_batch) for _ in range(3))
    ways: dict[str, Way] = {
        "ours": batched(ours, reward),
        "one_at_a_time": one_at_a_time(single, reward, trainers_generate(single)),
        "classic": one_at_a_time(classic, reward, models_generate(classic)),
        "floor": Floor(policy, reward, mini_batch),
    }
    return ways


def measure_batch(ways: dict[str, Way], batch: int, rounds: int) -> dict[str, Any]:
    """The figures of one batch size."""
    import torch

    generator = torch.Generator().manual_seed(0)
    clocks: dict[str, list[Clock]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        queries = list(torch.randint(1, VOCABULARY, (batch, PROMPT), generator=generator))
        for name, way in ways.items():
            clocks[name].append(way(queries))
    counted = {name: all_rounds[1:] for name, all_rounds in clocks.items()}  # the first warms up
    cpu = {name: [sum(c.cpu.values()) for c in kept] for name, kept in counted.items()}
    wall = {name: [sum(c.wall.values()) for c in kept] for name, kept in counted.items()}
    return {
        "ratios_cpu": _ratios(cpu),
        "ratios_wall": _ratios(wall),
        "samples_per_cpu_second": {
            name: round(batch / statistics.median(seconds), 2) for name, seconds in cpu.items()
        },
        "phases_cpu_seconds": {
            name: {p: round(statistics.median(c.cpu[p] for c in kept), 3) for p in kept[0].cpu}
            for name, kept in counted.items()
        },
        "cpu_seconds": {name: [round(s, 3) for s in seconds] for name, seconds in cpu.items()},
        "wall_seconds": {name: [round(s, 3) for s in seconds] for name, seconds in wall.items()},
        "rounds": rounds,
    }


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians over the rounds."""

    def ratio(over: str, under: str) -> float:
        pairs = zip(seconds[over], seconds[under], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    return {
        "one_at_a_time/ours": ratio("one_at_a_time", "ours"),
        "classic/ours": ratio("classic", "ours"),
        "ours/floor": ratio("ours", "floor"),
    }


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures and what they were measured with."""
    import torch

    from course_utils import setup

    course = setup("benchmark", profile="tiny")
    size = QUICK_MODEL if quick else MODEL
    results = {}
    for batch, (mini_batch, rounds) in BATCHES.items():
        ways = make_ways(size, batch, mini_batch)
        results[str(batch)] = {
            "mini_batch": mini_batch,
            **measure_batch(ways, batch, 1 if quick else rounds),
        }
    return {
        "batch": results,
        "parameters": make_models(size)[0].num_parameters(),
        "prompt_tokens": PROMPT,
        "response_tokens": RESPONSE,
        "epochs": EPOCHS,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": course.versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="PPO: ours, one query at a time, bare torch.")
    results = Path(__file__).parent / "results" / "ppo.json"
    parser.add_argument("--out", type=Path, help="default results/ppo.json; no file with --quick")
    parser.add_argument("--quick", action="store_true", help="one round with a toy model")
    args = parser.parse_args()
    result = measure(args.quick)
    out = args.out or (None if args.quick else results)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    for batch, found in result["batch"].items():
        speeds = found["samples_per_cpu_second"].items()
        print(
            f"batch {batch}: "
            + " · ".join(f"{name} {value}" for name, value in found["ratios_cpu"].items())
            + "; samples per CPU-second: "
            + ", ".join(f"{name} {speed}" for name, speed in speeds)
        )


if __name__ == "__main__":
    main()
