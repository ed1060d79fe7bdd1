"""Experiments too long for a chapter: ``python -m course_utils sweep NAME`` records them as data.

A record is a JSON-lines file under ``data/records/``: a first line with the configuration, the
versions and the date, then one line per run. The chapter loads it, says so, and runs one slice of
it again, which a test compares with the record.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CourseError, unknown_name
from .paths import data_dir

if TYPE_CHECKING:
    from ._setup import Course

HELP = "record a long experiment as data"
SEEDS = (0, 1, 2)


def record_path(name: str) -> Path:
    return data_dir() / "records" / f"{name}.jsonl"


def load_record(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, runs) of a recorded sweep."""
    from .data import read_jsonl

    get_sweep(name)
    if not record_path(name).is_file():
        raise CourseError(
            f"There is no record of {name}: run `python -m course_utils sweep {name}`."
        )
    header, *runs = read_jsonl(record_path(name))
    return header, runs


def sft_row(course: Course, variant: str, seed: int) -> dict[str, Any]:
    """Train one SFT variant (``base``, ``full`` or ``lora``) and score it on the test prompts.

    `values` holds gold per prompt, in the order of the test file, so that runs can be paired.
    """
    from dataclasses import replace

    from . import data, evaluation, models, sft

    model, tokenizer = models.load_base(course)
    if variant != "base":
        settings = replace(sft.SFTSettings.of(course), adapter=variant)
        if variant == "lora":  # adapters have few weights and want a larger step
            settings = replace(settings, learning_rate=3 * settings.learning_rate)
        model, _ = sft.train(
            course, model, tokenizer, data.load_instructions(course), settings, seed=seed
        )
    result = evaluation.evaluate(
        course, model, tokenizer, data.load_prompts(course, "test"), seed=seed
    )
    red = evaluation.evaluate(
        course, model, tokenizer, data.load_prompts(course, "red_team"), seed=seed
    )
    return {
        "variant": variant,
        "seed": seed,
        "mean": round(result.mean, 4),
        "values": [round(float(v), 3) for v in result.values],
        "complies": round(result.rate("complies"), 4),
        "harmful": round(red.rate("harmful"), 4),
    }


def _sft_sweep(course: Course) -> Iterator[dict[str, Any]]:
    for variant in ("base", "full", "lora"):
        for seed in SEEDS:
            yield sft_row(course, variant, seed)


def _sft_config(course: Course) -> dict[str, Any]:
    from .sft import SFTSettings

    return {"settings": asdict(SFTSettings.of(course)), "seeds": SEEDS, "prompts": "test"}


REWARD_LABELS = {"clean": "clean", "votes": "votes", "margin": "votes"}
REWARD_PAIRS = (300, 1200, 4800)


def reward_row(course: Course, labels: str, pairs: int, seed: int) -> dict[str, Any]:
    """Train one reward model and measure it on the held-out test pairs.

    Args:
        labels: ``clean``, ``votes``, or ``margin``: votes, with the margins they give.
        pairs: how many training pairs, drawn with `seed`; all of them where there are fewer
            (clean labels leave ties out). `used` in the row says how many there were.
        seed: decides the pairs, the new output's weights and the order of training.

    Returns:
        Among others `clean` and `votes`, the accuracy on test pairs with those labels.
    """
    from dataclasses import replace

    from . import data, reward, runs

    rows = data.load_preferences(course, "train", REWARD_LABELS[labels]).shuffle(seed=seed)
    rows = rows.select(range(min(pairs, len(rows))))
    settings = replace(reward.RewardSettings.of(course), use_margin=labels == "margin")
    model, tokenizer = reward.new_reward_model(runs.ensure("sft", course, 0), course, seed=seed)
    model, _ = reward.train(course, model, tokenizer, rows, settings, seed=seed)
    test = data.load_preferences(course, "test")
    margins = reward.pair_margins(model, tokenizer, test)
    return {
        "labels": labels,
        "pairs": pairs,
        "used": len(rows),
        "seed": seed,
        "clean": round(reward.clean_accuracy(margins, test), 4),
        "votes": round(reward.accuracy(margins), 4),
    }


def _reward_sweep(course: Course) -> Iterator[dict[str, Any]]:
    for pairs in REWARD_PAIRS:
        for labels in REWARD_LABELS:
            for seed in SEEDS:
                yield reward_row(course, labels, pairs, seed)


def _reward_config(course: Course) -> dict[str, Any]:
    from .reward import RewardSettings
    from .runs import preference_fingerprint

    return {
        "settings": asdict(RewardSettings.of(course)),
        "pairs": REWARD_PAIRS,
        "seeds": SEEDS,
        "preferences": preference_fingerprint(course),
    }


Sweep = tuple[Callable[["Course"], dict[str, Any]], Callable[["Course"], Iterator[dict[str, Any]]]]


def _elsewhere(module: str, config: str, rows: str) -> Sweep:
    """A sweep whose functions stand in another module, which is imported when it is needed."""

    def call(name: str, course: Course) -> Any:
        return getattr(import_module(f"course_utils.{module}"), name)(course)

    return partial(call, config), partial(call, rows)


SWEEPS: dict[str, Sweep] = {
    "sft": (_sft_config, _sft_sweep),
    "reward": (_reward_config, _reward_sweep),
    "overoptimization": _elsewhere("ppo.overoptimization", "configuration", "rows"),
    "betas": _elsewhere("preference.pipeline", "beta_configuration", "beta_rows"),
    "preference": _elsewhere("preference.pipeline", "configuration", "rows"),
    "spin": _elsewhere("spin", "configuration", "rows"),
    "rlaif": _elsewhere("ai_feedback.comparison", "configuration", "rows"),
    "leaderboard": _elsewhere("board.leaderboard", "configuration", "rows"),
    "constitution": _elsewhere("constitution.record", "configuration", "rows"),
    "feedback": _elsewhere("deploy.rounds", "configuration", "rows"),
    "rl": _elsewhere("rl.pipeline", "configuration", "rows"),
}


def get_sweep(name: str) -> Sweep:
    """The sweep of that name; a CourseError lists the legal names otherwise."""
    if name not in SWEEPS:
        raise unknown_name("sweep", name, sorted(SWEEPS))
    return SWEEPS[name]


@contextmanager
def _without_own_labels() -> Iterator[None]:
    """A record says what shipped data give. Child processes see it, too: `paths.labels_path`."""
    before = os.environ.get("COURSE_LABELS")
    os.environ["COURSE_LABELS"] = "none"
    try:
        yield
    finally:
        del os.environ["COURSE_LABELS"]
        if before is not None:
            os.environ["COURSE_LABELS"] = before


@_without_own_labels()
def run_sweep(name: str, course: Course) -> Path:
    """Run a sweep and replace its record; an interrupted sweep leaves the old record alone.

    Labels of one's own are ignored.
    """
    from tqdm.auto import tqdm

    from .runs import base_fingerprint, data_fingerprint

    config, rows = get_sweep(name)
    header = {
        "sweep": name,
        "profile": course.profile.name,
        "config": config(course),
        "base": base_fingerprint(course),
        "data": data_fingerprint(course),
        "versions": course.versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    lines = [json.dumps(header)]
    for row in tqdm(rows(course), desc=f"sweep {name}", unit="run"):
        lines.append(json.dumps(row))
    path = record_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text("\n".join(lines) + "\n")
    os.replace(scratch, path)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="which sweep; none lists them")


def main(args: argparse.Namespace) -> int:
    if args.name is None:
        print("\n".join(SWEEPS))
        return 0
    get_sweep(args.name)  # say so before anything heavy is loaded
    from ._setup import setup

    print(run_sweep(args.name, setup("sweep", profile="tiny")))
    return 0
