"""Reinforcement learning with rewards that a program checks: RLOO, GRPO, and PPO beside them.

verify.py      the reward: a program reads an answer and says right or wrong
advantages.py  the formulas: leave-one-out and group-relative advantages
training.py    training through TRL's RLOOTrainer and GRPOTrainer, and through the course's PPO
pipeline.py    the record of chapter 13
"""

from __future__ import annotations

from course_utils.rl.advantages import flat_groups, grpo_advantages, rloo_advantages
from course_utils.rl.training import GROUPED, METHODS, RLSettings, make_trainer, train
from course_utils.rl.verify import CUT_PENALTY, Checker, is_right, training_cases, verify

__all__ = [
    "CUT_PENALTY",
    "GROUPED",
    "METHODS",
    "Checker",
    "RLSettings",
    "flat_groups",
    "grpo_advantages",
    "is_right",
    "make_trainer",
    "rloo_advantages",
    "train",
    "training_cases",
    "verify",
]
