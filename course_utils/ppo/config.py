"""`PPOConfig`: the settings of the classic PPO loop, under the names older material uses."""

from __future__ import annotations

import warnings
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import CourseError, unknown_name
from ..processes import count, share

if TYPE_CHECKING:
    from .._setup import Course

KL_PENALTIES = ("kl", "abs", "mse")
# Settings of TRL's former PPOConfig that have no meaning here, and why.
LEGACY = {
    "model_name": "the model is given to PPOTrainer",
    "exp_name": "runs are named by their folder",
    "task_name": "nothing reads it",
    "reward_model": "scores come from the reward function",
    "query_dataset": "prompts are given to `train` or `dataset`",
    "steps": "give `steps` to `train`",
    "remove_unused_columns": "no column is removed",
    "forward_batch_size": "use mini_batch_size",
    "backward_batch_size": "it is mini_batch_size times gradient_accumulation_steps",
    "global_batch_size": "it is batch_size times the number of processes",
    "world_size": "accelerate knows it",
    "ratio_threshold": "use target_kl with early_stopping",
    "optimize_cuda_cache": "memory is freed by itself",
    "optimize_device_cache": "memory is freed by itself",
    "gradient_checkpointing": "call `model.gradient_checkpointing_enable()`",
    "is_encoder_decoder": "only decoder models are supported",
    "is_peft_model": "it is seen from the model",
    "compare_steps": "nothing reads it",
    "push_to_hub_if_best_kwargs": "nothing is pushed",
    "project_kwargs": "use tracker_kwargs",
    "use_score_scaling": "use whiten_rewards",
    "use_score_norm": "use whiten_rewards",
}


@dataclass(init=False)
class PPOConfig:
    """Settings of one PPO run. Batch sizes count responses and hold per process.

    Settings of older versions that no longer mean anything are accepted with a warning.

    Attributes:
        learning_rate: of Adam (eps 1e-5), constant unless a scheduler is given to the trainer.
        value_learning_rate: of the value head, which starts from nothing and may learn faster than
            the rest; None takes `learning_rate`.
        batch_size: responses collected before the weights change.
        mini_batch_size: responses in one forward and backward pass; divides batch_size.
        gradient_accumulation_steps: passes added up before an optimiser step.
        ppo_epochs: how often each batch is gone through.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        kl_penalty: ``kl`` (k1, signed), ``abs`` (its absolute value) or ``mse`` (k2).
        target_kl: bound on the KL (nats per token) of the new policy from the one that sampled.
        early_stopping: stop a batch's epochs once that KL exceeds 1.5 times `target_kl`.
        init_kl_coef: price of one nat of KL from the reference, in units of score.
        adap_kl_ctrl: steer the price so that the KL per response comes to `target`.
        target: nats per response.
        horizon: responses; the larger, the slower the price moves.
        gamma: discount per token.
        lam: lambda of GAE.
        cliprange: of the probability ratio.
        cliprange_value: of the values.
        vf_coef: weight of the value loss.
        whiten_rewards: scale token rewards to variance 1, their mean kept.
        score_clip: scores are clipped to ± this; None leaves them.
        missing_eos_penalty: taken off the score of a response that was cut for length.
        temperature: of sampling; the log-probs are taken at the same one.
        max_new_tokens: longest response.
        seed: of sampling, of the order of prompts and of mini batches.
        log_with: trackers that `accelerate` knows, for example ``"tensorboard"``.
        tracker_project_name: project name given to the trackers.
        tracker_kwargs: more for the trackers.
        accelerator_kwargs: given to `accelerate.Accelerator`: ``{"mixed_precision": "bf16"}``,
            ``{"cpu": True}``, ``{"dynamo_backend": "inductor"}`` (torch.compile), and so on.
    """

    learning_rate: float = 1.41e-5
    value_learning_rate: float | None = None
    batch_size: int = 128
    mini_batch_size: int = 128
    gradient_accumulation_steps: int = 1
    ppo_epochs: int = 4
    max_grad_norm: float | None = 1.0
    kl_penalty: str = "kl"
    target_kl: float = 1.0
    early_stopping: bool = False
    init_kl_coef: float = 0.2
    adap_kl_ctrl: bool = True
    target: float = 6.0
    horizon: int = 10_000
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    whiten_rewards: bool = False
    score_clip: float | None = None
    missing_eos_penalty: float = 1.0
    temperature: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0
    log_with: str | None = None
    tracker_project_name: str = "ppo"
    tracker_kwargs: dict[str, Any] = field(default_factory=dict)
    accelerator_kwargs: dict[str, Any] = field(default_factory=dict)

    def __init__(self, **settings: Any) -> None:
        for f in fields(self):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            setattr(self, f.name, settings.pop(f.name, default))
        for name in settings:
            if name not in LEGACY:
                raise unknown_name("PPO setting", name, [f.name for f in fields(self)])
            warnings.warn(f"PPOConfig({name}=...) is ignored: {LEGACY[name]}.", stacklevel=2)
        self._check()

    def _check(self) -> None:
        """Raise a CourseError that names the first setting that cannot work."""
        whole = ("batch_size", "mini_batch_size", "gradient_accumulation_steps", "ppo_epochs")
        for name in (*whole, "max_new_tokens", "horizon"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise CourseError(
                    f"{name} is {getattr(self, name)!r}: give a whole number above 0."
                )
        for name in ("learning_rate", "temperature", "target", "target_kl"):
            if not getattr(self, name) > 0:
                raise CourseError(f"{name} is {getattr(self, name)!r}: give a number above 0.")
        for name in ("cliprange", "cliprange_value", "init_kl_coef", "vf_coef"):
            if not getattr(self, name) >= 0:
                raise CourseError(f"{name} is {getattr(self, name)!r}: give 0 or more.")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise CourseError(f"{name} is {getattr(self, name)!r}: give a number from 0 to 1.")
        if self.kl_penalty not in KL_PENALTIES:
            raise unknown_name("kl_penalty", self.kl_penalty, KL_PENALTIES)
        per_update = self.mini_batch_size * self.gradient_accumulation_steps
        if self.batch_size % per_update:
            raise CourseError(
                f"batch_size {self.batch_size} is not divisible by mini_batch_size x "
                f"gradient_accumulation_steps = {per_update}: every optimiser step needs as much."
            )

    def shared(self) -> PPOConfig:
        """For each of several processes, so that a batch has as many responses as with one."""
        size, accumulation = share(self.mini_batch_size, self.gradient_accumulation_steps)
        return replace(
            self,
            batch_size=self.batch_size // count(),
            mini_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )

    @classmethod
    def of(cls, course: Course, **changes: Any) -> PPOConfig:
        """The profile's settings, with `changes`."""
        p = course.profile
        settings: dict[str, Any] = {
            "learning_rate": p.ppo_learning_rate,
            "value_learning_rate": p.ppo_value_learning_rate,
            "batch_size": p.ppo_batch_size,
            "mini_batch_size": p.ppo_mini_batch_size,
            "gradient_accumulation_steps": p.ppo_accumulation,
            "ppo_epochs": p.ppo_epochs,
            "init_kl_coef": p.kl_coef,
            "lam": p.ppo_lam,
            "adap_kl_ctrl": False,
            "max_new_tokens": p.max_new_tokens,
            "accelerator_kwargs": {"cpu": course.device == "cpu"},
        }
        if course.dtype != "float32":
            settings["accelerator_kwargs"]["mixed_precision"] = {
                "bfloat16": "bf16",
                "float16": "fp16",
            }[course.dtype]
        return cls(**(settings | changes))
