"""Learning from preferences in the course's pipeline: from the SFT run, measured by gold.

The sweep `betas` records what each method's beta was chosen from, on the validation prompts. The
sweep `preference` then records every method on the same pairs with three seeds, on the test
prompts, each run in a fresh process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from course_utils import data, models, reward, runs
from course_utils.costs import in_fresh_process, load_libraries, spent
from course_utils.evaluation import Evaluation, evaluate, rate_interval
from course_utils.preference.batches import Batch, collate_pairs, pad_batch, response_logprobs
from course_utils.preference.pairs import unpair
from course_utils.preference.training import PreferenceSettings
from course_utils.preference.training import train as train_on_pairs
from course_utils.processes import is_sharded
from course_utils.trainers import History

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course

SEEDS = (0, 1, 2)
METHODS = ("dpo", "hinge", "ipo", "kto", "orpo", "simpo")  # each with the profile's beta
BETAS = (0.02, 0.5)  # of DPO, beside the profile's own
# What each method's beta was chosen from, on the validation prompts: the sweep `betas`.
GRID = {
    "dpo": (0.1, 0.2, 0.4),
    "ipo": (0.25, 0.5, 1.0),
    "kto": (0.1, 0.3, 1.0),
    "orpo": (0.1, 0.3, 1.0),
    "simpo": (5.0, 12.0, 30.0),
}
NO_ODDS = 1e-6  # ORPO's beta where only its likelihood term is wanted
FROM_BASE = ("orpo",)  # learns to answer and to prefer at once
RLHF = ("reward", "ppo")  # stages of `runs` whose time and memory stand beside the methods'
TRAINERS = ("DPOTrainer", "KTOTrainer", "RewardTrainer")  # of TRL, which training here uses
ROWS = 32  # at most so many pairs or answers in one forward pass without gradients


# Training


def train_pairs(course: Course, seed: int = 0, count: int | None = None) -> Dataset:
    """The first `count` training pairs (None: the profile's `dpo_pairs`), shuffled by `seed`."""
    rows = data.load_preferences(course, "train").shuffle(seed=seed)
    count = count or pair_count(course)
    return rows.select(range(min(count, len(rows)))) if count else rows


def pair_count(course: Course) -> int | None:
    """How many pairs a run is trained on; None for all of them."""
    return course.pick(full=course.profile.dpo_pairs, small=64)


def train(
    course: Course,
    method: str = "dpo",
    *,
    start: Path | None = None,
    settings: PreferenceSettings | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
    seed: int = 0,
    out: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, History]:
    """Train the SFT run on preferences, or for ORPO the base model; see `preference.train`.

    Args:
        start: a run's folder; None takes the course's SFT run, or the base model for `FROM_BASE`.
            Its adapter, if it has one, is merged first: the reference of a LoRA policy is the
            model without *its* adapter.
        settings: None takes `PreferenceSettings.of` the method.
        rows: None takes `train_pairs`.
        out: where to save the result, an adapter merged, so that the folder can be loaded alone.
            Weights spread over several processes cannot be merged: then the adapter is saved, with
            the run it belongs onto.
    """
    settings = settings or PreferenceSettings.of(course, method)
    if start is None and method in FROM_BASE:
        model, tokenizer = models.load_base(course)
    else:
        start = start or runs.ensure("sft", course, course.seed)
        model, tokenizer = models.load_merged(start, course)
    rows = train_pairs(course, seed) if rows is None else rows
    sharded = is_sharded()
    trained, history = train_on_pairs(
        course,
        model,
        tokenizer,
        rows,
        settings,
        method=method,
        seed=seed,
        out=out if sharded else None,
        start=start if settings.adapter == "lora" else None,
        on_step=on_step,
    )
    if out is not None and not sharded:
        trained = models.merged(trained)
        models.save(trained, tokenizer, out)
    return trained, tokenizer, history


# Measuring


@torch.no_grad()
def pair_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, Any]],
    max_length: int | None = None,
) -> np.ndarray:
    """(2, N): summed log-probabilities of the chosen and of the rejected side of each pair."""
    pairs = list(rows)
    sums = np.zeros((2, len(pairs)))
    by_length = np.argsort(
        [len(r["prompt"]) + len(r["chosen"]) + len(r["rejected"]) for r in pairs]
    )
    for places in np.array_split(by_length, -(-len(pairs) // _at_once(model))):
        batch = collate_pairs([pairs[i] for i in places], tokenizer, model.device, max_length)
        both, _ = response_logprobs(
            model, batch.input_ids, batch.attention_mask, batch.response_mask
        )
        sums[:, places] = both.float().cpu().reshape(2, -1).numpy()
    return sums


def _at_once(model: PreTrainedModel) -> int:
    """`ROWS`, or fewer where a large vocabulary makes the logits fill the memory."""
    return max(1, min(ROWS, ROWS * 8192 // model.config.vocab_size))


@torch.no_grad()
def mean_kl(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[Sequence[int]],
) -> float:
    """Mean over responses of log policy - log reference, in nats per response.

    The estimate k1 of `ppo.pipeline.mean_kl`, for two plain models.

    Args:
        responses: token ids as sampled from `policy`, an EOS included where there is one.
    """
    total, rows = 0.0, _at_once(policy)
    for start in range(0, len(prompts), rows):
        queries = tokenizer(list(prompts[start : start + rows]))["input_ids"]
        batch = _joined(queries, responses[start : start + rows], tokenizer, policy.device)
        given = batch.input_ids, batch.attention_mask, batch.response_mask
        total += float(
            (response_logprobs(policy, *given)[0] - response_logprobs(reference, *given)[0]).sum()
        )
    return total / len(prompts)


def _joined(
    queries: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Batch:
    """Token ids of prompts and responses as a batch, padded on the right."""
    rows = [torch.tensor([*q, *r]) for q, r in zip(queries, responses, strict=True)]
    kept = [
        torch.tensor([False] * len(q) + [True] * len(r))
        for q, r in zip(queries, responses, strict=True)
    ]
    return pad_batch(rows, kept, tokenizer, device)


@dataclass(frozen=True)
class WinRate:
    """How often A beats B on the same prompt.

    Attributes:
        wins, ties, losses: prompts.
    """

    wins: int
    ties: int
    losses: int

    @property
    def rate(self) -> float:
        """Share of wins among the prompts that are no tie; 0.5 where all are ties."""
        decided = self.wins + self.losses
        return self.wins / decided if decided else 0.5

    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of `rate`; 0 to 1 where all are ties."""
        decided = self.wins + self.losses
        return rate_interval(self.wins, decided) if decided else (0.0, 1.0)

    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"wins {self.wins}, ties {self.ties}, losses {self.losses}: "
            f"{self.rate:.0%} of the decided ones [{low:.0%}, {high:.0%}]"
        )


def win_rate(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> WinRate:
    """Compare scores of the same prompts, (N,) each; equal scores are ties."""
    gap = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return WinRate(int((gap > 0).sum()), int((gap == 0).sum()), int((gap < 0).sum()))


# The sweep


@dataclass(frozen=True)
class Variant:
    """One kind of run in the sweeps.

    Attributes:
        name: the row's ``method``.
        method: one of `TRAINABLE`.
        beta: of the method.
        thumbs_down: KTO only, the share of the thumbs down that is kept.
        undesirable_weight: KTO only.
    """

    name: str
    method: str
    beta: float
    thumbs_down: float = 1.0
    undesirable_weight: float = 1.0


def variant_of(course: Course, method: str, beta: float | None = None) -> Variant:
    """A method as it is, with the profile's beta scaled to it unless another one is given."""
    return Variant(method, method, beta or PreferenceSettings.of(course, method).beta)


def settings_of(course: Course, variant: Variant) -> PreferenceSettings:
    """The settings of a run of that kind."""
    return replace(
        PreferenceSettings.of(course, variant.method),
        beta=variant.beta,
        undesirable_weight=variant.undesirable_weight,
    )


def rows_of(course: Course, variant: Variant, seed: int) -> list[dict[str, Any]]:
    """What a run of that kind is trained on."""
    rows = [dict(row) for row in train_pairs(course, seed)]
    if variant.thumbs_down == 1:
        return rows
    thumbs = unpair(rows)
    down = [row for row in thumbs if not row["label"]]
    return [row for row in thumbs if row["label"]] + down[: round(variant.thumbs_down * len(down))]


def preference_row(
    course: Course, variant: Variant, seed: int = 0, split: str = "test"
) -> dict[str, Any]:
    """Train once and measure on held-out prompts and pairs.

    Args:
        split: of the prompts and of the pairs: ``test``, or ``validation`` for choices.

    Returns:
        What `_answers` says, and ``kl``: nats per response from the SFT model;
        ``chosen``, ``rejected``: mean summed log-probability of that side of the held-out pairs, in
        the SFT model and after; ``agrees``: how often their implicit reward agrees with gold.
    """
    sft = runs.ensure("sft", course, course.seed)
    settings, rows = settings_of(course, variant), rows_of(course, variant, seed)
    model, tokenizer, _ = train(course, variant.method, settings=settings, rows=rows, seed=seed)
    reference, _ = models.load_merged(sft, course)
    cases = data.load_prompts(course, split)
    result = evaluate(course, model, tokenizer, cases, temperature=1.0, seed=seed)
    prompts = [data.prompt_of(case) for case in result.cases]
    kl = mean_kl(model, reference, tokenizer, prompts, [r.tokens for r in result.responses])
    held_out = data.load_preferences(course, split)
    before, after = (
        pair_logprobs(m, tokenizer, held_out, settings.max_length) for m in (reference, model)
    )
    gaps = after - before  # implicit rewards, up to beta
    return {
        "method": variant.name,
        "beta": variant.beta,
        "seed": seed,
        "examples": len(rows),
        **_answers(result),
        "kl": round(kl, 4),
        "chosen": [round(float(sums[0].mean()), 3) for sums in (before, after)],
        "rejected": [round(float(sums[1].mean()), 3) for sums in (before, after)],
        "agrees": round(reward.clean_accuracy(gaps[0] - gaps[1], held_out), 4),
    }


def sft_row(course: Course, seed: int) -> dict[str, Any]:
    """The SFT model on the test prompts, sampled with `seed`: what the others are compared with."""
    model, tokenizer = models.load(runs.ensure("sft", course, course.seed), course)
    result = evaluate(course, model, tokenizer, data.load_prompts(course, "test"), seed=seed)
    return {"method": "sft", "seed": seed, **_answers(result)}


def cost_row(course: Course, name: str) -> dict[str, Any]:
    """Time and memory of one training, which is thrown away; seed 0. Memory is this process's.

    Args:
        name: one of `METHODS` or of `RLHF`. For ``ppo`` the seconds are PPO's own; the reward
            model's are those of ``reward``.
    """
    training = _stage(course, name) if name in RLHF else partial(train, course, name)
    runs.ensure("sft", course, course.seed)
    libraries = load_libraries(TRAINERS)
    began = time.perf_counter()
    training()
    return {"method": name, "seed": 0, **spent(began, libraries)}


def _stage(course: Course, name: str) -> Callable[[], None]:
    """Training a stage of `runs` for nothing; what it needs is there."""
    stage = runs.get_stage(name)
    for need in stage.needs:
        runs.ensure(need, course, 0)

    def training() -> None:
        with TemporaryDirectory() as scratch:
            stage.train(course, Path(scratch), 0, lambda done, total: None)

    return training


def _answers(result: Evaluation) -> dict[str, Any]:
    """``test``: gold per prompt; ``length``: mean tokens; ``finished``: share that ended itself."""
    responses = result.responses
    return {
        "test": [round(float(v), 3) for v in result.values],
        "length": round(sum(len(r.tokens) for r in responses) / len(responses), 2),
        "finished": round(sum(r.finished for r in responses) / len(responses), 4),
    }


def variants(course: Course) -> list[Variant]:
    """The sweep's kinds of run: all methods, DPO's other betas, ORPO's control, KTO with few downs.

    The control is SFT of the base model on the chosen responses: ORPO with nearly no odds ratio.
    With a quarter of the thumbs down, a weight of 3 makes the ups weigh 4/3 of the downs, the most
    that Ethayarajh et al. 2024 (arXiv 2402.01306) recommend.
    """
    kto = variant_of(course, "kto")
    return [
        *(variant_of(course, method) for method in METHODS),
        *(variant_of(course, "dpo", beta) for beta in BETAS),
        Variant("chosen_only", "orpo", NO_ODDS),
        replace(kto, name="kto_few_down", thumbs_down=0.25),
        replace(kto, name="kto_weighted", thumbs_down=0.25, undesirable_weight=3.0),
    ]


def beta_rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep `betas`: one seed, on the validation prompts."""
    for method, betas in GRID.items():
        for beta in betas:
            variant = variant_of(course, method, beta)
            yield in_fresh_process(preference_row, course, variant, 0, "validation")


def beta_configuration(course: Course) -> dict[str, Any]:
    """What that record's header says."""
    return {
        "settings": {method: asdict(PreferenceSettings.of(course, method)) for method in GRID},
        "grid": GRID,
        "pairs": course.profile.dpo_pairs,
        "preferences": runs.preference_fingerprint(course),
        "prompts": "validation",
    }


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep `preference`, each in a fresh process."""
    for seed in SEEDS:
        yield in_fresh_process(sft_row, course, seed)
    for name in (*RLHF, *METHODS):
        yield in_fresh_process(cost_row, course, name)
    for variant in variants(course):
        for seed in SEEDS:
            yield in_fresh_process(preference_row, course, variant, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says."""
    return {
        "settings": {method: asdict(PreferenceSettings.of(course, method)) for method in METHODS},
        "variants": [asdict(variant) for variant in variants(course)],
        "pairs": course.profile.dpo_pairs,
        "seeds": SEEDS,
        "preferences": runs.preference_fingerprint(course),
        "prompts": "test",
    }
