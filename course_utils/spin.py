"""SPIN: a model learns to tell people's responses from its own, round after round.

Chen et al. 2024, arXiv 2401.01335, algorithm 1. Each round samples a response to every prompt from
the model as it is, the opponent, and trains it with DPO's loss on people's response against its
own, with the opponent as the reference. The trained model is the next round's opponent. Once the
two cannot be told apart, the loss has nothing left to teach.

Deliberate simplifications:
1. A round draws its prompts anew and looks at its own pairs only. From its second round on the
   paper adds the pairs of the round before.
2. A generated response that ran out of tokens gets an EOS like any other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import data, models, runs, sft
from .costs import in_fresh_process
from .errors import CourseError
from .evaluation import evaluate
from .generation import generate
from .preference import PreferenceSettings
from .preference import train as train_on_pairs
from .sft import SFTSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ._setup import Course
    from .world.cases import Case
    from .world.gold import Gold

SEEDS = (0, 1, 2)
ROUNDS = 4
SOURCES = ("own", "careful")


# The data


def own_demonstrations(course: Course) -> Dataset:
    """What the SFT model was trained on."""
    return data.load_instructions(course)


def careful_demonstrations(course: Course) -> Dataset:
    """Answers of careful, friendly demonstrators to the prompts that PPO practises on.

    Raises:
        CourseError: outside the closed world, where nobody can write them.
    """
    from datasets import Dataset

    write = _writer(course, "careful")
    return Dataset.from_list(
        [
            {"instruction": case.instruction, "context": case.context, "response": write(case)}
            for case in data.load_prompts(course, "rl")
        ]
    )


def demonstrations(course: Course, source: str) -> Dataset:
    """Responses that people wrote: instruction, context, response. `source`: one of `SOURCES`."""
    return own_demonstrations(course) if source == "own" else careful_demonstrations(course)


def gold_of_people(course: Course, source: str) -> list[Gold]:
    """Gold of what those people would answer to the test prompts: where the game rests.

    Raises:
        CourseError: outside the closed world, where there is no gold.
    """
    from .world import gold

    write = _writer(course, source)
    cases = data.load_prompts(course, "test")
    return [gold.score(case, write(case), finished=True) for case in cases]


def _writer(course: Course, source: str) -> Callable[[Case], str]:
    """What a person of that kind answers to one case after the other."""
    from .world.answers import Recipe, write_answer
    from .world.build import WORLD_SEED
    from .world.facts import make_world
    from .world.instructions import demonstration_recipe

    if course.profile.instructions != "world":
        raise CourseError("These people live in the closed world: use the profile 'tiny'.")
    world, rng = make_world(WORLD_SEED), random.Random(f"{WORLD_SEED}-{source}")

    def write(case: Case) -> str:
        if source == "careful":
            recipe = Recipe(facts=rng.choice((1, 2)))
        else:
            recipe = demonstration_recipe(case, rng)
        return write_answer(case, world, recipe, rng)

    return write


def draw(rows: Dataset, count: int, seed: int, number: int) -> Dataset:
    """The rows of round `number`: `count` of them, or all where there are fewer."""
    return rows.shuffle(seed=1000 * seed + number).select(range(min(count, len(rows))))


# The method


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes:
        pairs: people's response against the model's own.
        same: responses of the model that are empty or people's own, word for word: left out.
        told_apart: share of the pairs, over the second half of the training, whose real side got
            the higher implicit reward before the model had learnt from that pair. At 0.5 the model
            cannot tell people's responses from the opponent's.
        generated: the opponent's responses, in the order of the prompts.
    """

    pairs: int
    same: int
    told_apart: float
    generated: tuple[str, ...]


def spin_settings(course: Course) -> PreferenceSettings:
    """The settings of one round: DPO's, with the profile's own size and rate for SPIN."""
    settings, profile = PreferenceSettings.of(course), course.profile
    return replace(
        settings,
        epochs=1,
        batch_size=profile.spin_batch_size or settings.batch_size,
        learning_rate=profile.spin_rate * settings.learning_rate,
    )


def sft_settings(course: Course) -> SFTSettings:
    """The control's settings: as many steps of as many examples as a round of SPIN takes.

    The learning rate is SFT's own, less in proportion to a smaller batch.
    """
    usual, batch = SFTSettings.of(course), spin_settings(course).batch_size
    rate = usual.learning_rate * min(1, batch / usual.batch_size)
    return replace(usual, epochs=1, batch_size=batch, learning_rate=rate)


def spin_pairs(
    rows: Iterable[Mapping[str, Any]], generated: Sequence[str]
) -> tuple[list[dict[str, str]], int]:
    """(pairs of people's response, chosen, and the model's, rejected; how many are left out).

    Args:
        rows: prompt and completion, by people.
        generated: a response to each prompt. One that is empty or equals people's teaches nothing.
    """
    pairs = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": text}
        for row, text in zip(rows, generated, strict=True)
    ]
    useful = [p for p in pairs if p["rejected"].strip() not in ("", p["chosen"].strip())]
    return useful, len(pairs) - len(useful)


def spin_iteration(
    model: PreTrainedModel,
    dataset: Dataset,
    *,
    course: Course,
    tokenizer: PreTrainedTokenizerBase,
    settings: PreferenceSettings | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, Round]:
    """One round: sample from `model`, then train it to prefer people's responses to its own.

    Args:
        model: trained in place; as it comes in, it is opponent and reference.
        dataset: instruction, context and response, written by people.
        settings: None takes `spin_settings`.

    Raises:
        CourseError: every response of the model equals people's, so there is nothing to learn.
    """
    profile = course.profile
    rows = data.to_prompt_completion(dataset)
    generated = generate(
        model,
        tokenizer,
        rows["prompt"],
        seed=seed,
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch_size,
        max_prompt_tokens=profile.max_length,
    )
    texts = tuple(response.text for response in generated)
    pairs, same = spin_pairs(rows, texts)
    if not pairs:
        raise CourseError(
            f"All {same} responses of the model are empty or equal people's: SPIN has nothing left "
            "to learn from these prompts."
        )
    model, history = train_on_pairs(
        course,
        model,
        tokenizer,
        pairs,
        settings or spin_settings(course),
        seed=seed,
        on_step=on_step,
    )
    later = [row["rewards/accuracies"] for row in history[len(history) // 2 :]]
    # The next round puts a new adapter on, so this one's is folded in.
    return models.merged(model), Round(len(pairs), same, float(np.mean(later)), texts)


def more_sft(
    model: PreTrainedModel,
    dataset: Dataset,
    *,
    course: Course,
    tokenizer: PreTrainedTokenizerBase,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> PreTrainedModel:
    """The control: SFT on the same rows, with `sft_settings`."""
    settings = sft_settings(course)
    trained, _ = sft.train(course, model, tokenizer, dataset, settings, seed=seed, on_step=on_step)
    return models.merged(trained)


def play(
    course: Course, *, seed: int = 0, on_step: Callable[[int, int], None] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[Round]]:
    """All rounds from the SFT run: the stage ``spin``.

    People are the careful ones in the closed world; elsewhere there are only the SFT data's own.
    """
    source = "careful" if course.profile.instructions == "world" else "own"
    dataset = demonstrations(course, source)
    rounds, count = course.pick(full=(ROUNDS, course.profile.spin_examples), small=(1, 24))
    model, tokenizer = models.load_merged(runs.ensure("sft", course, course.seed), course)
    played = []
    for number in range(1, rounds + 1):
        drawn = draw(dataset, count, seed, number)
        model, done = spin_iteration(
            model,
            drawn,
            course=course,
            tokenizer=tokenizer,
            seed=1000 * seed + number,
            on_step=on_step,
        )
        played.append(done)
    return model, tokenizer, played


# The sweep


def spin_rows(course: Course, source: str, method: str, seed: int) -> list[dict[str, Any]]:
    """Rounds of SPIN (`method` ``spin``) or of the control (``sft``), measured after each.

    Returns:
        One row per round, with gold per test prompt, mean tokens, and for SPIN what `Round` says
        without the texts. Round 0 is the SFT model.
    """
    model, tokenizer = models.load_merged(runs.ensure("sft", course, course.seed), course)
    dataset = demonstrations(course, source)
    common = {"data": source, "method": method, "seed": seed}
    rows = [{**common, "round": 0, **_measured(course, model, tokenizer, seed)}]
    for number in range(1, ROUNDS + 1):
        drawn = draw(dataset, course.profile.spin_examples, seed, number)
        said: dict[str, Any] = {}
        options: dict[str, Any] = {"course": course, "tokenizer": tokenizer}
        if method == "spin":
            model, played = spin_iteration(model, drawn, seed=1000 * seed + number, **options)
            said = {"pairs": played.pairs, "same": played.same, "told_apart": played.told_apart}
        else:
            model = more_sft(model, drawn, seed=1000 * seed + number, **options)
        measured = _measured(course, model, tokenizer, seed)
        rows.append({**common, "round": number, **said, **measured})
    return rows


def _measured(
    course: Course, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> dict[str, Any]:
    result = evaluate(course, model, tokenizer, data.load_prompts(course, "test"), seed=seed)
    return {
        "test": [round(float(v), 3) for v in result.values],
        "length": round(float(np.mean([len(r.tokens) for r in result.responses])), 2),
    }


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep, each in a fresh process."""
    for source in SOURCES:
        for method in ("spin", "sft"):
            for seed in SEEDS:
                yield from in_fresh_process(spin_rows, course, source, method, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says."""
    return {
        "settings": asdict(spin_settings(course)),
        "sft": asdict(sft_settings(course)),
        "rounds": ROUNDS,
        "examples": course.profile.spin_examples,
        "seeds": SEEDS,
        "prompts": "test",
    }
