"""What benchmarks/README.md says of recorded runs is what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def seeds() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "results" / "laptop_seeds.json").read_text())
    return found


def test_the_table_of_three_seeds_is_the_record(seeds: dict[str, Any]) -> None:
    text = (FOLDER / "README.md").read_text()
    for name, figure in seeds["figures"].items():
        chapter, what = name.split(" ", 1)
        form = ".2f" if "right" in what else "+.1f" if "tokens" in what else "+.2f"
        low, high = figure["ci95"]
        each = ", ".join(format(value, form) for value in figure["by_seed"])
        mean, interval = format(figure["mean"], form), f"[{low:{form}}, {high:{form}}]"
        assert f"| {chapter} | {what} | {mean} | {interval} | {each} |" in text
    drift = seeds["05 KL of the last three steps, nats"]
    assert f"{min(drift):.1f} to {max(drift):.1f} nats" in text


def test_laptop_keeps_what_the_course_promises_of_it(seeds: dict[str, Any]) -> None:
    """An effect on held-out prompts beyond chance, and PPO near its SFT model."""
    assert seeds["seeds"] == [0, 1, 2]
    low = {name.split(",")[0]: each["ci95"][0] for name, each in seeds["figures"].items()}
    assert low["02 overlap"] > 0 and low["05 reward"] > 0
    assert low["04 reward model right on held-out pairs"] > 0.65
    assert low["06 implicit reward right on held-out pairs"] > 0.65
    assert max(seeds["05 KL of the last three steps, nats"]) < 5
    seconds = seeds["seconds_training"]
    assert max(seconds["sft"] + seconds["reward"] + seconds["dpo"]) < 600
    assert max(seconds["ppo"]) < 900


def test_the_range_of_the_memory_estimates_is_the_record() -> None:
    record = json.loads((FOLDER / "results" / "memory.json").read_text())
    ratios = [run["measured/estimated"] for run in record["runs"]]
    said = f"Measured over estimated is {min(ratios):.2f} to {max(ratios):.2f}."
    assert said in (FOLDER / "README.md").read_text()
