"""Estimates of memory, against numbers worked by hand and against what torch really saves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import doctor, memory  # noqa: E402
from course_utils.__main__ import main  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.memory import Setting, Shape  # noqa: E402
from course_utils.profiles import COLAB, FULL, LAPTOP, TINY  # noqa: E402

LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama-2-7b's configuration, and no weights."""
    from transformers import LlamaConfig

    path: Path = tmp_path_factory.mktemp("llama")
    LlamaConfig(**LLAMA_7B).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def llama(folder: Path) -> Shape:
    return memory.read_shape(str(folder))


# By hand: a layer has 4 x 4096^2 weights of attention and 3 x 4096 x 11008 of MLP = 202 375 168;
# 32 of them 6 476 005 376. Two embeddings of 32000 x 4096 = 131 072 000 each; 65 norms of 4096.
LINEAR, EMBEDDING, NORMS = 6_476_005_376, 131_072_000, 266_240
# One rank of LoRA: 4 x (4096 + 4096) + 3 x (4096 + 11008) = 78 080 a layer, 2 498 560 in all.
RANK = 2_498_560


def test_llamas_shape_is_counted_without_weights(llama: Shape) -> None:
    assert llama.parameters == 6_738_415_616 == LINEAR + 2 * EMBEDDING + NORMS
    assert (llama.linear, llama.head, llama.lora_per_rank) == (LINEAR, EMBEDDING, RANK)
    assert llama.largest_linear == 4096 * 11008
    assert (llama.layers, llama.queries, llama.keys, llama.heads) == (32, 4096, 4096, 32)


def test_llama_in_4_bits_by_hand(llama: Shape) -> None:
    found = memory.estimate(llama, FULL, "sft", "bfloat16")
    adapter = 64 * RANK * 2  # TRL holds it in bfloat16
    # 6.476e9 x 4.127 / 8 = 3 340 809 273 bytes, and the rest in bfloat16
    assert found.weights == pytest.approx(3_340_809_273 + 2 * (2 * EMBEDDING + NORMS) + adapter)
    assert (found.gradients, found.optimiser) == (adapter, 2 * adapter)
    # 4 x 1024 tokens. Kept: 32 layers' inputs and the final norm's output, 33 x 2 x 4096 bytes a
    # token, its input in float32; one layer whole: norms 2 x 4 x 4096 + 8, linear inputs
    # 2 x 2 x 4096, 7 x 2 x 64 of LoRA, attention 4 x 2 x 4096 + 4 x 32, MLP 4 x 2 x 11008.
    layer = 32_776 + 16_384 + 896 + 32_896 + 88_064
    working = 2 * (3 * 11008 + 2 * 4096)
    # A tile of 4096 x 32768 and its gradient in float32 take less than a layer computed again, with
    # the gradients of its MLP and one matrix unpacked, and are freed before.
    tile = 2 * 4096 * 32768 + 4096 * 16_384
    again = 4096 * (layer + working) + 2 * 4096 * 11008
    assert tile < again
    assert found.activations == pytest.approx(4096 * (33 * 8192 + 16_384) + again)
    assert found.total / 2**30 == pytest.approx(6.94, abs=0.01)


def test_a_preference_stage_reads_both_sides(llama: Shape) -> None:
    stages = {s: memory.estimate(llama, FULL, s, "bfloat16") for s in memory.STAGES}
    assert stages["dpo"].weights == stages["sft"].weights, "no second model is held"
    assert stages["reward"].weights == stages["sft"].weights - 2 * EMBEDDING
    # PPO holds the policy, and a reward model without output embedding; its adapters are float32.
    policy = stages["sft"].weights + 64 * RANK * 2
    assert stages["ppo"].weights == pytest.approx(2 * policy - 2 * EMBEDDING)
    assert stages["dpo"].activations > 1.7 * stages["sft"].activations


def test_training_every_weight_by_hand(llama: Shape) -> None:
    every = replace(FULL, adapter="full", load_in_4bit=False)
    found = memory.estimate(llama, every, "sft", "float32")
    assert found.weights == found.gradients == 4 * 6_738_415_616
    assert found.optimiser == 8 * 6_738_415_616
    ppo = memory.estimate(llama, every, "ppo", "float32")  # policy, its copy, the reward model
    assert ppo.weights == 4 * (3 * 6_738_415_616 - EMBEDDING)


def test_without_checkpointing_every_layer_is_whole(llama: Shape) -> None:
    setting = Setting(number=2, trained=2)
    whole = memory.step_activations(llama, setting, 1000)
    less = memory.step_activations(llama, replace(setting, checkpointing=True), 1000)
    layer = memory.layer_activations(llama, setting) * 1000
    assert whole - less == pytest.approx(31 * layer - 32 * 2 * 4096 * 1000)


SMALL = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "vocab_size": 100}


def saved(layers: int, dtype: Any, rank: int, heads: int, tokens: tuple[int, int]) -> int:
    """Bytes that torch keeps for the backward pass through a model, parameters not counted."""
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from course_utils.models import lora_config

    config = LlamaConfig(**SMALL, num_hidden_layers=layers, num_key_value_heads=heads)
    model: Any = LlamaForCausalLM(config).to(dtype)
    if rank:
        model = get_peft_model(model, lora_config(rank)).get_base_model()
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    seen: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        # With autocast an adapter's 16-bit copy is kept as well: no activation, and small.
        if storage.data_ptr() not in own and tensor.shape[0] in (tokens[0], tokens[0] * tokens[1]):
            seen[storage.data_ptr()] = tensor
        return tensor

    half = dtype == torch.bfloat16
    ids = torch.ones(tokens, dtype=torch.long)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=half),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        model.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.heavy
@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_keeps_what_the_formula_says(dtype: str, rank: int, heads: int) -> None:
    tokens = (2, 48)
    more, fewer = (saved(n, getattr(torch, dtype), rank, heads, tokens) for n in (3, 2))
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=heads)
    shape = memory.shape_of(LlamaForCausalLM(config), config)
    number = memory.BYTES[dtype]
    setting = Setting(number=number, trained=4 if rank else number, rank=rank)
    expected = memory.layer_activations(shape, setting) * tokens[0] * tokens[1]
    assert (more - fewer) == pytest.approx(expected, rel=0.001)


# What the doctor prints


@pytest.fixture
def quiet_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "hub_state", lambda: "switched off for this test")
    monkeypatch.setattr(doctor, "missing", lambda profile: [])
    monkeypatch.setattr(doctor, "gpu_memory_gb", lambda: 0.0)


def test_the_doctor_prints_every_stage(
    folder: Path, quiet_hub: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--profile", "full", "--model", str(folder)]) == 0
    lines = capsys.readouterr().out.partition("memory    estimated")[2].splitlines()
    assert "6.74e9 parameters) on cuda, bfloat16, layers in 4 bits, lora" in lines[0]
    assert lines[1].split() == ["GiB", "weights", "gradients", "optimiser", "activations", "total"]
    assert [line.split()[0] for line in lines[2:]] == list(memory.STAGES)
    for line in lines[2:]:
        *parts, total = map(float, line.split()[1:])
        assert sum(parts) == pytest.approx(total, abs=0.03)


def test_the_doctor_says_what_does_not_fit(
    folder: Path,
    quiet_hub: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "gpu_memory_gb", lambda: 9.5)
    monkeypatch.setattr("course_utils._setup.choose_device", lambda profile: "cuda")
    monkeypatch.setattr("course_utils._setup.choose_dtype", lambda profile, device: "float16")
    main(["doctor", "--profile", "full", "--model", str(folder)])
    rows = capsys.readouterr().out.splitlines()[-4:]
    assert rows[0].endswith(" fits") and rows[2].endswith("does not fit the GPU here")


def test_the_doctor_estimates_the_profiles_own_model(
    quiet_hub: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--profile", "tiny", "--json", "--model"]) == 0
    stages = json.loads(capsys.readouterr().out)["estimate"]["stages"]
    assert set(stages) == set(memory.STAGES) and 0.1 < stages["sft"]["total"] < 4


def test_a_model_nobody_can_look_up_is_one_sentence(
    quiet_hub: None,
    offline: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(
        memory, "hub_problem", lambda name: f"The hub cannot be reached for {name}."
    )
    assert main(["doctor", "--profile", "full", "--model", "some/none"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "memory    No estimate of the memory: The hub cannot be reached for some/none."
    with pytest.raises(CourseError, match="has no configuration of a language model"):
        memory.read_shape(str(tmp_path))


@pytest.mark.parametrize("profile", [TINY, LAPTOP, COLAB, FULL], ids=lambda p: p.name)
def test_every_profile_has_an_estimate_of_every_stage(profile: Any, llama: Shape) -> None:
    for row in memory.estimates(llama, profile, "bfloat16", "cpu"):
        assert min(row.weights, row.gradients, row.optimiser, row.activations) > 0


def test_the_recorded_peaks_are_within_a_factor_of_1_2_of_todays_estimates() -> None:
    """benchmarks/memory.py measured them; what it compared with is what the code says now."""
    root = Path(__file__).resolve().parents[1]
    runs = json.loads((root / "benchmarks" / "results" / "memory.json").read_text())["runs"]
    cases = ("tiny", "wide", "lora", "laptop")
    measured = [(run["case"], run["stage"]) for run in runs]
    assert measured == [(case, stage) for case in cases for stage in memory.STAGES]
    shape = memory.read_shape(str(root / "data" / "tiny_base"))
    for run in runs:
        assert 1 / 1.2 < run["measured_mb"] / run["estimated_mb"] < 1.2, run
        if run["case"] == "tiny":
            now = memory.estimate(shape, TINY, run["stage"], "float32", "cpu").total / 2**20
            assert run["estimated_mb"] == pytest.approx(now, abs=0.1), "run the benchmark again"
