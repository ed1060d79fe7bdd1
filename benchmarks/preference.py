"""Seconds of DPO through TRL's trainer and of a bare torch loop that takes the same steps.

    python benchmarks/preference.py [--quick] [--out benchmarks/results/preference.json]

Both start from the course's SFT model and take one step of AdamW after another on the very same
batches, in the same order and with the same learning rates, gradients clipped alike. The
reference's log-probabilities are known to both beforehand. Their losses are compared, so that it
is sure that they do the same.

trainer     `preference.train` as chapters 06 and 07 use it: TRL's `DPOTrainer`
bare        forward, loss, backward, clipping, fused AdamW and nothing else

They take turns in each round, after one round that is not counted. A ratio is the median of the
rounds' ratios; CPU seconds are of the whole process, all threads added up. `whole` also counts what
the trainer does before its first step: checking and tokenising the pairs and the reference's pass.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import logsigmoid
from transformers import PrinterCallback, get_linear_schedule_with_warmup

if TYPE_CHECKING:
    from course_utils._setup import Course

PAIRS, QUICK_PAIRS, ROUNDS = 480, 64, 3
MAX_GRAD_NORM = 1.0
Batches = list[dict[str, torch.Tensor]]


class Clock:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        return {
            "cpu": time.process_time() - self._cpu,
            "wall": time.perf_counter() - self._wall,
        }


@dataclass
class Run:
    """One training run.

    Attributes:
        whole, steps: seconds, each with `cpu` and `wall`; `whole` is empty for the bare loop.
        losses: one per step.
    """

    whole: dict[str, float]
    steps: dict[str, float]
    losses: list[float]


def through_trl(course: Course, pairs: int) -> tuple[Run, Batches]:
    """A run through the trainer, and the batches it took."""
    from course_utils import models, runs
    from course_utils.preference import pipeline, training

    model, tokenizer = models.load(runs.ensure("sft", course, 0), course)
    rows = pipeline.train_pairs(course, 0, pairs)
    settings = training.PreferenceSettings.of(course)
    batches: Batches = []
    whole = Clock()
    with TemporaryDirectory() as scratch:
        trainer = training.make_trainer(course, model, tokenizer, rows, settings, out=scratch)
        trainer.remove_callback(PrinterCallback)
        trainer.args.logging_steps = 1
        collate = trainer.data_collator

        def keep(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batches.append(collate(features))
            return batches[-1]

        trainer.data_collator = keep
        steps = Clock()
        trainer.train()
        seconds = whole.read(), steps.read()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return Run(*seconds, losses), batches


def bare(course: Course, batches: Batches) -> Run:
    """The same steps in plain torch."""
    from course_utils import models, runs
    from course_utils.preference.training import PreferenceSettings

    settings = PreferenceSettings.of(course)
    model, _ = models.load(runs.ensure("sft", course, 0), course)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    warmup = math.ceil(settings.warmup * len(batches))
    schedule = get_linear_schedule_with_warmup(optimiser, warmup, len(batches))
    losses = []
    model.train()
    clock = Clock()
    for batch in batches:
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        logprobs = logits[:, :-1].log_softmax(-1)
        picked = logprobs.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
        chosen, rejected = (picked * batch["completion_mask"][:, 1:]).sum(-1).chunk(2)
        chosen, rejected = (
            chosen - batch["ref_chosen_logps"],
            rejected - batch["ref_rejected_logps"],
        )
        loss = -logsigmoid(settings.beta * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return Run({}, clock.read(), losses)


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures and what they were measured with."""
    from course_utils import setup

    course = setup("benchmark", profile="tiny")
    rounds: list[tuple[Run, Run]] = []
    for _ in range((1 if quick else ROUNDS) + 1):
        trainer, batches = through_trl(course, QUICK_PAIRS if quick else PAIRS)
        rounds.append((trainer, bare(course, batches)))
    counted = rounds[1:]  # the first warms up
    apart = max(abs(a - b) for t, p in counted for a, b in zip(t.losses, p.losses, strict=True))
    return {
        "ratios": {
            f"{part}_{kind}": round(
                statistics.median(getattr(t, part)[kind] / p.steps[kind] for t, p in counted), 3
            )
            for part in ("steps", "whole")
            for kind in ("cpu", "wall")
        },
        "steps": len(batches),
        "seconds": {
            "trainer": [t.steps for t, _ in counted],
            "trainer_whole": [t.whole for t, _ in counted],
            "bare": [p.steps for _, p in counted],
        },
        "largest_difference_of_losses": apart,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": course.versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="DPO: TRL's trainer and a bare torch loop.")
    results = Path(__file__).parent / "results" / "preference.json"
    parser.add_argument("--out", type=Path, help="default results/; no file with --quick")
    parser.add_argument("--quick", action="store_true", help="one round with few pairs")
    args = parser.parse_args()
    result = measure(args.quick)
    out = args.out or (None if args.quick else results)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        "trainer / bare: "
        + " · ".join(f"{name} {value}" for name, value in result["ratios"].items())
        + f"; losses differ by at most {result['largest_difference_of_losses']:.1e}"
    )


if __name__ == "__main__":
    main()
