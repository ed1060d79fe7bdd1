"""SL-CAI, the supervised half of Constitutional AI: fine-tune on what critiques made of responses.

Bai et al. 2022 (arXiv 2212.08073), section 3.1: sample a first response to every practice prompt,
let it be criticised and revised some rounds, fine-tune the model that gave the first responses on
the last revisions. The control is the same fine-tuning on the first responses themselves, of the
same prompts: what it changes comes from training on, not from the principles.

Deliberate simplifications:
1. every practice prompt is revised; the paper fine-tunes on helpful responses unrevised;
2. the critic is the judge backend, the paper's is the model itself, shown examples;
3. a first response that ran out of tokens gets an EOS in the control like any other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import data, models, runs, sft
from course_utils.errors import CourseError
from course_utils.generation import Generation, generate
from course_utils.sft import SFTSettings

from .batch import INTERRUPTED, Revision, Revisions, of_row, revise_many
from .policies import in_template
from .principles import Constitution, Given, load_constitution

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course
    from course_utils.judge import Backend
    from course_utils.trainers import History
    from course_utils.world.cases import Case

# Tasks that come first, each group with at most this share of the practice prompts: requests for
# what should not be given, and harmless ones that look like them, so that both are practised.
AT_RISK, ALARMING = ("unsafe", "private"), ("alarming",)
SHARES = {AT_RISK: 1 / 5, ALARMING: 1 / 10}
REVISIONS = "revisions.jsonl"
LEARNT_FROM = ("revised", "first")


@dataclass(frozen=True)
class CAISettings(SFTSettings):
    """The recipe of one SL-CAI run: what is revised, and `SFTSettings` for the fine-tuning.

    Attributes:
        prompts: how many practice prompts.
        iterations: rounds of critique and revision.
        random_principle: one principle per response and round in place of all.
        max_tokens: of a critique or a revision.
    """

    epochs: int = 1
    prompts: int = 400
    iterations: int = 2
    random_principle: bool = False
    max_tokens: int = 160

    @classmethod
    def of(cls, course: Course) -> CAISettings:
        """SFT's settings with half its batch and half its learning rate: more and smaller steps."""
        usual = asdict(SFTSettings.of(course))
        batch = max(1, usual["batch_size"] // 2)
        rate = usual["learning_rate"] * batch / usual["batch_size"]
        changed = {"epochs": 1, "batch_size": batch, "learning_rate": rate}
        return cls(**{**usual, **changed}, prompts=course.pick(full=cls.prompts, small=24))


def practice_cases(course: Course, count: int, seed: int = 0) -> list[Case]:
    """Prompts of the split ``rl``, none of which any evaluation holds.

    The groups of `SHARES` come in first, as the paper's red-team prompts stand beside its helpful
    ones; the others are drawn from the rest.

    Raises:
        CourseError: outside the closed world, which alone has such prompts.
    """
    if course.profile.instructions != "world":
        raise CourseError(
            "SL-CAI practises on prompts of the closed world: use the profile 'tiny'. (Single "
            "prompts can be revised anywhere: constitution.revise_many.)"
        )
    rng = random.Random(f"{seed}-practice")
    cases = data.load_prompts(course, "rl")
    chosen: list[Case] = []
    for tasks, share in SHARES.items():
        group = [case for case in cases if case.task in tasks]
        chosen += rng.sample(group, min(len(group), round(count * share)))
    others = [case for case in cases if not any(case.task in tasks for tasks in SHARES)]
    chosen += rng.sample(others, min(len(others), count - len(chosen)))
    rng.shuffle(chosen)
    return chosen


@dataclass(frozen=True)
class Practice:
    """What SL-CAI learns from.

    Attributes:
        cases: the practice prompts.
        first: the policy's own responses to them.
        revisions: what became of those; an item's `number` is its place among `cases`.
    """

    cases: tuple[Case, ...]
    first: tuple[Generation, ...]
    revisions: Revisions

    def rows(self, which: str = "revised") -> Dataset:
        """Instruction, context and response: last revisions, or first responses (the control).

        Both leave out the same prompts: those without a first response, and those of which a call
        failed.
        """
        from datasets import Dataset

        if which not in LEARNT_FROM:
            raise CourseError(f"which is {which!r}: give one of {', '.join(LEARNT_FROM)}.")
        return Dataset.from_list(
            [
                {
                    "instruction": self.cases[item.number].instruction,
                    "context": self.cases[item.number].context,
                    "response": item.final if which == "revised" else item.initial,
                }
                for item in self.revisions.done
            ]
        )


def first_responses(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    seed: int,
) -> list[Generation]:
    """One response to each case, at temperature 1: what the policy says by itself."""
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


def practise(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    backend: Backend,
    constitution: Given | None = None,
    settings: CAISettings | None = None,
    *,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Practice:
    """Sample first responses to the practice prompts and have them revised."""
    settings = settings or CAISettings.of(course)
    cases = practice_cases(course, settings.prompts, seed)
    first = first_responses(course, model, tokenizer, cases, seed)
    revisions = revise_many(
        [data.prompt_of(case) for case in cases],
        [response.text for response in first],
        constitution,
        settings.iterations,
        backend=backend,
        random_principle=settings.random_principle,
        seed=seed,
        max_tokens=settings.max_tokens,
        on_step=on_step,
    )
    return Practice(tuple(cases), tuple(first), revisions)


def preference_pairs(revisions: Iterable[Revision]) -> tuple[list[dict[str, str]], int]:
    """(pairs of the last revision, chosen, and the first response, rejected; how many left out).

    Where the two are equal there is nothing to prefer: such ones are left out and counted, and so
    are those with an error. Prompts are in the course's template.
    """
    given = list(revisions)
    pairs = [
        {"prompt": in_template(item.prompt), "chosen": item.final, "rejected": item.initial}
        for item in given
        if not item.error and item.changed
    ]
    return pairs, len(given) - len(pairs)


def fine_tune(
    course: Course,
    practice: Practice,
    which: str = "revised",
    settings: CAISettings | None = None,
    *,
    seed: int = 0,
    out: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, History]:
    """The SFT model fine-tuned on the practice's revisions, or on its first responses.

    Raises:
        CourseError: not one response came through.
    """
    if not practice.revisions.done:
        raise CourseError(f"There is nothing to learn from: {practice.revisions.summary()}.")
    start = runs.ensure("sft", course, course.seed)
    model, tokenizer = models.load_merged(start, course)
    settings = settings or CAISettings.of(course)
    trained, history = sft.train(
        course, model, tokenizer, practice.rows(which), settings, seed=seed, on_step=on_step
    )
    trained = models.merged(trained)
    if out is not None:
        models.save(trained, tokenizer, out)
    return trained, tokenizer, history


# The stage


def world_backend(course: Course) -> Backend:
    """The judge that SL-CAI is trained with: the closed world's own, in silence."""
    from course_utils.judge import make_backend

    return make_backend("world", course=course, quiet=True)


def stage_recipe(course: Course) -> dict[str, Any]:
    """What decides the result of the stage "constitution"."""
    from course_utils.world_judge.train import shipped

    weights = shipped() / "model.safetensors"
    return {
        **asdict(CAISettings.of(course)),
        "constitution": load_constitution().digest,
        "judge": runs.file_hash(weights)[:16] if weights.is_file() else "missing",
        "prompts_file": runs.file_hash(data.data_dir() / "world" / "prompts_rl.jsonl")[:16],
    }


def train_stage(course: Course, out: Path, seed: int, progress: runs.Progress) -> None:
    """The stage "constitution": the model, its history, and every revision it learnt from."""
    backend = world_backend(course)
    model, tokenizer = models.load_merged(runs.ensure("sft", course, seed), course)
    practice = practise(course, model, tokenizer, backend, seed=seed, on_step=progress)
    if practice.revisions.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    print(f"{backend.title}: {practice.revisions.summary()}")
    *_, history = fine_tune(course, practice, seed=seed, out=out, on_step=progress)
    (out / "history.json").write_text(json.dumps(history) + "\n")
    lines = (json.dumps(item.row()) for item in practice.revisions.items)
    (out / REVISIONS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def stage_revisions(folder: Path) -> list[Revision]:
    """What the stage in that folder learnt from."""
    return [of_row(row) for row in data.read_jsonl(folder / REVISIONS)]


def contradictory(constitution: Constitution) -> Constitution:
    """With a principle that contradicts the others, for the experiment of chapter 08."""
    return constitution.adding("Always do what is asked, whatever it is.", "obedient")
