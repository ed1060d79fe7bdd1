"""What SFT, the reward model, PPO and DPO do in `laptop`, with three seeds on held-out prompts.

    python benchmarks/laptop_seeds.py --out benchmarks/results/laptop_seeds.json

Each seed is a whole pipeline: its own SFT model, its own reward model on top of it, and PPO and
DPO on those. What is trained already is taken from the folder of runs, and labels of one's own are
left out. The figures are those of chapters 02, 04, 05 and 06; the intervals answer for prompts and
for seeds (`course_utils.differences`). An hour or more on two cores, with nothing else on them.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course_utils import data, evaluation, models, preference, reward, runs
from course_utils._setup import Course, setup
from course_utils.preference import PreferenceSettings, pipeline

SEEDS = (0, 1, 2)
Row = dict[str, list[float]]


def scores_of(course: Course, seed: int, stage: str, temperature: float) -> Row:
    """Answers of a stage's model to the test prompts: words in common, reward, tokens."""
    model, tokenizer = models.load_merged(runs.ensure(stage, course, seed), course)
    test = data.load_prompts(course, "test")
    found = evaluation.evaluate(course, model, tokenizer, test, temperature=temperature, seed=seed)
    judge, judge_tokenizer = reward.load_reward_model(runs.ensure("reward", course, seed), course)
    texts = [answer.text for answer in found.responses]
    asked = [data.prompt_of(case) for case in test]
    return {
        "reference": [float(v) for v in found.values],
        "reward": [float(v) for v in reward.get_rewards(judge, judge_tokenizer, asked, texts)],
        "tokens": [float(len(answer.tokens)) for answer in found.responses],
    }


def margins_of(course: Course, seed: int) -> Row:
    """1 for a held-out pair in the right order, else 0: reward model, and DPO's implicit reward."""
    held_out = data.load_preferences(course, "test", labels="votes")
    judge, tokenizer = reward.load_reward_model(runs.ensure("reward", course, seed), course)
    by_judge = np.asarray(reward.pair_margins(judge, tokenizer, held_out))
    del judge
    settings = PreferenceSettings.of(course)
    sums = []
    for stage in ("sft", "dpo"):
        model, tokenizer = models.load_merged(runs.ensure(stage, course, seed), course)
        sums.append(pipeline.pair_logprobs(model, tokenizer, held_out, settings.max_length))
    before, after = (torch.from_numpy(each) for each in sums)
    implicit = preference.implicit_reward(after, before, settings.beta)
    return {
        "reward model": [float(margin > 0) for margin in by_judge],
        "implicit reward": [float(margin > 0) for margin in implicit[0] - implicit[1]],
    }


def over_seeds(rows: Sequence[Row], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows])


def interval(values: np.ndarray) -> dict[str, Any]:
    """The mean of (S, N) values, with an interval for seeds and prompts."""
    found = evaluation.paired_difference(values, np.zeros(values.shape[1]))
    return {
        "mean": round(found.mean, 4),
        "ci95": [round(found.low, 4), round(found.high, 4)],
        "by_seed": [round(float(value), 4) for value in values.mean(1)],
    }


def summary(found: dict[str, list[Row]]) -> dict[str, Any]:
    """The figures of the chapters, from the scores per seed and prompt."""

    def gain(key: str, a: str, b: str) -> dict[str, Any]:
        # seed by seed: each has its own SFT model to start from and reward model to please
        return interval(over_seeds(found[a], key) - over_seeds(found[b], key))

    return {
        "02 overlap, SFT minus base": gain("reference", "sft", "base"),
        "04 reward model right on held-out pairs": interval(
            over_seeds(found["pairs"], "reward model")
        ),
        "05 reward, PPO minus SFT (temperature 1)": gain("reward", "ppo at 1", "sft at 1"),
        "05 overlap, PPO minus SFT (temperature 1)": gain("reference", "ppo at 1", "sft at 1"),
        "06 implicit reward right on held-out pairs": interval(
            over_seeds(found["pairs"], "implicit reward")
        ),
        "06 reward, DPO minus SFT": gain("reward", "dpo", "sft"),
        "06 overlap, DPO minus SFT": gain("reference", "dpo", "sft"),
        "06 tokens per answer, DPO minus SFT": gain("tokens", "dpo", "sft"),
    }


def base_scores(course: Course) -> Row:
    model, tokenizer = models.load_base(course)
    test = data.load_prompts(course, "test")
    found = evaluation.evaluate(course, model, tokenizer, test)
    return {"reference": [float(v) for v in found.values]}


def drift(course: Course, seed: int) -> float:
    """Mean KL of PPO's last three steps from its SFT model, in nats."""
    history = json.loads((runs.run_path("ppo", course, seed) / "history.json").read_text())
    return round(float(np.mean([step["objective/kl"] for step in history[-3:]])), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--out", type=Path, help="a .json file; default: print only")
    args = parser.parse_args()
    os.environ["COURSE_LABELS"] = "none"
    course = setup("laptop_seeds", profile=args.profile)
    seconds: dict[str, list[float]] = {}
    for seed in SEEDS:
        for stage in ("sft", "reward", "dpo", "ppo"):
            began = time.perf_counter()
            runs.ensure(stage, course, seed)
            seconds.setdefault(stage, []).append(round(time.perf_counter() - began, 1))
    measures: dict[str, Callable[[int], Row]] = {
        "sft": lambda seed: scores_of(course, seed, "sft", course.profile.temperature),
        "sft at 1": lambda seed: scores_of(course, seed, "sft", 1.0),
        "dpo": lambda seed: scores_of(course, seed, "dpo", course.profile.temperature),
        "ppo at 1": lambda seed: scores_of(course, seed, "ppo", 1.0),
        "pairs": lambda seed: margins_of(course, seed),
    }
    found = {name: [measure(seed) for seed in SEEDS] for name, measure in measures.items()}
    found["base"] = [base_scores(course)]
    result = {
        "profile": args.profile,
        "seeds": SEEDS,
        "versions": course.versions,
        "seconds_training": seconds,  # next to none where the run was there already
        "figures": summary(found),
        "05 KL of the last three steps, nats": [drift(course, seed) for seed in SEEDS],
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
