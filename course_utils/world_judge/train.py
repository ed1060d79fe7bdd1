"""Train the world judge: the SFT model of the tiny profile, fine-tuned on its tasks at once.

Deliberate simplifications:

1. every step draws fresh examples; there are no epochs and no example is kept for later;
2. logits are computed where the model writes only, which saves a fifth of the time;
3. a step's examples are cut into parts of like length instead of being packed.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.models import count_parameters
from course_utils.paths import data_dir

from .examples import NOTED, Example, ExampleMaker, Pool
from .faults import GRADE_LIMITS
from .template import Template

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils.world.facts import World

FOLDER = "tiny_judge"  # under data/
LOG = "training_log.json"
LOG_EVERY = 20
COUNTS = {"scores": 24, "critique": 22, "revision": 12, "text": 2}
# What a reply's tokens count in the loss.
WEIGHTS = {"scores": 2.0, "critique": 2.0, "revision": 1.0, "text": 1.0}
NOTE = 1.0  # what the notes count, beside the replies
GRADES = len(GRADE_LIMITS) + 1


@dataclass(frozen=True)
class JudgeConfig:
    """The recipe of the shipped world judge.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak, after `warmup` steps; cosine decay to zero.
        counts: examples of each task in a step.
        parts: a step's examples are cut into so many parts of like length.
    """

    seed: int = 14
    steps: int = 4500
    warmup: int = 40
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))
    parts: int = 8


def shipped() -> Path:
    """The folder of the shipped world judge."""
    return data_dir() / FOLDER


def learning_rate(config: JudgeConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass
class Losses:
    """Losses of some examples: sums to go backwards from, and values to report.

    Attributes:
        replies: sum over the tokens that the model is to write, weighted.
        weight: sum of those weights.
        notes: sum over the notes, fault and grade together.
        count: how many notes.
        by_task: task -> the unweighted loss of every token.
    """

    replies: Any
    weight: float
    notes: Any
    count: int
    by_task: dict[str, list[float]]


def losses(model: PreTrainedModel, head: torch.nn.Module, part: Sequence[Example]) -> Losses:
    """What the model and the notes' head get wrong of `part`.

    Padding stands on the right, where a causal model cannot see it; no mask is needed.
    """
    import torch
    from torch.nn.functional import cross_entropy

    rows = [[*e.prompt, *e.reply] for e in part]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    writes = torch.zeros(ids.shape, dtype=torch.bool)
    for i, (row, example) in enumerate(zip(rows, part, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        writes[i, len(example.prompt) - 1 : len(row) - 1] = True
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(hidden[writes])
    targets = torch.cat([torch.tensor(e.reply) for e in part])
    values = cross_entropy(logits, targets, reduction="none")
    weights = torch.cat([_weights(e) for e in part])
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for example, own in zip(part, values.detach().split([len(e.reply) for e in part]), strict=True):
        by_task[example.task] += own.tolist()
    notes = [(i, *e.note) for i, e in enumerate(part) if e.note]
    note_loss = torch.zeros(())
    if notes:
        i, end, fault, grade = torch.tensor(notes).T
        guesses = head(hidden[i, end])
        note_loss = cross_entropy(guesses[:, GRADES:], fault, reduction="sum")
        note_loss = note_loss + cross_entropy(guesses[:, :GRADES], grade, reduction="sum")
    return Losses((values * weights).sum(), float(weights.sum()), note_loss, len(notes), by_task)


def _weights(example: Example) -> torch.Tensor:
    """What each token of the reply counts."""
    import torch

    return torch.full((len(example.reply),), WEIGHTS[example.task])


def step_loss(
    model: PreTrainedModel, head: torch.nn.Module, batch: Sequence[Example], parts: int
) -> dict[str, float]:
    """Accumulate the gradient of the step's loss; the mean loss per token by task, and of notes."""
    ordered = sorted(batch, key=lambda e: len(e.prompt) + len(e.reply))
    size = -(-len(ordered) // parts)
    weight = sum(float(_weights(e).sum()) for e in batch)
    notes = max(1, sum(e.note is not None for e in batch))
    sums: defaultdict[str, list[float]] = defaultdict(list)
    note_sum = 0.0
    for start in range(0, len(ordered), size):
        found = losses(model, head, ordered[start : start + size])
        (found.replies / weight + NOTE * found.notes / notes).backward()
        note_sum += float(found.notes.detach())
        for task, values in found.by_task.items():
            sums[task] += values
    means = {task: sum(values) / len(values) for task, values in sorted(sums.items())}
    return {**means, "notes": note_sum / notes}


def train(
    config: JudgeConfig,
    pool: Pool,
    world: World,
    base: Path,
    *,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[dict[str, Any]]]:
    """(model, tokenizer, log). The same configuration and pool give the same model.

    Args:
        base: folder of the model to begin with: the SFT stage's, for the shipped judge.
        checkpoint: a folder where the weights are kept every 100 steps, in case of an accident.
    """
    import torch
    from tqdm.auto import tqdm
    from transformers import AutoModelForCausalLM

    from course_utils.models import load_tokenizer

    torch.manual_seed(config.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    tokenizer = load_tokenizer(base)
    maker = ExampleMaker(pool, world, Template(tokenizer), random.Random(f"{config.seed}-examples"))
    # A linear reading of each answer's fault and grade at its end, thrown away after training: it
    # has the model gather there what the grade and the critique then need.
    head = torch.nn.Linear(model.config.hidden_size, GRADES + len(NOTED))
    weights = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(
        weights, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    log: list[dict[str, Any]] = []
    began = time.time()
    for step in tqdm(range(config.steps), desc="world judge", disable=not progress, mininterval=5):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step)
        found = step_loss(model, head, maker.batch(config.counts), config.parts)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % LOG_EVERY == 0 or step == config.steps - 1:
            rounded = {task: round(value, 4) for task, value in found.items()}
            log.append({"step": step, **rounded, "seconds": round(time.time() - began, 1)})
        if checkpoint is not None and step % 100 == 99:
            model.save_pretrained(checkpoint)
            (checkpoint / LOG).write_text(json.dumps(log) + "\n")
    return model.eval(), tokenizer, log


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    record: dict[str, Any],
    out: Path,
) -> None:
    """Write the model in float16 with tokenizer and log; `out` is replaced when all is there."""
    import torch

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent))
    try:
        model.generation_config.update(do_sample=False, temperature=None, top_k=None, top_p=None)
        model.to(torch.float16).save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        (scratch / LOG).write_text(json.dumps(record, indent=1) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        os.replace(scratch, out)
    except BaseException:  # Ctrl-C included: nothing half-written beside the shipped model
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    out.chmod(0o755)


def load_weights(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in float32, evaluation mode, and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from course_utils.models import load_tokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), load_tokenizer(folder)


def record_of(
    config: JudgeConfig, model: PreTrainedModel, log: list[dict[str, Any]], samples: str
) -> dict[str, Any]:
    """What the training log holds: recipe, versions, the hash of the policies' answers, losses."""
    from course_utils._setup import versions

    return {
        "config": asdict(config),
        "versions": versions(),
        "parameters": count_parameters(model),
        "policy_answers": samples,
        "log": log,
    }
