"""The sweep "constitution": SL-CAI, its control and the SFT model, with three seeds.

Rows of two kinds. ``policy``: a model after training, measured on the red-team, over-refusal and
test prompts. ``revision``: the judge's revisions of the SFT model's responses, measured round by
round on the red-team and test prompts, which no training saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from course_utils import data, models, runs
from course_utils.costs import in_fresh_process
from course_utils.evaluation import Evaluation, evaluate

from .batch import revise_many
from .measure import assessments, critique_hits, gold_by_round, harmful_by_round, scored_by_round
from .principles import Constitution, load_constitution
from .training import (
    CAISettings,
    contradictory,
    fine_tune,
    first_responses,
    practise,
    stage_recipe,
    world_backend,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course
    from course_utils.judge import Backend
    from course_utils.world.cases import Case

SEEDS = (0, 1, 2)
SAMPLES = 5  # answers to each red-team and over-refusal prompt
SHIPPED = "all five"
# Name -> (the constitution, whether one principle is drawn for each round).
VARIANTS: dict[str, tuple[Callable[[Constitution], Constitution], bool]] = {
    SHIPPED: (lambda shipped: shipped, False),
    "without harmless": (lambda shipped: shipped.without("harmless"), False),
    "contradictory": (contradictory, False),
    "one at random": (lambda shipped: shipped, True),
}


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep, each in a fresh process."""
    for seed in SEEDS:
        yield in_fresh_process(sft_row, course, seed)
        for variant in VARIANTS:
            yield from in_fresh_process(variant_rows, course, variant, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says."""
    shipped = load_constitution()
    return {
        "settings": asdict(CAISettings.of(course)),
        "stage": stage_recipe(course),
        "variants": {
            name: {"principles": list(make(shipped).names), "one_at_random": one}
            for name, (make, one) in VARIANTS.items()
        },
        "seeds": SEEDS,
        "samples": SAMPLES,
        "prompts": ["red_team", "over_refusal", "test"],
    }


def sft_row(course: Course, seed: int) -> dict[str, Any]:
    """The SFT model, sampled with `seed`."""
    model, tokenizer = _sft(course)
    return {"kind": "policy", "method": "sft", "variant": "", "seed": seed} | measured(
        course, model, tokenizer, seed
    )


def variant_rows(course: Course, variant: str, seed: int) -> list[dict[str, Any]]:
    """One constitution, one seed: revisions measured, SL-CAI trained and measured.

    With the shipped constitution also the control, on the same prompts.
    """
    make, one = VARIANTS[variant]
    constitution = make(load_constitution())
    settings = replace(CAISettings.of(course), random_principle=one)
    backend = world_backend(course)
    model, tokenizer = _sft(course)
    common = {"variant": variant, "seed": seed}
    revised = revision_row(course, model, tokenizer, backend, constitution, settings, seed)
    found = [{"kind": "revision", **common, "judge": backend.model, **revised}]
    practice = practise(course, model, tokenizer, backend, constitution, settings, seed=seed)
    if practice.revisions.stopped:
        raise KeyboardInterrupt
    methods = {"cai": "revised", **({"control": "first"} if variant == SHIPPED else {})}
    for method, which in methods.items():
        trained, _, _ = fine_tune(course, practice, which, settings, seed=seed)
        row = {"kind": "policy", "method": method, **common, "judge": backend.model}
        row |= {"examples": len(practice.revisions.done), "failed": dict(practice.revisions.errors)}
        found.append({**row, **measured(course, trained, tokenizer, seed)})
    return found


def revision_row(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    backend: Backend,
    constitution: Constitution,
    settings: CAISettings,
    seed: int,
) -> dict[str, Any]:
    """The judge's revisions of that model's own responses.

    Returns:
        ``harmful``: per round, the first responses included, the share of harmful responses to each
        red-team prompt; ``test``: per round gold per test prompt; ``critique``: per test response
        whether its worst fault was named first (1 or 0); ``flawless``: per test response whether
        gold finds no fault in it; ``failed``: errors by kind. Where a call failed, the response
        stays as it was.
    """
    red, test = _cases(course, "red_team"), _cases(course, "test")
    samples = _samples(course)
    cases = [*(red * samples), *test]
    first = first_responses(course, model, tokenizer, cases, seed)
    made = revise_many(
        [data.prompt_of(case) for case in cases],
        [response.text for response in first],
        constitution,
        settings.iterations,
        backend=backend,
        random_principle=settings.random_principle,
        seed=seed,
        max_tokens=settings.max_tokens,
    )
    scored = scored_by_round(cases, first, made.items)
    full = [row + row[-1:] * (settings.iterations + 1 - len(row)) for row in scored]
    count = samples * len(red)
    harmful = harmful_by_round(full[:count]).reshape(-1, samples, len(red)).mean(1)
    asked = [item for item in made.items[count:] if item.rounds]
    found = assessments(cases, first, asked)
    return {
        "harmful": _rounded(harmful),
        "test": _rounded(gold_by_round(full[count:])),
        "critique": [int(hit) for hit in critique_hits(asked, found)],
        "flawless": [int(not a.faults) for a in assessments(cases, first, made.items[count:])],
        "failed": dict(made.errors),
    }


def measured(
    course: Course, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> dict[str, Any]:
    """A policy on the red-team, over-refusal and test prompts.

    Returns:
        ``harmful``, ``refused``: share of answers to each red-team prompt that are harmful, to each
        over-refusal prompt that refuse; ``declined``: of the answers to each red-team prompt, those
        that refuse; ``test``: gold per test prompt; ``parts``: the mean of each of gold's parts
        there; ``length``: mean tokens there.
    """
    samples = _samples(course)
    red, alarming = _cases(course, "red_team"), _cases(course, "over_refusal")
    results = {
        name: evaluate(course, model, tokenizer, cases, seed=seed)
        for name, cases in (
            ("red", red * samples),
            ("alarming", alarming * samples),
            ("test", _cases(course, "test")),
        )
    }
    lengths = [len(r.tokens) for r in results["test"].responses]
    return {
        "harmful": _shares(results["red"], "harmful", samples),
        "declined": _shares(results["red"], "refused", samples),
        "refused": _shares(results["alarming"], "refused", samples),
        "test": _rounded(results["test"].values),
        "parts": {name: round(v, 4) for name, v in results["test"].parts().items()},
        "length": round(float(np.mean(lengths)), 2),
    }


def _shares(result: Evaluation, flag: str, samples: int) -> list[float]:
    """The share of answers with `flag` for each prompt; the prompts stand there `samples` times."""
    flags = np.array([float(getattr(s, flag)) for s in result.scored])
    return _rounded(flags.reshape(samples, -1).mean(0))


def _rounded(values: np.ndarray) -> list[Any]:
    return np.round(np.asarray(values, dtype=float), 3).tolist()


def _sft(course: Course) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return models.load_merged(runs.ensure("sft", course, course.seed), course)


def _samples(course: Course) -> int:
    return course.pick(full=SAMPLES, small=1)


def _cases(course: Course, split: str) -> list[Case]:
    cases = data.load_prompts(course, split)
    return cases[: course.pick(full=len(cases), small=8)]
