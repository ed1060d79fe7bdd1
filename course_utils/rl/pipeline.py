"""The sweep `rl`: three methods on the same verifiable reward, three seeds, a process for each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from course_utils import data, models, runs
from course_utils.costs import in_fresh_process, load_libraries, spent
from course_utils.evaluation import Evaluation, evaluate
from course_utils.preference.pipeline import mean_kl
from course_utils.rl.training import METHODS, RLSettings, recipe, train
from course_utils.rl.verify import CUT_PENALTY, verify

if TYPE_CHECKING:
    from course_utils._setup import Course

SEEDS = (0, 1, 2)
TRAINERS = ("GRPOTrainer", "RLOOTrainer")  # of TRL; the course's PPO needs no more


def held_out(course: Course, result: Evaluation) -> dict[str, Any]:
    """What a policy answered to held-out prompts, in numbers.

    Returns:
        ``test``: gold per prompt; ``right``: the reward per prompt, 0 or 1; ``parts``: mean of
        each part of gold; ``length``: mean tokens; ``finished``: share that ended by itself.
    """
    responses = result.responses
    return {
        "test": [round(float(v), 3) for v in result.values],
        "right": [
            round(verify(course, case, response.text), 3)
            for case, response in zip(result.cases, responses, strict=True)
        ],
        "parts": {name: round(value, 4) for name, value in result.parts().items()},
        "length": round(sum(len(r.tokens) for r in responses) / len(responses), 2),
        "finished": round(sum(r.finished for r in responses) / len(responses), 4),
    }


def sft_row(course: Course, seed: int) -> dict[str, Any]:
    """The SFT model on the test prompts, sampled with `seed`: where all methods start."""
    model, tokenizer = models.load_merged(runs.ensure("sft", course, course.seed), course)
    result = evaluate(course, model, tokenizer, data.load_prompts(course, "test"), seed=seed)
    return {"method": "sft", "seed": seed, **held_out(course, result)}


def method_row(course: Course, method: str, seed: int) -> dict[str, Any]:
    """Train once and measure on the test prompts. Time and memory are this process's.

    Returns:
        What `held_out` says, and ``samples``: responses sampled in training; ``seconds`` of
        training, ``peak_mb`` of the process after it, ``libraries_mb`` of it before; ``kl``: nats
        per response from the SFT model; ``curve``: the history of `train`.
    """
    sft = runs.ensure("sft", course, course.seed)
    settings = RLSettings.of(course, method)
    libraries = load_libraries(TRAINERS)
    began = time.perf_counter()
    model, tokenizer, history = train(course, method, settings, seed=seed)
    costs = spent(began, libraries)
    reference, _ = models.load_merged(sft, course)
    cases = data.load_prompts(course, "test")
    result = evaluate(course, model, tokenizer, cases, temperature=1.0, seed=seed)
    prompts = [data.prompt_of(case) for case in result.cases]
    kl = mean_kl(model, reference, tokenizer, prompts, [r.tokens for r in result.responses])
    return {
        "method": method,
        "seed": seed,
        "samples": settings.samples,
        **costs,
        **held_out(course, result),
        "kl": round(kl, 4),
        "curve": history,
    }


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep `rl`, each in a fresh process."""
    for seed in SEEDS:
        yield in_fresh_process(sft_row, course, seed)
    for method in METHODS:
        for seed in SEEDS:
            yield in_fresh_process(method_row, course, method, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says."""
    return {
        "settings": {method: recipe(course, method) for method in METHODS},
        "samples": RLSettings.of(course).samples,
        "cut_penalty": CUT_PENALTY,
        "seeds": SEEDS,
        "prompts": "test",
    }
