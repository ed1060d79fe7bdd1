"""Peak memory of each stage on this processor, beside what `course_utils.memory` estimates.

    python benchmarks/memory.py [--stage NAME] [--out benchmarks/results/memory.json]

Each case runs in a fresh process: a small training first, so that libraries and kernels are loaded,
then free memory goes back to the system, and from there the peak of the process is measured
(VmHWM, which Linux sets back on request) while the model is loaded and trained for two steps on
sequences that fill max_length. Adam's averages exist from the first step on, so the second is the
peak. Only Linux tells all of this.

tiny           the profile as it is: 1.6M parameters, float32, every weight trained
wide           a random Llama of 27M parameters, every weight trained: weights count for more
lora           the same with LoRA and recomputed activations
laptop         the profile as it is: SmolLM2-135M with LoRA, bfloat16 where the processor has it
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course_utils._setup import Course
    from course_utils.profiles import Profile

STEPS = 2
CASES = ("tiny", "wide", "lora", "laptop")
# The allocator hands memory back at once: the process then holds what it uses.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def profile_of(case: str, base: str) -> Profile:
    """The settings of a case; `base` is the folder of the random model."""
    from course_utils.profiles import PROFILES, TINY

    if case in PROFILES:
        return PROFILES[case]
    wide = replace(
        TINY,
        base_model=base,
        batch_size=8,
        dpo_batch_size=4,
        ppo_batch_size=16,
        ppo_mini_batch_size=8,
    )
    if case == "wide":
        return wide
    return replace(wide, adapter="lora", lora_rank=8, gradient_checkpointing=True)


def save_random_model(folder: Path) -> None:
    """A Llama of 27 million parameters with the tiny model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from course_utils.models import TINY_BASE, load_tokenizer
    from course_utils.paths import data_dir

    tokenizer = load_tokenizer(data_dir() / TINY_BASE)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def text(tokenizer: Any, tokens: int) -> str:
    """A text of so many tokens."""
    ids = tokenizer("The bell heron lives in the reeds of the Upper Mere. " * tokens)["input_ids"]
    return str(tokenizer.decode(ids[:tokens], skip_special_tokens=True))


def train(course: Course, stage: str, rows: int, length: int) -> None:
    """Train `stage` on `rows` examples of `length` tokens, from the base model."""
    from datasets import Dataset

    from course_utils import models, preference, reward, sft

    path = models.base_path(course)
    tokenizer = models.load_tokenizer(path)
    half = length // 2
    prompt, chosen, rejected = (text(tokenizer, n) for n in (half, length, length - 1))
    if stage == "sft":
        row = {"instruction": prompt, "context": "", "response": chosen}
        data = Dataset.from_list([row] * rows)
        sft.train(
            course, models.load_model(path, course), tokenizer, data, _settings(course, stage)
        )
    elif stage == "reward":
        answer = text(tokenizer, length - half - 2)
        row = {"prompt": prompt, "chosen": answer, "rejected": answer[:-3]}
        model, tokenizer = reward.new_reward_model(path, course)
        data = Dataset.from_list([row] * rows)
        reward.train(course, model, tokenizer, data, _settings(course, stage))
    elif stage == "dpo":
        data = [{"prompt": prompt, "chosen": chosen, "rejected": rejected}] * rows
        model = models.load_model(path, course)
        preference.train_dpo(course, model, tokenizer, data, _settings(course, stage))
    else:
        _train_ppo(course, path, tokenizer, rows, length)


def _settings(course: Course, stage: str) -> Any:
    from course_utils.preference import PreferenceSettings
    from course_utils.reward import RewardSettings
    from course_utils.sft import SFTSettings

    kind: Any = {"sft": SFTSettings, "reward": RewardSettings, "dpo": PreferenceSettings}[stage]
    return replace(kind.of(course), epochs=1)


def _train_ppo(course: Course, path: str, tokenizer: Any, rows: int, length: int) -> None:
    """Responses always fill their budget: the EOS, which nothing asks for, hardly ever comes."""
    from course_utils import models, reward
    from course_utils.ppo import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

    p = course.profile
    new = min(p.max_new_tokens, length // 2)
    config = PPOConfig.of(
        course,
        batch_size=rows,
        mini_batch_size=min(rows, p.ppo_mini_batch_size),
        gradient_accumulation_steps=1,
        max_new_tokens=new,
        ppo_epochs=1,
    )
    lora = models.lora_config(p.lora_rank) if p.adapter == "lora" else None
    policy = AutoModelForCausalLMWithValueHead.from_pretrained(
        models.load_model(path, course), peft_config=lora
    )
    scorer = reward.reward_fn(*reward.new_reward_model(path, course))
    if p.gradient_checkpointing:  # as `ppo.pipeline.make_trainer` does
        policy.gradient_checkpointing_enable()
    trainer = PPOTrainer(config, policy, None, tokenizer)
    trainer.train([text(tokenizer, length - new)] * rows, scorer, STEPS)


def free_memory() -> None:
    """Give back what the allocator keeps, and begin to measure the peak from here."""
    import gc

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measure(case: str, stage: str, base: str) -> dict[str, Any]:
    """One case, in this process."""
    from course_utils import memory
    from course_utils._setup import Course, choose_dtype, set_threads
    from course_utils.costs import peak_mb
    from course_utils.models import base_path

    profile = profile_of(case, base)
    dtype = choose_dtype(profile, "cpu")
    course = Course("benchmark", profile, dtype=dtype)
    set_threads(profile)
    small = replace(
        profile, batch_size=2, dpo_batch_size=2, ppo_batch_size=2, ppo_mini_batch_size=2
    )
    train(replace(course, profile=small), stage, 2, 16)
    free_memory()
    before = peak_mb()
    per_step = {"sft": profile.batch_size, "reward": profile.batch_size}
    rows = per_step.get(stage, profile.dpo_batch_size or profile.batch_size) * STEPS
    train(course, stage, profile.ppo_batch_size if stage == "ppo" else rows, profile.max_length)
    measured = peak_mb() - before
    shape = memory.read_shape(base_path(course))
    estimate = memory.estimate(shape, profile, stage, dtype, "cpu")
    parts = {k: round(v / 2**20, 1) for k, v in asdict(estimate).items() if k != "stage"}
    return {
        "case": case,
        "stage": stage,
        "dtype": dtype,
        "parameters": shape.parameters,
        "measured_mb": round(measured, 1),
        "estimated_mb": round(estimate.total / 2**20, 1),
        "measured/estimated": round(measured / (estimate.total / 2**20), 3),
        "parts_mb": parts,
        "libraries_mb": round(before, 1),
    }


def main() -> None:
    from course_utils._setup import versions
    from course_utils.memory import STAGES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ.update(ALLOCATOR)
    os.environ["HF_HUB_OFFLINE"] = "1"
    rows = []
    with TemporaryDirectory() as folder:
        save_random_model(Path(folder))
        for case in [args.case] if args.case else CASES:
            for stage in [args.stage] if args.stage else STAGES:
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    rows.append(pool.submit(measure, case, stage, folder).result())
                print(json.dumps(rows[-1]))
    if args.out:
        record = {"versions": versions(), "steps": STEPS, "runs": rows}
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
