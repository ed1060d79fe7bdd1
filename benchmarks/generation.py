"""Tokens per second: a batch of 64 prompts against the same prompts one at a time.

    python benchmarks/generation.py [--out benchmarks/results/generation.json]

Both ways use the shipped tiny model, the same prompts and the same budget, in the same run; the
figure is the median of three rounds. Tokens are those sampled, the EOS included, padding excluded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

BATCH, NEW_TOKENS, ROUNDS = 64, 64, 3


def tokens_per_second(batch_size: int, model: Any, tokenizer: Any, prompts: list[str]) -> float:
    """Sampled tokens per second of wall time, for all the prompts together."""
    from course_utils.generation import generate

    began = time.perf_counter()
    made = generate(
        model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, batch_size=batch_size, seed=0
    )
    return sum(len(g.tokens) for g in made) / (time.perf_counter() - began)


def measure() -> dict[str, Any]:
    """The figures and what they were measured with."""
    import torch

    from course_utils import data, models, setup

    course = setup("benchmark", profile="tiny")
    model, tokenizer = models.load_base(course)
    prompts = [data.prompt_of(case) for case in data.load_prompts(course, "test")[:BATCH]]
    for size in (BATCH, 1):  # warm up
        tokens_per_second(size, model, tokenizer, prompts[:4])
    rounds: dict[int, list[float]] = {BATCH: [], 1: []}
    for _ in range(ROUNDS):
        for size, speeds in rounds.items():
            speeds.append(tokens_per_second(size, model, tokenizer, prompts))
    batched, single = (statistics.median(rounds[size]) for size in (BATCH, 1))
    return {
        "ratio": round(batched / single, 2),
        "batched_tokens_per_second": round(batched, 1),
        "single_tokens_per_second": round(single, 1),
        "rounds": {str(size): [round(s, 1) for s in speeds] for size, speeds in rounds.items()},
        "batch": BATCH,
        "prompts": len(prompts),
        "max_new_tokens": NEW_TOKENS,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": course.versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Batched against single-prompt generation.")
    results = Path(__file__).parent / "results" / "generation.json"
    parser.add_argument("--out", type=Path, default=results)
    args = parser.parse_args()
    result = measure()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"batch of {BATCH}: {result['batched_tokens_per_second']:.0f} tokens/s · "
        f"one at a time: {result['single_tokens_per_second']:.0f} · ratio {result['ratio']}"
    )


if __name__ == "__main__":
    main()
