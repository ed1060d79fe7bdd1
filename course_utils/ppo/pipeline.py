"""PPO in the course's pipeline: from the SFT run, rewarded by the reward run, measured by gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import data, models, reward, room, runs
from ..evaluation import Evaluation, evaluate
from ..world.cases import Case
from .config import PPOConfig
from .rollout import new_experience, reference_logprobs, trim
from .trainer import PPOTrainer, adam
from .value_head import AutoModelForCausalLMWithValueHead

if TYPE_CHECKING:
    from .._setup import Course


def new_policy(course: Course) -> tuple[AutoModelForCausalLMWithValueHead, Any]:
    """(policy with value head, tokenizer), starting at the SFT run.

    An SFT adapter is merged into its base first: the reference of a LoRA policy is the model
    without *its* adapter, and that has to be the SFT model.
    """
    model, tokenizer = models.load_merged(runs.ensure("sft", course, course.seed), course)
    adapter = models.lora_config(course.profile.lora_rank)
    lora = adapter if course.profile.adapter == "lora" else None
    return AutoModelForCausalLMWithValueHead.from_pretrained(model, peft_config=lora), tokenizer


def make_trainer(course: Course, config: PPOConfig, steps: int) -> PPOTrainer:
    """A `PPOTrainer` whose learning rate falls linearly to almost nothing over `steps`.

    Late in a run the policy is nearly as good as it gets, and what remains of each update is
    mostly noise: a small rate stops it from adding up to KL.
    """
    room.free()  # what the stage before left
    policy, tokenizer = new_policy(course)
    if course.profile.gradient_checkpointing:
        policy.gradient_checkpointing_enable()
    optimizer = adam(policy, config)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    return PPOTrainer(config, policy, None, tokenizer, optimizer=optimizer, lr_scheduler=decay)


def save(trainer: PPOTrainer, folder: Path) -> None:
    """Write the trained policy so that `models.load` finds all of it.

    A LoRA policy is merged: its adapter belongs onto the SFT model, and loading a folder with an
    adapter would put it onto the base model.
    """
    policy = trainer.policy
    policy.pretrained_model = models.merged(policy.pretrained_model)
    trainer.save_pretrained(folder)


def scorer(course: Course) -> reward.Scorer:
    """The reward model of chapter 04, centred."""
    return reward.load_scorer(runs.ensure("reward", course, course.seed), course)


def train_prompts(course: Course) -> list[str]:
    """The prompts PPO samples from; no answer to them is known."""
    return [data.prompt_of(case) for case in data.practice_prompts(course)]


@dataclass(frozen=True)
class Measured:
    """A policy on a set of prompts.

    Attributes:
        evaluation: responses and their gold.
        proxy: mean score of the reward model.
        kl: nats per response from the reference, estimated from the responses (k1).
    """

    evaluation: Evaluation
    proxy: float
    kl: float

    @property
    def gold(self) -> float:
        return self.evaluation.mean


def measure(
    course: Course,
    trainer: PPOTrainer,
    rewards: reward.Scorer,
    cases: Sequence[Case],
    seed: int = 0,
) -> Measured:
    """Sample one response per case from the policy as it is now, and score it three ways."""
    policy = trainer.policy.pretrained_model
    result = evaluate(course, policy, trainer.tokenizer, cases, temperature=1.0, seed=seed)
    prompts = [data.prompt_of(case) for case in cases]
    scores = rewards(prompts, [r.text for r in result.responses])
    return Measured(
        result,
        sum(scores) / len(scores),
        mean_kl(trainer, prompts, [r.tokens for r in result.responses]),
    )


@torch.no_grad()
def mean_kl(
    trainer: PPOTrainer, prompts: Sequence[str], responses: Sequence[Sequence[int]]
) -> float:
    """Mean over responses of log policy - log reference, in nats per response."""
    queries = [torch.tensor(ids) for ids in trainer.tokenizer(list(prompts))["input_ids"]]
    answers = [torch.tensor(ids) for ids in responses]
    unscored = torch.zeros(len(answers))
    batch = new_experience(queries, answers, unscored, trainer.tokenizer, trainer.device)
    total = 0.0
    for rows in batch.attention_mask.sum(1).argsort().split(64):
        part = trim(batch, rows)
        logprobs = reference_logprobs(trainer.policy.pretrained_model, part, 1.0)
        k1 = logprobs - trainer.reference_logprobs(part)
        total += float((k1 * part.response_mask).sum())
    return total / len(queries)
