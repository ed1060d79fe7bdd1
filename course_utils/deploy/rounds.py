"""A round of KTO on the thumbs that users gave to the model in service.

KTO (Ethayarajh et al. 2024, arXiv 2402.01306) is the method for it: users see one answer, so there
are no pairs. The policy starts from the model in service, which is also the reference.

The sweep `feedback` records such a round with three seeds, from two models in service, each beside
a control: the same answers with the thumbs dealt out at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from course_utils import data, models, runs
from course_utils.costs import in_fresh_process
from course_utils.evaluation import Evaluation, evaluate
from course_utils.generation import Generation, generate
from course_utils.labeling.log import PreferenceLog
from course_utils.preference import PreferenceSettings
from course_utils.preference.training import train

from .feedback import PRESSES, feedback_rows, kto_weights, shuffled, simulated_thumbs
from .gating import RULES, gate
from .probes import FAMILIES, Probe, probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course
    from course_utils.trainers import History
    from course_utils.world.cases import Case

SEEDS = (0, 1, 2)
MOST_ASKED = 1000
STARTS = ("sft", "dpo")  # stages of `runs` that are in service
THUMBS = ("users", "shuffled")


def service_prompts(course: Course) -> list[Case]:
    """What users ask: prompts that no test and no gate knows.

    They are those that PPO practises on.
    """
    return data.practice_prompts(course)[: course.pick(full=MOST_ASKED, small=24)]


def answers(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    seed: int = 0,
) -> list[Generation]:
    """What the model answers to these prompts, many at once."""
    profile = course.profile
    return generate(
        model,
        tokenizer,
        [data.prompt_of(case) for case in cases],
        seed=seed,
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch_size,
        max_prompt_tokens=profile.max_length,
    )


def round_settings(course: Course, rows: Iterable[Mapping[str, Any]]) -> PreferenceSettings:
    """KTO's settings of the profile, with weights for these counts of thumbs."""
    counts = Counter(bool(row["label"]) for row in rows)
    desirable, undesirable = kto_weights(counts[True], counts[False])
    return replace(
        PreferenceSettings.of(course, "kto"),
        desirable_weight=desirable,
        undesirable_weight=undesirable,
    )


def feedback_round(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    settings: PreferenceSettings | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, History]:
    """Train the model in service, in place, on thumbs; as it comes in, it is the reference.

    Args:
        rows: prompt, completion, label, of both kinds.
        settings: None takes `round_settings`.

    Raises:
        CourseError: thumbs of one kind only.
    """
    trained, history = train(
        course,
        model,
        tokenizer,
        rows,
        settings or round_settings(course, rows),
        method="kto",
        seed=seed,
        on_step=on_step,
    )
    return models.merged(trained), history


# The sweep


def feedback_row(course: Course, start: str, thumbs: str, seed: int) -> dict[str, Any]:
    """One round, measured on the test prompts and at the gate.

    Args:
        start: the stage in service.
        thumbs: ``users``, or ``shuffled`` for the control.

    Returns:
        ``ups``, ``downs``; ``before``, ``after``: gold per test prompt; ``length``: mean tokens
        before and after; ``passed`` and, per rule of the gate, ``worse``: mean, low, high.
    """
    folder = runs.ensure(start, course, course.seed)
    model, tokenizer = models.load_merged(folder, course)
    rows = _rows_of_users(course, model, tokenizer, seed)
    if thumbs == "shuffled":
        rows = shuffled(rows, seed)
    tests = data.load_prompts(course, "test")
    before = evaluate(course, model, tokenizer, tests, seed=seed)
    in_service = probe(course, model, tokenizer, start, seed=seed)
    model, _ = feedback_round(course, model, tokenizer, rows, seed=seed)
    after = evaluate(course, model, tokenizer, tests, seed=seed)
    candidate: Probe = probe(course, model, tokenizer, f"{start}-feedback", seed=seed)
    result = gate(candidate, in_service)
    ups = sum(row["label"] for row in rows)
    return {
        "start": start,
        "thumbs": thumbs,
        "seed": seed,
        "ups": ups,
        "downs": len(rows) - ups,
        "before": _values(before),
        "after": _values(after),
        "length": [_length(before), _length(after)],
        "passed": result.passed,
        "worse": {
            check.rule.measure: [
                round(value, 4) for value in (check.worse.mean, check.worse.low, check.worse.high)
            ]
            for check in result.checks
        },
    }


def _rows_of_users(
    course: Course, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> list[dict[str, Any]]:
    cases = service_prompts(course)
    responses = answers(course, model, tokenizer, cases, seed)
    with TemporaryDirectory() as folder:
        log = PreferenceLog(Path(folder) / "feedback.jsonl")
        simulated_thumbs(course, cases, responses, log, seed=seed)
        return feedback_rows(log)[0]


def _values(result: Evaluation) -> list[float]:
    return [round(float(value), 3) for value in result.values]


def _length(result: Evaluation) -> float:
    return round(sum(len(r.tokens) for r in result.responses) / len(result.responses), 2)


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep, each in a fresh process."""
    for start in STARTS:
        runs.ensure(start, course, course.seed)
        for thumbs in THUMBS:
            for seed in SEEDS:
                yield in_fresh_process(feedback_row, course, start, thumbs, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says; the weights of KTO follow from each run's thumbs."""
    return {
        "settings": asdict(PreferenceSettings.of(course, "kto")),
        "prompts": "test",
        "asked": len(service_prompts(course)),
        "presses": PRESSES,
        "rules": [asdict(rule) for rule in RULES],
        "families": {name: asdict(family) for name, family in FAMILIES.items()},
        "seeds": SEEDS,
    }
