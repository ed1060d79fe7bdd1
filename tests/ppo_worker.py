"""A PPO run in a process of its own, for the tests of resuming and of several processes.

ppo_worker.py train MODEL CHECKPOINT OUT STEPS   a run that can be killed and resumed
ppo_worker.py step MODEL OUT                     two updates from fixed responses
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from ppo_toys import PROMPTS, SETTINGS, share_of

from course_utils import processes
from course_utils.models import load_tokenizer
from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

GLOBAL_BATCH = 8


def trainer_for(folder: str, **changes: Any) -> PPOTrainer:
    config = PPOConfig(**(SETTINGS | changes))
    policy = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    return PPOTrainer(config, policy, None, load_tokenizer(folder))


def train(folder: str, checkpoint: str, out: str, steps: str) -> None:
    trainer = trainer_for(
        folder, batch_size=8, mini_batch_size=4, adap_kl_ctrl=True, init_kl_coef=0.1, target=0.5
    )
    history = trainer.train(
        PROMPTS, share_of("e"), int(steps), checkpoint=checkpoint, checkpoint_every=1
    )
    Path(out).write_text(json.dumps(history))


def step(folder: str, out: str) -> None:
    """Responses of unequal length, dealt to the processes in order."""
    size = GLOBAL_BATCH // processes.count()
    trainer = trainer_for(
        folder,
        batch_size=size,
        mini_batch_size=size // 2,
        gradient_accumulation_steps=2,
        init_kl_coef=0.2,
        whiten_rewards=True,
    )
    first = trainer.accelerator.process_index * size
    rows = trainer.tokenizer(list(PROMPTS))["input_ids"]
    stats = {}
    for _ in range(2):
        queries, responses, scores = [], [], []
        for i in range(first, first + size):
            queries.append(torch.tensor(rows[i % len(rows)]))
            responses.append(torch.arange(40 + i, 41 + 2 * i))
            scores.append(float(i % 3))
        stats = trainer.step(queries, responses, scores)
    if trainer.accelerator.is_main_process:
        weights = {n: p.detach().flatten().tolist() for n, p in trainer.policy.named_parameters()}
        record = {"processes": processes.count(), "stats": stats, "weights": weights}
        Path(out).write_text(json.dumps(record))
    processes.part()


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "step": step}[sys.argv[1]](*sys.argv[2:])
