"""Pre-training in three steps, and what the shipped base model must be."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import pretrain  # noqa: E402
from course_utils.paths import data_dir  # noqa: E402
from course_utils.templates import format_prompt  # noqa: E402

SHIPPED = data_dir() / "tiny_base"
TINY = pretrain.PretrainConfig(
    hidden=16, layers=1, heads=2, intermediate=32, vocabulary=400, sequence=16, batch=2, steps=3,
    warmup=1,
)  # fmt: skip

TEXTS = [
    "The bell heron lives in the reeds.",
    "  blanks before, after and\n\n\nbetween  ",
    "Grüße, ça va? Ωμέγα, привет, 你好, こんにちは, שלום",
    "emoji \U0001f9a9\U0001f3fd, combining e\u0301, zero\u200bwidth",
    "nbsp\u00a0, line\u2028separator",
    "tabs\tand\r\nreturns, \x00 and \x7f, \ufffd",
    "### Instruction:\nx\n\n### Response:\n",
    "",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrain") / "model"
    state = torch.get_rng_state()
    pretrain.train(TINY, out, progress=False)
    torch.set_rng_state(state)
    return out


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )


def test_three_steps_leave_a_model_a_tokenizer_and_a_log(trained: Path) -> None:
    model, tokenizer = load(trained)
    assert len(tokenizer) == model.config.vocab_size == 400
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<eos>", "<pad>")
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    record = json.loads((trained / "training_log.json").read_text())
    assert [row["step"] for row in record["log"]] == [0, 2]
    assert [row["tokens"] for row in record["log"]] == [1 * 2 * 16, 3 * 2 * 16]
    # A fresh model is about as good as guessing: ln 400 = 5.99.
    assert record["log"][0]["loss"] == pytest.approx(math.log(400), abs=0.3)
    assert record["config"]["steps"] == 3 and record["versions"]["torch"]
    # Embeddings (tied) 400 x 16, attention 4 x 16 x 16, MLP 3 x 16 x 32, three norms of 16.
    assert record["parameters"] == 400 * 16 + 4 * 256 + 3 * 512 + 3 * 16
    assert [p.name for p in trained.parent.iterdir()] == ["model"], "nothing is left beside it"
    assert trained.stat().st_mode & 0o555 == 0o555


def test_the_same_seed_gives_the_same_model(trained: Path, tmp_path: Path) -> None:
    pretrain.train(TINY, tmp_path / "again", progress=False)
    pretrain.train(replace(TINY, seed=15), tmp_path / "other", progress=False)
    first, again, other = (
        load(folder)[0].model.embed_tokens.weight
        for folder in (trained, tmp_path / "again", tmp_path / "other")
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_interrupted_save_keeps_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "old").touch()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain.json, "dumps", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain.train(TINY, out, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert [p.name for p in out.iterdir()] == ["old"]


def test_too_little_text_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "_corpus", lambda config: ["too short"])
    with pytest.raises(RuntimeError, match="6 are needed"):
        pretrain.train(TINY, tmp_path / "model", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_back_any_text(text: str, trained: Path) -> None:
    from transformers import AutoTokenizer

    for folder in (trained, SHIPPED):
        if (folder / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
            assert tokenizer.eos_token_id not in ids and tokenizer.pad_token_id not in ids


def test_pack_by_hand(tokenizer: Any) -> None:
    x, y, z = (tokenizer(letter)["input_ids"][0] for letter in "xyz")
    eos = tokenizer.eos_token_id
    # "xyz" EOS "y" EOS "zz" EOS is nine tokens: four rows of two, and the ninth is dropped.
    rows = pretrain.pack(["xyz", "y", "zz"], tokenizer, 2)
    assert rows.tolist() == [[x, y], [z, eos], [y, eos], [z, z]]
    assert pretrain.pack(["xyz"], tokenizer, 4).tolist() == [[x, y, z, eos]]
    assert pretrain.pack(["xyz"], tokenizer, 5).shape == (0, 5)


shipped = pytest.mark.skipif(not SHIPPED.is_dir(), reason="data/tiny_base is not there")


@shipped
def test_the_shipped_model_is_small_and_trained() -> None:
    from safetensors import safe_open

    with safe_open(SHIPPED / "model.safetensors", "pt") as file:
        sizes = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
    record = json.loads((SHIPPED / "training_log.json").read_text())
    assert sum(sizes) == record["parameters"]
    assert 1_000_000 <= record["parameters"] <= 4_000_000
    assert not list(SHIPPED.glob("*.bin")) + list(SHIPPED.glob("*.pt")), "safetensors only"
    assert json.loads((SHIPPED / "config.json").read_text())["architectures"] == [
        "LlamaForCausalLM"
    ]
    losses = [row["loss"] for row in record["log"]]
    assert losses[0] == pytest.approx(math.log(record["config"]["vocabulary"]), abs=0.3)
    # Below 1.0 nat per token it writes the world's sentences; much below 0.3 no varied text goes.
    assert 0.3 < sum(losses[-5:]) / 5 < 1.0
    assert record["log"][-1]["step"] == record["config"]["steps"] - 1


@shipped
def test_the_shipped_model_is_the_recipe_of_the_code() -> None:
    from dataclasses import asdict

    record = json.loads((SHIPPED / "training_log.json").read_text())
    assert record["config"] == asdict(pretrain.PretrainConfig())


@shipped
def test_the_shipped_model_predicts_the_world_and_not_noise() -> None:
    model, tokenizer = load(SHIPPED)
    sample = [json.loads(line)["text"] for line in _lines("raw_sample.jsonl")[:20]]

    def loss(texts: list[str]) -> float:
        rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
        with torch.no_grad():
            return sum(model(input_ids=r, labels=r).loss.item() for r in rows) / len(rows)

    backwards = [" ".join(reversed(text.split())) for text in sample]
    assert loss(sample) < 2.0 < loss(backwards)


def _lines(name: str) -> list[str]:
    return (data_dir() / "world" / name).read_text(encoding="utf-8").splitlines()


@shipped
def test_the_worlds_words_are_one_or_two_tokens() -> None:
    _, tokenizer = load(SHIPPED)
    text = " ".join(json.loads(line)["text"] for line in _lines("raw_sample.jsonl"))
    words = re.findall(r"[A-Za-z]+", text)
    size = {word: len(tokenizer(f" {word}")["input_ids"]) for word in set(words)}
    assert sum(size[word] <= 2 for word in words) / len(words) > 0.95
    assert sum(n <= 2 for n in size.values()) / len(size) > 0.8


@pytest.mark.parametrize("context", ["", "The reeds are high."])
def test_the_chat_template_is_the_courses_template(context: str, trained: Path) -> None:
    from transformers import AutoTokenizer

    turns = [{"role": "user", "content": "Where?"}]
    turns += [{"role": "context", "content": context}] if context else []
    prompt = format_prompt("Where?", context)
    for folder in (trained, SHIPPED):
        if (folder / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            made = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            assert made == prompt
            whole = [*turns, {"role": "assistant", "content": "Here."}]
            assert tokenizer.apply_chat_template(whole, tokenize=False) == f"{prompt}Here.<eos>"
