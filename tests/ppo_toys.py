"""Small policies and rewards for PPO's tests: a random model, token rewards, short runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPTS = ("The bell", "Where", "A lantern is", "It lives in")
SETTINGS: dict[str, Any] = {
    "batch_size": 64,
    "mini_batch_size": 32,
    "ppo_epochs": 2,
    "max_new_tokens": 6,
    "init_kl_coef": 0.0,
    "adap_kl_ctrl": False,
    "learning_rate": 5e-3,
    "missing_eos_penalty": 0.0,
    "accelerator_kwargs": {"cpu": True},
}


def make_trainer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, **changes: Any
) -> PPOTrainer:
    """A trainer on the CPU with small settings."""
    policy = AutoModelForCausalLMWithValueHead.from_pretrained(model)
    return PPOTrainer(PPOConfig(**(SETTINGS | changes)), policy, None, tokenizer)


def run(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    reward: Callable[[Sequence[str], Sequence[str]], Sequence[float]],
    steps: int,
    **changes: Any,
) -> PPOTrainer:
    """A trainer after `steps` steps on `PROMPTS`."""
    trainer = make_trainer(model, tokenizer, **changes)
    trainer.train(PROMPTS, reward, steps)
    return trainer


def share_of(letter: str) -> Callable[[Sequence[str], Sequence[str]], list[float]]:
    """Reward: which share of the characters is `letter`."""

    def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [text.count(letter) / max(len(text), 1) for text in responses]

    return reward
