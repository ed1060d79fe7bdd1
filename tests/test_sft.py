"""Supervised fine-tuning against TRL: the same labels, the same loss, and what a run leaves."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import data, logprobs, models, sft  # noqa: E402
from course_utils._setup import Course  # noqa: E402

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = [
    ("Where does the bell heron live?", "", "It lives in the reeds of the Upper Mere."),
    ("What does it eat?", "The bell heron eats small fish.", "Small fish."),
    ("When does the ferry cross?", "", "The ferry crosses at noon, and a lantern is lit."),
    ("Say yes.", "A lantern is lit every evening.\n\nThe ferry is late.", "Yes"),
]


@pytest.fixture(scope="module")
def rows() -> Dataset:
    from datasets import Dataset

    names = ("instruction", "context", "response")
    return Dataset.from_list([{**dict(zip(names, r, strict=True)), "category": "x"} for r in ROWS])


def small(**changes: Any) -> sft.SFTSettings:
    base = sft.SFTSettings(epochs=1, learning_rate=1e-2, batch_size=4, max_length=256, lora_rank=4)
    return replace(base, **changes)


def batch(rows: Any, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(input_ids, labels), padded on the right by hand."""
    made = [
        data.mask_prompt(
            data.format_prompt(r["instruction"], r["context"]), r["response"], tokenizer
        )
        for r in rows
    ]
    longest = max(len(ids) for ids, _ in made)
    ids = [i + [tokenizer.pad_token_id] * (longest - len(i)) for i, _ in made]
    labels = [k + [-100] * (longest - len(k)) for _, k in made]
    return torch.tensor(ids), torch.tensor(labels)


def trl_labels(course: Course, model: Any, tokenizer: Any, rows: Any) -> list[dict[str, Any]]:
    trainer = sft.make_trainer(course, model, tokenizer, rows, small(), out="unused")
    return list(trainer.train_dataset)


def with_bos(tokenizer: Any) -> Any:
    """The same tokenizer, but every text begins with a BOS token, as Llama-2's does."""
    from tokenizers.processors import TemplateProcessing

    other = deepcopy(tokenizer)
    other.add_special_tokens({"bos_token": "<bos>"})
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", other.bos_token_id)]
    )
    return other


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "bos"])
def test_trl_makes_the_labels_that_mask_prompt_makes(
    bos: bool, course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    if bos:
        tokenizer = with_bos(tokenizer)
        assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    model = new_model()
    model.resize_token_embeddings(len(tokenizer))
    theirs = trl_labels(course, model, tokenizer, rows)
    assert len(theirs) == len(ROWS)
    for row, (instruction, context, response) in zip(theirs, ROWS, strict=True):
        ids, labels = data.mask_prompt(
            data.format_prompt(instruction, context), response, tokenizer
        )
        assert list(row["input_ids"]) == ids
        assert list(row["labels"]) == labels
        learnt = [label for label in labels if label != -100]
        assert learnt[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learnt[:-1]) == response


def test_one_step_of_trl_has_our_loss(
    course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path
) -> None:
    ids, labels = batch(rows, tokenizer)
    with torch.no_grad():
        ours = logprobs.sft_loss(new_model()(input_ids=ids).logits, labels).item()
    for size, accumulation in ((4, 1), (2, 2), (1, 4)):
        # Accumulated or not, the loss is the mean over the tokens of all four rows.
        settings = small(batch_size=size, accumulation=accumulation)
        trainer = sft.make_trainer(
            course, new_model(), tokenizer, rows, settings, out=str(tmp_path)
        )
        output = trainer.train()
        assert output.global_step == 1
        assert output.training_loss == pytest.approx(ours, rel=1e-4), (size, accumulation)


@pytest.mark.slow
def test_training_learns_the_set_by_heart(
    course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    model = new_model()
    ids, labels = batch(rows, tokenizer)
    steps: list[tuple[int, int]] = []
    before = logprobs.sft_loss(model(input_ids=ids).logits, labels).item()
    trained, history = sft.train(
        course, model, tokenizer, rows, small(epochs=40),
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    after = logprobs.sft_loss(trained(input_ids=ids).logits, labels).item()
    assert after < before / 2
    assert not trained.training
    assert steps == [(done, 40) for done in range(1, 41)]
    # A row for the first step, then one for every five, each with the mean loss since the last.
    assert [row["step"] for row in history] == [1, 5, 10, 15, 20, 25, 30, 35, 40]
    assert all(set(row) == {"step", "loss", "learning_rate"} for row in history)
    assert history[0]["loss"] == pytest.approx(before, rel=1e-3)
    assert history[-1]["loss"] < history[0]["loss"] / 2
    # Warm-up is 3% of 40 steps, rounded up to 2: at step 1 the rate has not risen, later it falls.
    rates = [row["learning_rate"] for row in history]
    assert rates[0] < rates[1] > rates[2] > rates[-1] >= 0 and max(rates) <= 1e-2


def test_a_trained_model_can_be_copied(
    course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    # TRL patches forward; a deep copy of a patched model would go on using the original's weights.
    trained, _ = sft.train(course, new_model(), tokenizer, rows, small())
    ids, _labels = batch(rows, tokenizer)
    with torch.no_grad():
        copied = deepcopy(trained)
        before = copied(input_ids=ids).logits
        for weight in trained.parameters():
            weight.zero_()
        assert torch.equal(copied(input_ids=ids).logits, before)
        assert trained(input_ids=ids).logits.abs().max() == 0


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_seed_decides(
    adapter: str, course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any],
    offline: None,
) -> None:  # fmt: skip
    from datasets import concatenate_datasets

    # TRL sorts neighbours by length; only among more rows is there an order left to draw.
    rows = concatenate_datasets([rows] * 4)
    results = []
    for outer, seed in ((11, 0), (22, 0), (11, 1)):
        torch.manual_seed(outer)  # what ran before must not matter
        settings = small(adapter=adapter, batch_size=1)
        results.append(
            weights(sft.train(course, new_model(), tokenizer, rows, settings, seed=seed)[0])
        )
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_lora_trains_only_the_adapters_and_comes_back_from_disk(
    course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, offline: None,
) -> None:  # fmt: skip
    base, run = tmp_path / "base", tmp_path / "run"
    models.save(new_model(), tokenizer, base)
    monkeypatch.setattr(models, "base_path", lambda course: str(base))
    model, _ = models.load_base(course)
    before = weights(model)
    # Two layers, each with four attention matrices of 16 x 16 and three of the MLP of 16 x 32:
    # rank 4 costs 4 * (16 + 16) and 4 * (16 + 32). The embeddings (tied to the head) have none.
    adapters = 2 * (4 * 4 * 32 + 3 * 4 * 48)

    trained, _ = sft.train(course, model, tokenizer, rows, small(adapter="lora", epochs=5), out=run)
    assert models.count_parameters(trained, trainable=True) == adapters
    kept = {
        n.replace(".base_layer", ""): w for n, w in trained.get_base_model().state_dict().items()
    }
    for name, weight in before.items():
        assert torch.equal(kept[name], weight), name
    assert (run / "adapter_config.json").is_file() and not (run / "model.safetensors").exists()

    ids, _labels = batch(rows, tokenizer)
    again, its_tokenizer = models.load(run, course)
    with torch.no_grad():
        expected = trained(input_ids=ids).logits
        torch.testing.assert_close(again(input_ids=ids).logits, expected, atol=1e-6, rtol=0)
        untrained = models.load_base(course)[0](input_ids=ids).logits
    assert (expected - untrained).abs().max() > 1e-2, "the adapter learnt nothing"
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert its_tokenizer.padding_side == "left"


def test_a_full_run_comes_back_from_disk(
    course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path
) -> None:
    trained, _ = sft.train(course, new_model(), tokenizer, rows, small(), out=tmp_path / "run")
    again, its_tokenizer = models.load(tmp_path / "run", course)
    ids, _labels = batch(rows, its_tokenizer)
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, trained(input_ids=ids).logits)
    assert its_tokenizer.chat_template == tokenizer.chat_template
    assert list((tmp_path / "run").glob("**/checkpoint*")) == []


def test_long_examples_are_cut_at_the_end(
    course: Course, rows: Any, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    ids, labels = data.mask_prompt(
        data.format_prompt(ROWS[2][0], ROWS[2][1]), ROWS[2][2], tokenizer
    )
    limit = len(ids) - 3
    trainer = sft.make_trainer(
        course, new_model(), tokenizer, rows.select([2]), small(max_length=limit), out="unused"
    )
    assert list(trainer.train_dataset[0]["input_ids"]) == ids[:limit]
    assert list(trainer.train_dataset[0]["labels"]) == labels[:limit]
