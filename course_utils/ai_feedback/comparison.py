"""RLHF and RLAIF on the same pairs: stages, and the sweep ``rlaif`` over three seeds.

The comparison of Lee et al. 2023 (arXiv 2309.00267) at this scale: a reward model and a DPO policy
from the judge's labels, and the same from people's votes, with nothing else changed. The paper
trains its policies by RL against the reward model; here it is DPO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from course_utils import data, models, reward, runs, sweeps
from course_utils.costs import in_fresh_process
from course_utils.errors import CourseError
from course_utils.evaluation import Evaluation, evaluate
from course_utils.judge.pairwise import PairJudge
from course_utils.preference import PreferenceSettings, pipeline

from .agreement import position_figures
from .labels import (
    FILE,
    Feedback,
    feedback,
    is_world,
    judge_pairs,
    labeller,
    labeller_recipe,
    pair_count,
    read_labels,
    train_pairs,
    write_labels,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course

SEEDS = (0, 1, 2)
LABELS = ("ai", "people")
Progress = Callable[[int, int], None]


# Stages


def labels_recipe(course: Course) -> dict[str, Any]:
    """What decides the labels: who judges, and which pairs."""
    return {
        **labeller_recipe(course),
        "pairs": pair_count(course),
        "data": runs.preference_fingerprint(course),
    }


def make_labels(course: Course, out: Path, seed: int, progress: Progress) -> None:
    """The stage ``ai_labels``: the training pairs of that seed, judged, as a file in `out`."""
    rows = train_pairs(course, seed)
    verdicts = judge_pairs(rows, PairJudge(labeller(course)), progress)
    write_labels(out / FILE, list(rows), verdicts, labeller_recipe(course))


def load_feedback(course: Course, seed: int = 0) -> Feedback:
    """The labelled training pairs of that seed, judged first where they are not yet."""
    folder = runs.ensure("ai_labels", course, seed)
    rows = list(train_pairs(course, seed))
    return feedback(rows, read_labels(folder / FILE, rows, labeller_recipe(course)))


def policy_recipe(course: Course) -> dict[str, Any]:
    """DPO's settings; the labels' recipe comes with what the stage needs."""
    return asdict(PreferenceSettings.of(course))


def make_policy(course: Course, out: Path, seed: int, progress: Progress) -> Sequence[Any]:
    """The stage ``rlaif``: DPO from the SFT model on the judge's labels; returns its history."""
    given = load_feedback(course, seed)
    start = runs.run_path("sft", course, seed)
    *_, history = pipeline.train(
        course, start=start, rows=given.ai, seed=seed, out=out, on_step=progress
    )
    return history


# Training


def train_reward(
    course: Course,
    rows: Sequence[dict[str, Any]],
    seed: int = 0,
    on_step: Progress | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A reward model from `rows`, with the body of the course's SFT model."""
    start = runs.ensure("sft", course, course.seed)
    model, tokenizer = reward.new_reward_model(start, course, seed=seed)
    columns = ("prompt", "chosen", "rejected")
    pairs = Dataset.from_list([{name: row[name] for name in columns} for row in rows])
    model, _ = reward.train(course, model, tokenizer, pairs, seed=seed, on_step=on_step)
    return model, tokenizer


# The sweep


def comparison_row(course: Course, labels: str, seed: int) -> dict[str, Any]:
    """Train a reward model and a DPO policy on one kind of label and measure both.

    Args:
        labels: ``ai`` or ``people``; the pairs of a seed are the same for both.

    Returns:
        Among others: ``label_gold``, share of clear training pairs labelled as gold does;
        ``reward_right``: per clear test pair 1, 0 or for equal scores 0.5; ``test``: gold per test
        prompt; ``harmful``: per red-team prompt 1 or 0; ``kl``: nats per response from SFT.
    """
    given = load_feedback(course, seed)
    rows = given.ai if labels == "ai" else given.people
    policy, tokenizer, _ = pipeline.train(course, rows=rows, seed=seed)
    answers, red = _evaluations(course, policy, tokenizer, seed)
    reference, _ = models.load_merged(runs.ensure("sft", course, course.seed), course)
    prompts = [data.prompt_of(case) for case in answers.cases]
    tokens = [response.tokens for response in answers.responses]
    kl = pipeline.mean_kl(policy, reference, tokenizer, prompts, tokens)
    return {
        "labels": labels,
        "seed": seed,
        "pairs": len(rows),
        "left_out": given.left_out(),
        "same": round(given.same, 4),
        "label_gold": round(_label_gold(rows), 4),
        "reward_right": _reward_right(course, rows, seed),
        **_measured(answers, red),
        "kl": round(kl, 4),
    }


def _evaluations(
    course: Course, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[Evaluation, Evaluation]:
    """The test prompts and the red team's, answered."""
    few = course.pick(full=None, small=16)
    test, red = (
        evaluate(course, policy, tokenizer, cases[:few], temperature=1.0, seed=seed)
        for cases in (data.load_prompts(course, split) for split in ("test", "red_team"))
    )
    return test, red


def _measured(answers: Evaluation, red: Evaluation) -> dict[str, Any]:
    responses = answers.responses
    return {
        "test": [round(float(v), 3) for v in answers.values],
        "length": round(sum(len(r.tokens) for r in responses) / len(responses), 2),
        "finished": round(sum(r.finished for r in responses) / len(responses), 4),
        "harmful": [int(s.harmful) for s in red.scored],
    }


def _label_gold(rows: Sequence[dict[str, Any]]) -> float:
    """Share of the clear pairs whose chosen side is the one gold prefers."""
    gaps = [row["gold_chosen"] - row["gold_rejected"] for row in rows]
    clear = [gap for gap in gaps if abs(gap) >= data.GOLD_TIE]
    return sum(gap > 0 for gap in clear) / len(clear)


def _reward_right(course: Course, rows: Sequence[dict[str, Any]], seed: int) -> list[float]:
    """For each clear test pair: does the reward model trained on `rows` rank it as gold does?"""
    model, tokenizer = train_reward(course, rows, seed)
    return right_of(model, tokenizer, clear_test_pairs(course))


def clear_test_pairs(course: Course) -> Dataset:
    """The clear test pairs, chosen by gold; the small size takes a few."""
    clean = data.load_preferences(course, "test", labels="clean")
    return clean.select(range(min(len(clean), course.pick(full=len(clean), small=32))))


def right_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset
) -> list[float]:
    """Per pair: 1 where the chosen side scores higher, 0.5 for equal scores, else 0."""
    margins = reward.pair_margins(model, tokenizer, rows)
    return [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in margins.tolist()]


def start_row(course: Course, seed: int) -> dict[str, Any]:
    """The SFT model, sampled with `seed`: where both policies begin."""
    model, tokenizer = models.load_merged(runs.ensure("sft", course, course.seed), course)
    return {
        "labels": "none",
        "seed": seed,
        **_measured(*_evaluations(course, model, tokenizer, seed)),
    }


def judge_row(course: Course) -> dict[str, Any]:
    """The judge itself on the clear test pairs."""
    rows = list(clear_test_pairs(course))
    verdicts = judge_pairs(rows, PairJudge(labeller(course)))
    found = position_figures(rows, verdicts)
    return {"labels": "judge", **{name: figure.row() for name, figure in found.items()}}


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep, each in a fresh process."""
    yield in_fresh_process(judge_row, course)
    for seed in SEEDS:
        yield in_fresh_process(start_row, course, seed)
        for labels in LABELS:
            yield in_fresh_process(comparison_row, course, labels, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says."""
    return {
        **labels_recipe(course),
        "settings": asdict(PreferenceSettings.of(course)),
        "reward": asdict(reward.RewardSettings.of(course)),
        "seeds": SEEDS,
        "prompts": "test",
    }


def load_record(course: Course) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, runs) of the sweep ``rlaif``, where it was made with the judge that is shipped.

    Raises:
        CourseError: there is no record, or it was made with another judge.
    """
    header, found = sweeps.load_record("rlaif")
    made = header["config"].get("weights")
    if is_world(course) and made != (own := labeller_recipe(course)["weights"]):
        raise CourseError(
            f"The record rlaif was made with another judge (weights {made}, here {own}): run "
            "`python -m course_utils sweep rlaif`."
        )
    return header, found
