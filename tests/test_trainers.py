"""What every training through TRL shares: settings that TRL accepts, and tidying up."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import trl  # noqa: E402

from course_utils import preference, reward, sft, trainers  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.preference import training  # noqa: E402
from course_utils.profiles import PROFILES  # noqa: E402

MACHINES = [
    ("tiny", "cpu", "float32"),
    ("laptop", "cpu", "bfloat16"),
    ("laptop", "cpu", "float32"),
    ("laptop", "mps", "float32"),
    ("colab", "cuda", "float16"),
    ("colab", "cuda", "bfloat16"),
    ("full", "cuda", "bfloat16"),
]


def arguments(kind: str, course: Course, out: str) -> tuple[trainers.TrainingSettings, Any]:
    """(settings, TRL's configuration) of one kind of training, with seed 7."""
    if kind == "SFTConfig":
        settings: Any = sft.SFTSettings.of(course)
        return settings, sft.training_arguments(course, settings, out, 7)
    if kind == "RewardConfig":
        settings = reward.RewardSettings.of(course)
        return settings, reward.training_arguments(course, settings, out, 7, evaluate=True)
    settings = preference.PreferenceSettings.of(course)
    return settings, training.training_arguments(course, settings, "dpo", out, 7)


@pytest.mark.parametrize("kind", ["SFTConfig", "RewardConfig", "DPOConfig"])
@pytest.mark.parametrize(("profile", "device", "dtype"), MACHINES)
def test_every_profile_asks_for_settings_that_trl_has(
    kind: str,
    profile: str,
    device: str,
    dtype: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}
    config = getattr(trl, kind)
    monkeypatch.setattr(trl, kind, lambda **options: asked.update(options))
    p = PROFILES[profile]
    settings, _ = arguments(kind, Course("test", p, device=device, dtype=dtype), str(tmp_path))

    assert set(asked) <= set(inspect.signature(config).parameters)
    assert (asked["bf16"], asked["fp16"]) == (dtype == "bfloat16", dtype == "float16")
    assert asked["use_cpu"] == (device == "cpu")
    assert asked["activation_checkpointing"] == (profile in ("colab", "full"))
    epochs, rate = {
        "SFTConfig": (p.sft_epochs, p.sft_learning_rate),
        "RewardConfig": (p.reward_epochs, p.reward_learning_rate),
        "DPOConfig": (p.dpo_epochs, p.dpo_learning_rate),
    }[kind]
    assert (asked["num_train_epochs"], asked["learning_rate"]) == (epochs, rate)
    assert asked["max_length"] == p.max_length
    batch = p.dpo_batch_size if kind == "DPOConfig" else None
    assert asked["per_device_train_batch_size"] == (batch or p.batch_size)
    assert asked["gradient_accumulation_steps"] == p.gradient_accumulation
    assert (settings.adapter, settings.lora_rank) == (p.adapter, p.lora_rank)
    assert asked["seed"] == asked["data_seed"] == 7
    try:
        made = config(**asked)
    except ValueError as error:
        if device == "cuda" and not torch.cuda.is_available() and "bf16" in str(error):
            pytest.skip(f"transformers refuses here: {error}")
        raise
    for name, value in asked.items():  # TRL writes these two in its own way
        assert getattr(made, name) == value or name in ("report_to", "loss_type"), name


@pytest.mark.parametrize(
    "settings", [sft.SFTSettings, reward.RewardSettings, preference.PreferenceSettings]
)
def test_the_small_size_sees_the_data_once(settings: Any) -> None:
    for profile in PROFILES.values():
        assert settings.of(Course("test", profile, size="small")).epochs == 1


def test_a_failed_run_gives_the_model_its_own_forward_back(new_model: Callable[..., Any]) -> None:
    class Patches:
        model = torch.nn.Linear(1, 1)
        args = SimpleNamespace(fp16=False)

        def remove_callback(self, callback: Any) -> None:
            model.forward = lambda *args, **kwargs: None

        def train(self) -> None:
            raise RuntimeError("stopped")

    model = new_model()
    with pytest.raises(RuntimeError, match="stopped"):
        trainers.run(lambda scratch: Patches(), model)  # type: ignore[type-var]
    assert "forward" not in vars(model)
    assert model(torch.tensor([[1, 2]])).logits.shape == (1, 2, 320)
