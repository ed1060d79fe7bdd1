"""Several processes: what each of them is told, and that together they do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import _setup, models, processes, runs, trainers  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.ppo import PPOConfig  # noqa: E402
from course_utils.profiles import FULL, LAPTOP, TINY, with_sources  # noqa: E402
from course_utils.sft import SFTSettings  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))


# The shipped configurations


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_shipped_configurations(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = load_config_from_file(str(path))
    kind = {"fsdp": "FSDP", "zero3": "DEEPSPEED"}.get(path.stem, "MULTI_GPU")
    assert config.distributed_type == kind
    assert config.use_cpu == (path.stem == "cpu")
    assert config.mixed_precision == ("no" if path.stem == "cpu" else "bf16")
    command = ["--config_file", str(path), "-m", "course_utils", "train", "sft"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == tuple(
        kind == k for k in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    )
    assert args.num_processes == 2 and args.training_script == "course_utils"


def test_every_key_of_the_configurations_is_one_that_accelerate_launch_has() -> None:
    import yaml
    from accelerate.commands.launch import launch_command_parser

    known = {action.dest for action in launch_command_parser()._actions}
    for path in CONFIGS:
        config = yaml.safe_load(path.read_text())
        sub = {**config.pop("fsdp_config", {}), **config.pop("deepspeed_config", {})}
        assert set(sub) <= known, path.stem


def test_four_configurations_are_shipped() -> None:
    assert [path.stem for path in CONFIGS] == ["copies", "cpu", "fsdp", "zero3"]


# What each process is told


@pytest.mark.parametrize(
    ("count", "batch", "accumulation", "expected"),
    [(1, 32, 1, (32, 1)), (2, 32, 1, (16, 1)), (2, 4, 4, (4, 2)), (8, 4, 4, (2, 1))],
)
def test_a_step_is_shared(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    batch: int,
    accumulation: int,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    assert processes.share(batch, accumulation) == expected
    assert expected[0] * expected[1] * count == batch * accumulation


def test_a_step_that_cannot_be_shared_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(CourseError, match=r"^A step of 16 examples cannot be shared by 3 proc"):
        processes.share(4, 4)


def test_the_settings_are_shared_and_the_recipe_is_not(
    monkeypatch: pytest.MonkeyPatch, course: Course, tmp_path: Path
) -> None:
    alone = {name: runs.recipe(name, course, 0) for name in ("sft", "ppo", "dpo")}
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert {name: runs.recipe(name, course, 0) for name in alone} == alone
    told = trainers.common_arguments(course, SFTSettings.of(course), str(tmp_path), 0)
    assert told["per_device_train_batch_size"] == TINY.batch_size // 2
    config = PPOConfig.of(course).shared()
    assert config.batch_size == TINY.ppo_batch_size // 2
    per_update = config.mini_batch_size * config.gradient_accumulation_steps
    assert 2 * per_update == TINY.ppo_mini_batch_size * TINY.ppo_accumulation


def test_only_the_main_process_writes_weights(
    monkeypatch: pytest.MonkeyPatch, new_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    models.save(new_model(), tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RANK", "0")
    models.save(new_model(), tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()


def test_stages_that_sample_refuse_sharded_weights(
    monkeypatch: pytest.MonkeyPatch, course: Course, tmp_path: Path
) -> None:
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    for variable in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.setenv(variable, "true")
        with pytest.raises(CourseError, match=r"'ppo' samples from its model.*copies\.yaml"):
            runs.ensure("ppo", course)
        monkeypatch.delenv(variable)
    assert set(runs.SHARDABLE) <= set(runs.STAGES)


def test_gathered_weights_are_what_is_written(
    new_model: Any, tokenizer: Any, tmp_path: Path, course: Course
) -> None:
    gathered = {name: torch.zeros_like(w) for name, w in new_model().state_dict().items()}
    models.save(new_model(), tokenizer, tmp_path, gathered)
    model, _ = models.load(tmp_path, course)
    assert all((weight == 0).all() for weight in model.parameters())


@pytest.mark.heavy
def test_an_adapter_is_put_onto_the_run_it_started_from(
    new_model: Any, tokenizer: Any, tmp_path: Path, course: Course
) -> None:
    from peft import get_peft_model

    models.save(new_model(), tokenizer, tmp_path / "runs" / "sft")
    adapter = get_peft_model(new_model(), models.lora_config(4))
    for name, weight in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    start = tmp_path / "runs" / "sft"
    models.save(adapter, tokenizer, tmp_path / "runs" / "dpo", start=start)
    (tmp_path / "runs").rename(tmp_path / "moved")
    loaded, _ = models.load(tmp_path / "moved" / "dpo", course)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, adapter(ids).logits)


# Other models and data


def test_another_model_takes_the_profiles_place() -> None:
    other = with_sources(FULL, "some/model", None, "Some/pairs")
    assert (other.base_model, other.hub_models) == ("some/model", ("some/model",))
    assert other.hub_datasets == (FULL.instructions, "Some/pairs")
    here = with_sources(LAPTOP, "./folder", "a.jsonl", None)
    assert (here.hub_models, here.hub_datasets, here.preferences) == ((), (), "english")
    assert not here.base_is_instruct, "nobody said so"
    assert with_sources(TINY) == TINY


def test_another_model_makes_another_run(
    new_model: Any, tokenizer: Any, tmp_path: Path, course: Course
) -> None:
    models.save(new_model(), tokenizer, tmp_path)
    first = runs.run_path("sft", course)
    there = Course("test", with_sources(TINY, str(tmp_path)), versions=course.versions)
    second = runs.run_path("sft", there)
    models.save(new_model(seed=1), tokenizer, tmp_path)
    assert len({first, second, runs.run_path("sft", there)}) == 3
    assert models.base_path(there) == str(tmp_path)


def test_setup_says_what_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _setup.setup("train", profile="tiny", model=str(tmp_path))
    assert f"base model {tmp_path}\n" in capsys.readouterr().out


@pytest.mark.parametrize("token", ["pad_token", "eos_token"])
def test_a_tokenizer_without_pad_token_works_and_without_eos_says_so(
    token: str, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    setattr(other, token, None)
    other.chat_template = None
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "chat_template.jinja").unlink(missing_ok=True)
    if token == "eos_token":
        with pytest.raises(CourseError, match=r"tokenizer of other has no EOS token"):
            models.load_tokenizer(tmp_path / "other")
        return
    loaded = models.load_tokenizer(tmp_path / "other")
    assert loaded.pad_token == loaded.eos_token == tokenizer.eos_token
    assert loaded.chat_template is None


GATED = """
from course_utils.profiles import hub_problem
print(hub_problem("meta-llama/Llama-2-7b-hf", timeout=5))
"""


def test_a_gated_model_says_how_to_get_access(httpserver: Any) -> None:
    """The hub tells of a gated model, and refuses its files, with these status and headers."""
    info = {"id": "meta-llama/Llama-2-7b-hf", "gated": "manual", "siblings": []}
    httpserver.expect_request("/api/models/meta-llama/Llama-2-7b-hf").respond_with_json(info)
    httpserver.expect_request("/api/models/meta-llama/Llama-2-7b-hf/auth-check").respond_with_data(
        "", status=401, headers={"X-Error-Code": "GatedRepo"}
    )
    environment = {**os.environ, "HF_ENDPOINT": httpserver.url_for("").rstrip("/")}
    environment.pop("HF_HUB_OFFLINE", None)
    result = subprocess.run(
        [sys.executable, "-c", GATED], capture_output=True, text=True, env=environment, timeout=60
    )
    said = result.stdout.strip()
    assert said.startswith("The hub gives meta-llama/Llama-2-7b-hf only to accounts that accepted")
    assert "https://huggingface.co/meta-llama/Llama-2-7b-hf" in said
    assert said.endswith("run `hf auth login`."), result.stderr


# fp16


def test_what_is_trained_with_fp16_is_kept_in_float32() -> None:
    net = torch.nn.ModuleList(torch.nn.Linear(2, 2, bias=False) for _ in range(3)).half()
    net[0].weight.requires_grad_(False)
    net[2].to(torch.bfloat16)

    def dtypes() -> list[Any]:
        return [layer.weight.dtype for layer in net]

    with models.trainable_raised(net):
        assert dtypes() == [torch.float16, torch.float32, torch.float32]
    assert dtypes() == [torch.float16, torch.float16, torch.float32]


def test_training_with_fp16_does_so() -> None:
    seen: list[Any] = []

    class Stub:
        """As much of a trainer as `run` looks at."""

        def __init__(self) -> None:
            self.model = torch.nn.Linear(2, 2).half()
            self.args = SimpleNamespace(fp16=True)
            self.accelerator = SimpleNamespace(unwrap_model=lambda model, **_: model)

        def remove_callback(self, callback: Any) -> None: ...

        def train(self) -> None:
            seen.append(self.model.weight.dtype)

    made = Stub()
    trainers.run(lambda scratch, settings: made, SFTSettings(), made.model)  # type: ignore[type-var]
    assert seen == [torch.float32] and made.model.weight.dtype == torch.float16


# Two processes


def train(where: Path, stage: str, *, launch: bool) -> list[dict[str, float]]:
    """`train STAGE`, small; the history of its run."""
    command = ["-m", "course_utils", "train", stage, "--profile", "tiny"]
    if launch:
        two = str(ROOT / "configs" / "accelerate" / "cpu.yaml")
        command = ["-m", "accelerate.commands.launch", "--config_file", two, *command]
    environment = {
        **os.environ,
        "COURSE_RUNS": str(where),
        "COURSE_SIZE": "small",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(f"{stage} is ready after") == 1, "one process speaks"
    folder = Path(result.stdout.strip().splitlines()[-1])
    assert runs.is_complete(folder) and folder.name.startswith(f"{stage}-seed0-")
    left = [p.name for p in folder.parent.iterdir() if p.name.startswith(".")]
    assert not left
    return runs.history(folder)


@pytest.mark.slow
@pytest.mark.heavy
def test_two_processes_train_what_one_does(tmp_path: Path, course: Course) -> None:
    """DPO, and SFT before it. PPO's numbers are compared in test_ppo_runs.py."""
    stage = "dpo"
    two, one = tmp_path / "two", tmp_path / "one"
    train(two, stage, launch=True)
    train(one, stage, launch=False)
    small = Course("test", TINY, "small", versions=course.versions)
    names = sorted(p.name for p in (two / "tiny").iterdir() if p.is_dir())
    assert names == sorted(p.name for p in (one / "tiny").iterdir() if p.is_dir())
    for name in names:
        histories = [runs.history(where / "tiny" / name) for where in (one, two)]
        assert [h["step"] for h in histories[0]] == [h["step"] for h in histories[1]]
        if name.startswith("sft-"):  # the same examples in each step
            for a, b in zip(*histories, strict=True):
                assert b["loss"] == pytest.approx(a["loss"], rel=2e-3), (a, b)
                assert b["learning_rate"] == pytest.approx(a["learning_rate"])
        manifest = json.loads((two / "tiny" / name / "run.json").read_text())
        assert manifest["processes"] == 2 and "model.safetensors" in manifest["files"]
    name = next(n for n in names if n.startswith(stage))
    model, tokenizer = models.load(two / "tiny" / name, small)
    assert models.count_parameters(model) > 1e6
    assert tokenizer.eos_token
