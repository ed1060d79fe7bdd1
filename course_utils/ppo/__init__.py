"""PPO for language models: the classic loop, alive on today's libraries.

config.py      PPOConfig: every setting and what it means
losses.py      the formulas: token rewards, GAE, clipped policy and value losses
kl_control.py  fixed and adaptive KL coefficients
value_head.py  AutoModelForCausalLMWithValueHead
rollout.py     sampling, log-probs and values of a batch
trainer.py     PPOTrainer: generate, step, log_stats, train
"""

from .config import PPOConfig
from .kl_control import AdaptiveKLController, FixedKLController
from .losses import gae, policy_loss, token_rewards, value_loss
from .trainer import PPOTrainer
from .value_head import AutoModelForCausalLMWithValueHead

__all__ = [
    "AdaptiveKLController",
    "AutoModelForCausalLMWithValueHead",
    "FixedKLController",
    "PPOConfig",
    "PPOTrainer",
    "gae",
    "policy_loss",
    "token_rewards",
    "value_loss",
]
