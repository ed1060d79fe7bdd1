"""The reward model: one number per answer, learnt from pairs of which people preferred one.

A language model whose last layer is replaced by a single output reads prompt and answer, and its
output at the answer's last token is the score. Training makes the score of the chosen answer larger
than that of the rejected one, with the choice model of Bradley & Terry 1952 ("Rank analysis of
incomplete block designs", Biometrika 39) as in Ouyang et al. 2022 (arXiv 2203.02155, equation 1).
Training goes through TRL's `RewardTrainer`; what it does is written out here and compared by tests.

Simplifications, on purpose:

1. two answers per prompt, each pair by itself; Ouyang et al. rank four to nine answers and put all
   their pairs into one batch;
2. a score is read at the EOS. Where a tokenizer has no padding token of its own, another special
   token pads: `LlamaForSequenceClassification` finds the answer's end by looking for padding;
3. what does not fit into `max_length` loses the beginning of its prompt; an answer is never cut;
4. an answer that was cut off by its budget is scored as if it had ended (the EOS is added). What a
   missing EOS costs is the business of who samples: see PPO.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import data, models
from .errors import CourseError
from .processes import is_sharded
from .room import in_batches
from .trainers import (
    History,
    TrainingSettings,
    common_arguments,
    profile_settings,
    run,
    whole_weights,
)
from .world.preferences import majority_probability

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import RewardConfig, RewardTrainer

    from ._setup import Course
    from .world.cases import Case

CARD = "reward.json"  # beside the weights: what a score is centred by, and what training began from
PAIR_COLUMNS = ("prompt", "chosen", "rejected")
CENTRED_ON = 500  # pairs whose mean score is called zero
EVALUATIONS = 5  # how often a run looks at the held-out pairs

Scorer = Callable[[Sequence[str], Sequence[str]], list[float]]


@dataclass(frozen=True)
class RewardSettings(TrainingSettings):
    """The recipe of one reward model. In both kinds of adapter the new output is trained.

    Few epochs: a reward model soon knows its pairs by heart.

    Attributes:
        use_margin: ask for a difference of at least the pair's ``margin`` (Touvron et al. 2023,
            arXiv 2307.09288, equation 2).
        center: weight of (chosen + rejected)², which keeps the scores around zero (Eisenstein et
            al. 2023, arXiv 2312.09244, equation 2); 0 leaves it out.
    """

    learning_rate: float = 5e-4
    use_margin: bool = False
    center: float = 0.0

    @classmethod
    def of(cls, course: Course) -> RewardSettings:
        """The profile's settings."""
        p = course.profile
        return cls(**profile_settings(course, p.reward_epochs, p.reward_learning_rate))


# Models


def new_reward_model(
    path: str | Path, course: Course, *, seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An untrained reward model with the body of the language model at `path`.

    Args:
        path: a trained run (`runs.ensure("sft", course)`; a LoRA adapter is merged first) or a
            base model (`models.base_path(course)`).
        seed: decides the weights of the new output, the only random ones.

    Returns:
        The model, an `AutoModelForSequenceClassification` with one label, and its tokenizer.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    language_model, tokenizer = models.load_merged(path, course)
    _pad_apart(tokenizer)
    config = copy.deepcopy(language_model.config)
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id
    with torch.device("meta"):  # the shape alone; the weights come from the language model
        model = AutoModelForSequenceClassification.from_config(config)
    setattr(model, model.base_model_prefix, language_model.base_model)
    model.score = _new_head(model.score.in_features, language_model, seed)
    for name in ("is_quantized", "is_loaded_in_4bit", "quantization_method", "hf_quantizer"):
        if hasattr(language_model, name):  # trainers ask for these before they touch the weights
            setattr(model, name, getattr(language_model, name))
    model.started_from = str(path)  # `save` notes it: an adapter is loaded onto the same start
    return model.eval(), tokenizer


def _new_head(width: int, language_model: PreTrainedModel, seed: int) -> torch.nn.Linear:
    """The single output, drawn from N(0, 1/(width + 1)) as in Stiennon et al. 2020."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, width, generator=generator) / (width + 1) ** 0.5
    head = torch.nn.Linear(width, 1, bias=False, device="cpu")
    head.weight.data = weight
    return head.to(device=language_model.device, dtype=language_model.dtype)


def _pad_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give padding another token than the EOS, which a score is read at."""
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    others = [token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token]
    if others:  # else the score is read one token before the EOS, in training and after it
        tokenizer.pad_token = others[0]


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    center: float = 0.0,
    weights: dict[str, Any] | None = None,
) -> None:
    """Write a reward model (or its adapter), its tokenizer and its centre; see `models.save`."""
    models.save(model, tokenizer, folder, weights)
    start = getattr(model, "started_from", "")
    if os.path.isdir(start):  # relative, so that runs can be moved together
        start = os.path.relpath(start, folder)
    (folder / CARD).write_text(json.dumps({"center": center, "start": start}) + "\n")


def _card(folder: Path) -> dict[str, Any]:
    if not (folder / CARD).is_file():
        raise CourseError(
            f"There is no reward model in {folder.name}/: "
            'train one with `runs.ensure("reward", course)`.'
        )
    card: dict[str, Any] = json.loads((folder / CARD).read_text())
    return card


def load_reward_model(
    path: str | Path, course: Course
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer that `save` (or `train` with `out`) wrote.

    Raises:
        CourseError: the folder holds no reward model.
    """
    from transformers import AutoModelForSequenceClassification

    folder = Path(path)
    card = _card(folder)
    tokenizer = models.load_tokenizer(folder)
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        start = folder / card["start"]
        base, _ = new_reward_model(start if start.is_dir() else card["start"], course)
        return PeftModel.from_pretrained(base, folder).eval(), tokenizer
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=course.torch_dtype)
    return model.to(course.device).eval(), tokenizer


# Pairs and loss


def answer_ids(
    prompt: str, response: str, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[int]:
    """Token ids of prompt + response + EOS, as one text.

    What is longer than `max_length` loses the beginning of its prompt (a BOS token stays).

    Raises:
        CourseError: the response alone is longer than that.
    """
    ids = tokenizer(_whole(prompt, response, tokenizer))["input_ids"]
    return _cut(ids, prompt, response, tokenizer, max_length)


def _whole(prompt: str, response: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that is scored; it ends with one EOS."""
    return prompt + response.removesuffix(tokenizer.eos_token) + tokenizer.eos_token


def _cut(
    ids: list[int],
    prompt: str,
    response: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> list[int]:
    excess = len(ids) - max_length
    if excess <= 0:
        return ids
    _, labels = data.mask_prompt(prompt, response.removesuffix(tokenizer.eos_token), tokenizer)
    kept = int(ids[0] == tokenizer.bos_token_id)
    prompt_tokens = labels.count(data.IGNORE) - kept
    if excess > prompt_tokens:
        raise CourseError(
            f"A response of {len(ids) - prompt_tokens - kept} tokens does not fit into "
            f"max_length={max_length}: shorten it or raise max_length."
        )
    return ids[:kept] + ids[kept + excess :]


def pair_ids(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[int], list[int]]:
    """(chosen_ids, rejected_ids) of one pair: prompt + answer + EOS, twice."""
    chosen, rejected = (
        answer_ids(row["prompt"], row[side], tokenizer, max_length)
        for side in ("chosen", "rejected")
    )
    return chosen, rejected


def bradley_terry_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, margin: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """Mean of -log σ(chosen - rejected - margin) over the pairs; a scalar.

    P(chosen is preferred) = σ(chosen - rejected), Bradley & Terry 1952; Ouyang et al. 2022,
    equation 1; the margin from Touvron et al. 2023, equation 2. Only differences enter: the same
    number added to both scores of a prompt changes nothing.

    Args:
        chosen: (N,) scores of the chosen answers.
        rejected: (N,) scores of the rejected ones.
        margin: one number or (N,).

    Raises:
        CourseError: shapes that do not fit; broadcasting would mix up the pairs.
    """
    from torch.nn.functional import logsigmoid

    shapes = [tuple(chosen.shape), tuple(rejected.shape)]
    if not isinstance(margin, float | int) and margin.dim() > 0:
        shapes.append(tuple(margin.shape))
    if chosen.dim() != 1 or len(set(shapes)) > 1:
        raise CourseError(
            f"bradley_terry_loss needs vectors of one length, got {', '.join(map(str, shapes))}."
        )
    return -logsigmoid(chosen - rejected - margin).mean()


# Training


def usable_pairs(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    margin: bool = False,
) -> list[dict[str, Any]]:
    """Tokenised pairs in TRL's columns: chosen_ids, rejected_ids, length, and margin if asked for.

    Pairs with equal sides, an empty text or a response that does not fit are left out; a warning
    counts them.

    Raises:
        CourseError: a missing column, or nothing left to learn from.
    """
    wanted = (*PAIR_COLUMNS, *(("margin",) if margin else ()))
    pairs: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        _require_columns(row, wanted)
        problem = _problem(row)
        if problem is None:
            try:
                chosen, rejected = pair_ids(row, tokenizer, max_length)
            except CourseError:
                problem = f"a response longer than {max_length} tokens"
        if problem is not None:
            left_out[problem] += 1
            continue
        longer = max(len(chosen), len(rejected))
        pair = {"chosen_ids": chosen, "rejected_ids": rejected, "length": longer}
        pairs.append({**pair, "margin": float(row["margin"])} if margin else pair)
    _report(left_out, len(pairs))
    return pairs


def _require_columns(row: Mapping[str, Any], wanted: Sequence[str]) -> None:
    absent = [name for name in wanted if name not in row]
    if absent:
        raise CourseError(
            f"Preference pairs need the columns {', '.join(wanted)}; missing: {', '.join(absent)}."
        )


def _problem(row: Mapping[str, Any]) -> str | None:
    """Why nothing can be learnt from a pair."""
    texts = [row[name] for name in PAIR_COLUMNS]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return "an empty text"
    if row["chosen"].strip() == row["rejected"].strip():
        return "equal sides"
    return None


def _report(left_out: Counter[str], kept: int) -> None:
    if not left_out and kept:
        return
    counts = ", ".join(f"{count} with {why}" for why, count in left_out.items()) or "none given"
    if not kept:
        raise CourseError(f"No preference pair is left to train on ({counts}).")
    total = kept + left_out.total()
    warnings.warn(f"{left_out.total()} of {total} pairs were left out: {counts}.", stacklevel=4)


def training_arguments(
    course: Course, settings: RewardSettings, out: str, seed: int, evaluate: bool = False
) -> RewardConfig:
    """TRL's configuration for these settings."""
    from trl import RewardConfig

    return RewardConfig(
        **common_arguments(course, settings, out, seed),
        center_rewards_coefficient=settings.center or None,
        train_sampling_strategy="group_by_length",  # half of a random batch would be padding
        remove_unused_columns=False,  # or `length`, which that sorts by, is gone too early
        per_device_eval_batch_size=settings.batch_size,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=1 / EVALUATIONS if evaluate else None,  # below 1 it is a share of all steps
    )


def make_trainer(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: RewardSettings,
    *,
    out: str,
    seed: int = 0,
    eval_rows: Dataset | None = None,
) -> RewardTrainer:
    """A `RewardTrainer` over the pairs of `rows`. Nothing is trained yet.

    Columns beside prompt, chosen, rejected (and margin, where settings ask for it) are not shown
    to the trainer: gold among them.
    """
    from datasets import Dataset
    from trl import RewardTrainer

    def tokenised(pairs: Dataset) -> Dataset:
        return Dataset.from_list(
            usable_pairs(pairs, tokenizer, settings.max_length, settings.use_margin)
        )

    return RewardTrainer(
        model=model,
        args=training_arguments(course, settings, out, seed, eval_rows is not None),
        train_dataset=tokenised(rows),
        eval_dataset=tokenised(eval_rows) if eval_rows is not None else None,
        processing_class=tokenizer,
        peft_config=_adapter(settings.lora_rank) if settings.adapter == "lora" else None,
    )


def _adapter(rank: int) -> Any:
    """The course's LoRA; for this kind of task peft trains the new output as a whole."""
    from peft import TaskType

    config = models.lora_config(rank)
    config.task_type = TaskType.SEQ_CLS
    return config


def train(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: RewardSettings | None = None,
    *,
    seed: int = 0,
    eval_rows: Dataset | None = None,
    out: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, History]:
    """Train `model` in place on preference pairs and return it with its history.

    Args:
        rows: prompt, chosen, rejected, see `data.load_preferences`.
        eval_rows: held-out pairs, looked at five times during training.
        out: where to save the result with its centre; None keeps it in memory.
        on_step: called with (steps done, steps in all), for a progress bar.

    Returns:
        The model, and rows of two kinds: ``step, loss, learning_rate, accuracy`` (on the training
        pairs since the last row) and, with `eval_rows`, ``step, eval_loss, eval_accuracy``.
    """
    settings = settings or RewardSettings.of(course)
    trainer, trained = run(
        lambda scratch, fitted: make_trainer(
            course, model, tokenizer, rows, fitted, out=scratch, seed=seed, eval_rows=eval_rows
        ),
        settings,
        model,
        on_step=on_step,
    )
    if out is not None:
        seen = trainer.train_dataset[:CENTRED_ON]  # without the pairs that were left out
        whole = trainer.model_wrapped if is_sharded() else trained  # computes with all shares
        scores = _score_ids(whole, [*seen["chosen_ids"], *seen["rejected_ids"]])
        center = sum(scores) / len(scores)
        save(trained, tokenizer, out, center, whole_weights(trainer))
    return trained, _history(trainer.state.log_history)


def _history(log: list[dict[str, float]]) -> History:
    kinds = (("step", "loss", "learning_rate", "accuracy"), ("step", "eval_loss", "eval_accuracy"))
    return [{k: row[k] for k in names} for row in log for names in kinds if names[1] in row]


# Scores


def get_reward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, response: str
) -> float:
    """The score of one response to one prompt (the whole prompt, template included)."""
    import torch

    ids = answer_ids(prompt, response, tokenizer, _longest(model))
    with _scoring(model), torch.no_grad():
        output = model(input_ids=torch.tensor([ids], device=model.device))
    return float(output.logits[0, 0])


def get_rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    batch_size: int = 64,
    max_length: int | None = None,
) -> list[float]:
    """The scores of many responses, in the order given: the same as one at a time, but faster.

    Texts of like length share a batch, so that little of it is padding. Padding stands on the right
    and is masked; no token looks at what comes after it, so no score depends on its neighbours.

    Args:
        prompts, responses: one response per prompt. A response may be empty.
        max_length: tokens of prompt and response together; None takes what the model can read.
            Longer ones lose the beginning of their prompt.

    Raises:
        CourseError: not as many prompts as responses, or a response longer than `max_length`.
    """
    if len(prompts) != len(responses):
        raise CourseError(
            f"There are {len(prompts)} prompts and {len(responses)} responses: "
            "give one response per prompt."
        )
    if not prompts:
        return []
    limit = max_length or _longest(model)
    pairs = list(zip(prompts, responses, strict=True))
    whole = tokenizer([_whole(p, r, tokenizer) for p, r in pairs])["input_ids"]
    rows = [_cut(ids, p, r, tokenizer, limit) for ids, (p, r) in zip(whole, pairs, strict=True)]
    return _score_ids(model, rows, batch_size)


def _score_ids(
    model: PreTrainedModel, rows: Sequence[list[int]], batch_size: int = 64
) -> list[float]:
    """The scores of tokenised texts, in the order given; texts of like length share a batch."""
    import torch

    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    scores: dict[int, float] = {}

    def score(which: slice) -> None:
        indices = order[which]
        logits = model(**_right_pad([rows[i] for i in indices], model)).logits
        scores.update(zip(indices, logits[:, 0].float().tolist(), strict=True))

    with _scoring(model), torch.no_grad():
        in_batches(score, len(order), batch_size)
    return [scores[i] for i in range(len(rows))]


def _longest(model: PreTrainedModel) -> int:
    """How many tokens the model can read."""
    return int(model.config.get_text_config().max_position_embeddings)


@contextmanager
def _scoring(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off for the time of a `with` block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _right_pad(rows: list[list[int]], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask (B, T), with the padding that the model looks for."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(row) for row in rows]
    pad = model.config.get_text_config().pad_token_id
    return {
        "input_ids": pad_sequence(ids, True, padding_value=pad).to(model.device),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], True).to(model.device),
    }


def reward_fn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    center: float = 0.0,
    *,
    batch_size: int = 64,
) -> Scorer:
    """The scorer that PPO and best-of-n take: (prompts, responses) -> scores less `center`.

    Scores matter only up to a constant. With the mean over known answers as `center` (see
    `mean_score`), zero means as good as those.
    """

    def scores(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        found = get_rewards(model, tokenizer, prompts, responses, batch_size=batch_size)
        return [score - center for score in found]

    return scores


def load_scorer(path: str | Path, course: Course) -> Scorer:
    """The centred scorer of a saved reward model: ``load_scorer(ensure("reward", course), ...)``.

    Raises:
        CourseError: the folder holds no reward model.
    """
    model, tokenizer = load_reward_model(path, course)
    return reward_fn(model, tokenizer, center_of(path))


def center_of(path: str | Path) -> float:
    """The mean score of the answers a saved reward model was trained on."""
    return float(_card(Path(path))["center"])


def mean_score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, Any]],
    *,
    max_length: int | None = None,
) -> float:
    """Mean score over the chosen and the rejected answers of `rows`."""
    return float(_pair_scores(model, tokenizer, rows, max_length).mean())


def pair_margins(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, Any]],
    *,
    max_length: int | None = None,
) -> np.ndarray:
    """Score of chosen less score of rejected, (N,): what accuracy and calibration are made of.

    Raises:
        CourseError: a missing column, or no pair.
    """
    chosen, rejected = _pair_scores(model, tokenizer, rows, max_length)
    difference: np.ndarray = chosen - rejected
    return difference


def _pair_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, Any]],
    max_length: int | None,
) -> np.ndarray:
    """(2, N): scores of the chosen and of the rejected answers."""
    import numpy as np

    pairs = list(rows)
    if not pairs:
        raise CourseError("There is no pair to score.")
    for row in pairs:
        _require_columns(row, PAIR_COLUMNS)
    prompts = [row["prompt"] for row in pairs] * 2
    answers = [row["chosen"] for row in pairs] + [row["rejected"] for row in pairs]
    scores = get_rewards(model, tokenizer, prompts, answers, max_length=max_length)
    return np.array(scores).reshape(2, len(pairs))


# Measuring


def accuracy(margins: Sequence[float] | np.ndarray) -> float:
    """Share of pairs whose chosen side scores higher; a tie counts half."""
    import numpy as np

    values = np.asarray(margins, dtype=float)
    return float((values > 0).mean() + (values == 0).mean() / 2)


def clean_accuracy(
    margins: Sequence[float] | np.ndarray, rows: Iterable[Mapping[str, Any]]
) -> float:
    """How often the side with the higher score is the one gold prefers; gold's ties are left out.

    Args:
        margins: (N,), score of chosen less score of rejected, whoever chose.
        rows: the N pairs, with their gold.
    """
    import numpy as np

    gold = np.array([row["gold_chosen"] - row["gold_rejected"] for row in rows])
    clear = np.abs(gold) >= data.GOLD_TIE
    return accuracy((np.asarray(margins, dtype=float) * np.sign(gold))[clear])


@dataclass(frozen=True)
class Calibration:
    """Per bin, each (K,): what the model claimed, what came true, and of how many pairs."""

    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray


def calibration(margins: Sequence[float] | np.ndarray, bins: int = 5) -> Calibration:
    """How often the side that the model prefers is the chosen one, beside how sure it was.

    Sure means σ(|margin|), from 0.5 to 1. The bins are equally wide there; empty ones are left out.

    Args:
        margins: (N,) from `pair_margins`.
        bins: at most so many.
    """
    import numpy as np

    values = np.asarray(margins, dtype=float)
    sure = 1 / (1 + np.exp(-np.abs(values)))
    right = (values > 0) + (values == 0) / 2
    which = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    filled = [which == k for k in range(bins) if (which == k).any()]
    return Calibration(
        np.array([sure[f].mean() for f in filled]),
        np.array([right[f].mean() for f in filled]),
        np.array([f.sum() for f in filled]),
    )


def gold_agreement(rows: Iterable[Mapping[str, Any]]) -> float:
    """Share of pairs whose chosen side is better in gold; equal gold counts half."""
    return accuracy([row["gold_chosen"] - row["gold_rejected"] for row in rows])


@dataclass(frozen=True)
class NoiseCeiling:
    """Accuracies on noisy labels that no learner should be expected to pass.

    Attributes:
        gold: of someone who knows gold, and so errs wherever the annotators did.
        repeat: of another panel of the same annotators, labelling the same pairs afresh.
        habits: of someone who knows gold and every annotator's habits, and always names the side
            that a panel is more likely to choose. Nobody can expect to do better.
    """

    gold: float
    repeat: float
    habits: float


def noise_ceiling(rows: Iterable[Mapping[str, Any]], cases: Iterable[Case]) -> NoiseCeiling:
    """The ceilings on these labels. The annotators are simulated, so the last two are exact.

    Args:
        rows: voted pairs, from `data.load_preferences`.
        cases: what the pairs' prompts are about, from `data.load_prompts`: split ``rl`` for the
            training pairs, ``validation`` and ``test`` for the others.

    Raises:
        CourseError: a pair whose prompt is not among `cases`.
    """
    pairs = list(rows)
    by_id = {case.case_id: case for case in cases}
    chances = []
    for row in pairs:
        if row["case_id"] not in by_id:
            raise CourseError(
                f"No case has the id {row['case_id']!r}: give the prompts of the pairs' own split "
                "('rl' for the training pairs)."
            )
        case = by_id[row["case_id"]]
        chances.append(majority_probability(case, row["chosen"], row["rejected"]))
    return NoiseCeiling(
        gold=gold_agreement(pairs),
        repeat=sum(chances) / len(chances),
        habits=accuracy([chance - 0.5 for chance in chances]),
    )
