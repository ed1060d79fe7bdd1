"""RLOO and GRPO through TRL, and PPO through the course's own trainer, on the same reward.

All three sample the same number of responses to prompts of the same pool and go through each batch
of responses the same number of times. Deliberate simplifications:

1. TRL's trainers generate with transformers; on a GPU one would let vLLM do it.
2. The reference is the SFT model. In RLOO and PPO the KL from it is a part of the reward; in GRPO
   it stands in the loss (k3 of chapter 05).
3. RLOO's loss is TRL's: the ratio of whole responses, clipped. With one update per sample, as the
   paper would have it, the ratio is 1 and the loss that of REINFORCE.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import data, models, runs
from course_utils.errors import CourseError, unknown_name
from course_utils.rl.advantages import flat_groups
from course_utils.rl.verify import Batch, Checker, training_cases
from course_utils.trainers import TrainingSettings, common_arguments, profile_settings, run
from course_utils.world import gold
from course_utils.world.cases import Case

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

    from course_utils._setup import Course
    from course_utils.ppo import PPOConfig

GROUPED = ("rloo", "grpo")
METHODS = (*GROUPED, "ppo")
# The price of one nat of KL. In GRPO it is a weight in a loss of another scale; 0.04 is the
# paper's.
BETAS = {"rloo": 0.02, "grpo": 0.04, "ppo": 0.02}
History = list[dict[str, Any]]


@dataclass(frozen=True)
class RLSettings(TrainingSettings):
    """The recipe of one run.

    Attributes:
        batches: how often responses are sampled.
        responses: how many at a time, over all prompts.
        group: responses to one prompt; PPO samples one to each.
        epochs: how often each batch of responses is gone through.
        batch_size: responses per optimiser step, times `accumulation`.
        beta: price of the KL from the reference, see `BETAS`.
        cliprange: of the probability ratio.
    """

    batches: int = 30
    responses: int = 64
    group: int = 4
    beta: float = 0.02
    cliprange: float = 0.2

    @classmethod
    def of(cls, course: Course, method: str = "rloo") -> RLSettings:
        """The profile's settings: PPO's with groups, a shorter run, and larger steps."""
        _require_method(method)
        p = course.profile
        return cls(
            **{
                **profile_settings(course, p.ppo_epochs, 3 * p.ppo_learning_rate),
                "batch_size": course.pick(full=p.ppo_mini_batch_size * p.ppo_accumulation, small=8),
                "accumulation": 1,
            },
            batches=course.pick(full=min(30, p.ppo_steps), small=2),
            responses=course.pick(full=p.ppo_batch_size, small=16),
            group=4,
            beta=BETAS[method],
        )

    @property
    def samples(self) -> int:
        """Responses in all."""
        return self.batches * self.responses

    @property
    def updates(self) -> int:
        """Optimiser steps per batch of responses."""
        return self.epochs * (self.responses // (self.batch_size * self.accumulation))

    def check(self) -> None:
        """Raise a CourseError that names the first setting that cannot work."""
        if self.group < 2:
            raise CourseError(
                f"group is {self.group}: a response is compared with others to the same prompt, so "
                "give at least 2."
            )
        step = self.batch_size * self.accumulation
        if self.responses % self.group or self.responses % step:
            raise CourseError(
                f"responses is {self.responses}: it must be a multiple of group ({self.group}) and "
                f"of batch_size x accumulation ({step})."
            )
        if self.batches < 1 or self.beta < 0:
            raise CourseError(
                f"batches is {self.batches} and beta {self.beta}: give at least one batch and a "
                "beta of 0 or more."
            )


def training_arguments(
    course: Course, settings: RLSettings, method: str, out: str, seed: int
) -> Any:
    """TRL's configuration for a method."""
    common = common_arguments(course, settings, out, seed)
    del common["max_length"]  # prompts are short; responses have their own limit
    common |= {
        "max_steps": settings.batches * settings.updates,
        "logging_steps": settings.updates,  # one row per batch of responses
        "logging_first_step": False,
        "num_generations": settings.group,
        "generation_batch_size": settings.responses,
        "num_iterations": settings.epochs,
        "max_completion_length": course.profile.max_new_tokens,
        "temperature": 1.0,
        "beta": settings.beta,
        "epsilon": settings.cliprange,
        "disable_dropout": True,
    }
    if method == "rloo":
        from trl import RLOOConfig

        return RLOOConfig(**common)
    from trl import GRPOConfig

    # The paper's: every response weighs the same, whatever its length. TRL's default is DAPO's.
    return GRPOConfig(**common, loss_type="grpo", scale_rewards="group")


def make_trainer(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    reward: Callable[..., list[float]],
    settings: RLSettings,
    *,
    method: str = "rloo",
    out: str,
    seed: int = 0,
) -> Trainer:
    """TRL's trainer for ``rloo`` or ``grpo``. Nothing is trained yet.

    Args:
        model: from a folder, where TRL loads the reference from once more; an adapter of the
            model's has to be merged, and none is trained then but a new one.
        reward: as TRL calls it, see `Checker.for_trl`.
    """
    from datasets import Dataset

    if method not in GROUPED:
        raise unknown_name("group method", method, GROUPED)
    settings.check()
    prompts = settings.responses // settings.group
    if len(cases) < prompts:  # TRL would stop at once, and say nothing
        raise CourseError(
            f"There are {len(cases)} prompts, and a batch needs {prompts}: give more prompts, "
            "larger groups or fewer responses."
        )
    lora = settings.adapter == "lora"
    home = model.config._name_or_path
    if settings.beta and not lora and not (home and Path(home).is_dir()):
        raise CourseError(
            "TRL loads the reference from the model's own folder, and this model has none: save it "
            "and load it from there, or set beta to 0."
        )
    if method == "rloo":
        from trl import RLOOTrainer as TRLTrainer
    else:
        from trl import GRPOTrainer as TRLTrainer
    return TRLTrainer(
        model=model,
        reward_funcs=reward,
        args=training_arguments(course, settings, method, out, seed),
        train_dataset=Dataset.from_list([{"prompt": data.prompt_of(case)} for case in cases]),
        processing_class=tokenizer,
        peft_config=models.lora_config(settings.lora_rank) if lora else None,
    )


def train(
    course: Course,
    method: str = "rloo",
    settings: RLSettings | None = None,
    *,
    cases: Sequence[Case] | None = None,
    seed: int = 0,
    out: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, History]:
    """Train the SFT run on a reward that a program checks.

    Args:
        method: one of `METHODS`.
        settings: None takes `RLSettings.of` the method.
        cases: the prompts; None takes `training_cases`.
        out: where to save the result, an adapter merged, so that the folder can be loaded alone.
        on_step: called with (steps done, steps in all), for a progress bar.

    Returns:
        Model, tokenizer, and one row per batch of responses: ``samples`` so far, ``reward`` (the
        share that is right), ``gold`` in the closed world (measured, never trained on; a cut
        response counts as a whole one), ``flat`` (the share of groups without a signal; not for
        PPO), ``length`` in tokens, ``kl`` in nats per response, as the trainer logs it (GRPO while
        it updates, the others before).

    Raises:
        CourseError: an unknown method, or settings that cannot work.
    """
    settings = settings or RLSettings.of(course, method)
    _require_method(method)
    settings.check()
    checker = Checker(course, cases or training_cases(course))
    work = _train_ppo if method == "ppo" else _train_grouped
    trained, tokenizer, logged = work(course, method, settings, checker, seed, on_step)
    if out is not None:
        trained = models.merged(trained)
        models.save(trained, tokenizer, out)
    return trained, tokenizer, _history(course, method, settings, checker.batches, logged)


def _train_grouped(
    course: Course,
    method: str,
    settings: RLSettings,
    checker: Checker,
    seed: int,
    on_step: Callable[[int, int], None] | None,
) -> tuple[Any, Any, History]:
    model, tokenizer = models.load_merged(runs.ensure("sft", course, course.seed), course)
    reward = checker.for_trl([tokenizer.eos_token_id])

    def make(scratch: str, fitted: RLSettings) -> Trainer:
        checker.batches.clear()  # of a beginning that ran out of memory
        return make_trainer(
            course,
            model,
            tokenizer,
            list(checker.cases.values()),
            reward,
            fitted,
            method=method,
            out=scratch,
            seed=seed,
        )

    with warnings.catch_warnings():  # TRL asks for an old name, which concerns nobody here
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        trainer, trained = run(make, settings, model, on_step=on_step)
    rows = [row for row in trainer.state.log_history if "completions/mean_length" in row]
    lengths = [row["completions/mean_length"] for row in rows]
    # TRL's is per token.
    kls = [row.get("kl", 0.0) * n for row, n in zip(rows, lengths, strict=True)]
    return (
        trained,
        tokenizer,
        [{"length": n, "kl": kl} for n, kl in zip(lengths, kls, strict=True)],
    )


def ppo_config(course: Course, settings: RLSettings, seed: int = 0) -> PPOConfig:
    """The profile's PPO with these settings: as many responses, epochs and updates."""
    from course_utils.ppo import PPOConfig

    pieces = min(settings.batch_size, course.profile.ppo_mini_batch_size)
    return PPOConfig.of(
        course,
        seed=seed,
        learning_rate=settings.learning_rate,
        batch_size=settings.responses,
        mini_batch_size=pieces,
        gradient_accumulation_steps=settings.batch_size * settings.accumulation // pieces,
        ppo_epochs=settings.epochs,
        init_kl_coef=settings.beta,
        cliprange=settings.cliprange,
    )


def _train_ppo(
    course: Course,
    method: str,
    settings: RLSettings,
    checker: Checker,
    seed: int,
    on_step: Callable[[int, int], None] | None,
) -> tuple[Any, Any, History]:
    from course_utils.ppo import pipeline

    trainer = pipeline.make_trainer(course, ppo_config(course, settings, seed), settings.batches)
    trainer.train(list(checker.cases), checker, settings.batches, on_step=on_step)
    history = [
        {"length": row["response/length"], "kl": row["objective/kl"]} for row in trainer.history
    ]
    return trainer.policy.pretrained_model, trainer.tokenizer, history


def _history(
    course: Course, method: str, settings: RLSettings, batches: Sequence[Batch], logged: History
) -> History:
    """One row per batch of responses."""
    rows: History = []
    for number, (batch, told) in enumerate(zip(batches, logged, strict=True), start=1):
        row: dict[str, Any] = {
            "step": number,
            "samples": number * settings.responses,
            "reward": _mean(batch.right),
            "length": told["length"],
            "kl": told["kl"],
        }
        if course.profile.instructions == "world":
            row["gold"] = _mean(
                [gold.score(c, r).total for c, r in zip(batch.cases, batch.responses, strict=True)]
            )
        if method in GROUPED:
            row["flat"] = _flat(batch.rewards, settings.group)
        rows.append({k: v if isinstance(v, int) else round(v, 4) for k, v in row.items()})
    return rows


def _flat(rewards: Sequence[float], group: int) -> float:
    """Share of groups whose rewards are all equal."""
    import torch

    return float(flat_groups(torch.tensor(rewards).view(-1, group)).float().mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def recipe(course: Course, method: str) -> dict[str, Any]:
    """What decides the result of a run, beside the SFT run it starts from."""
    settings = asdict(RLSettings.of(course, method))
    if method == "ppo":
        config = asdict(ppo_config(course, RLSettings.of(course, method)))
        del config["accelerator_kwargs"]  # where it runs, not what is trained
        settings["ppo"] = config
    return settings


def _require_method(method: str) -> None:
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
