"""Train the world judge, measure it and write its card: ``python -m course_utils world-judge``."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from course_utils.world.facts import make_world

from . import figures, pool
from .card import Groups, write_card
from .train import JudgeConfig, record_of, save, shipped, train

if TYPE_CHECKING:
    from course_utils._setup import Course

MEASURED = 400  # pairs, and single answers, in each group of figures
OWN = "Held-out training cases"
POLICY = "Held-out training cases, policies' answers only"
TEST = "Prompts of the test split"
RED = "Red-team prompts answered harmfully, by the five principles"


def answers_hash(samples: Sequence[pool.Sample]) -> str:
    """What the policies said, as one hash for the training log."""
    text = json.dumps([asdict(sample) for sample in samples], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tiny_course() -> Course:
    """The tiny profile, whatever the learner's is: the closed world belongs to it."""
    from course_utils._setup import Course
    from course_utils.profiles import TINY

    return Course("world_judge", TINY)


def make(config: JudgeConfig, samples: Sequence[pool.Sample], out: Path) -> None:
    """Train the recipe on the training cases and save the model in `out`."""
    from course_utils import runs

    world = make_world()
    cases, _ = pool.training_cases(world)
    answers = pool.make_pool(cases, world, config.seed, samples)
    model, tokenizer, log = train(config, answers, world, runs.ensure("sft", tiny_course()))
    save(model, tokenizer, record_of(config, model, log, answers_hash(samples)), out)


def measure(
    folder: Path, seed: int, samples: Sequence[pool.Sample], count: int = MEASURED
) -> Groups:
    """Every figure of the card, for the model in `folder`."""
    from course_utils.judge.world_model import load
    from course_utils.world.prompts import make_splits

    world = make_world()
    judge = load(folder=folder)
    splits = make_splits(world)
    _, own = pool.training_cases(world)
    everything = figures.held_out_pool(own, seed, samples)
    said = [
        (case, [a for a in answers if a.source in pool.POLICIES]) for case, answers in everything
    ]
    test = figures.held_out_pool(splits["test"], seed)
    return {
        OWN: figures.all_figures(judge, everything, seed=seed, count=count),
        POLICY: figures.all_figures(judge, said, seed=seed, count=count),
        TEST: figures.all_figures(judge, test, seed=seed, count=count),
        RED: figures.harm_figures(judge, splits["red_team"], seed),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=None, help="folder (default: the shipped model)"
    )
    parser.add_argument("--steps", type=int, default=JudgeConfig.steps)
    parser.add_argument("--seed", type=int, default=JudgeConfig.seed)
    parser.add_argument(
        "--measure", action="store_true", help="train nothing: measure the model that is there"
    )


def main(args: argparse.Namespace) -> int:
    out = args.out or shipped()
    config = JudgeConfig(steps=args.steps, seed=args.seed)
    learnt, held_out = pool.training_cases(make_world())
    samples = pool.sample_policies(tiny_course(), [*learnt, *held_out], config.seed)
    if not args.measure:
        make(config, samples, out)
    groups = measure(out, config.seed, samples)
    write_card(out, groups)
    for title, rows in groups.items():
        print(title)
        for name, figure in rows.items():
            print(f"  {name}: {figure}")
    return 0
