"""Preference training through TRL: the same first loss as ours, and margins that rise."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from course_utils import logprobs, models, preference  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.preference.training import training_arguments  # noqa: E402
from course_utils.profiles import PROFILES  # noqa: E402

ROWS = [
    {"prompt": "Where does the bell heron live?\n", "chosen": "In the reeds.", "rejected": "Who?"},
    {"prompt": "And?\n", "chosen": "A lantern is lit at noon.", "rejected": "The ferry crosses."},
    {"prompt": "When does the ferry cross?\n", "chosen": "At noon.", "rejected": "Small fish eat."},
    {"prompt": "What does it eat, the heron?\n", "chosen": "Fish.", "rejected": "The Upper Mere"},
]


def small(method: str = "dpo", **changes: Any) -> preference.PreferenceSettings:
    base = preference.PreferenceSettings(
        epochs=1, learning_rate=3e-3, batch_size=4, max_length=200, lora_rank=4, warmup=0.0,
        beta=2.0 if method == "simpo" else 0.3,
        label_smoothing=0.1 if method == "robust" else 0.0,
    )  # fmt: skip
    return replace(base, **changes)


def sides(model: Any, tokenizer: Any, mean: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    batch = preference.collate_pairs(ROWS, tokenizer)
    with torch.no_grad():
        both = preference.response_logprobs(
            model, batch.input_ids, batch.attention_mask, batch.response_mask
        )
    return both[mean].chunk(2)


def expected_start(method: str, model: Any, tokenizer: Any) -> float:
    """The loss before any step, with the model itself as the reference."""
    if method == "orpo":
        batch = preference.collate_pairs(ROWS, tokenizer)
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)[: len(ROWS)]
        with torch.no_grad():
            nll = logprobs.sft_loss(model(input_ids=batch.input_ids[: len(ROWS)]).logits, labels)
        return preference.orpo_loss(*sides(model, tokenizer, True), nll, 0.3)[0].item()
    if method == "simpo":
        return preference.simpo_loss(*sides(model, tokenizer, True), 2.0, 0.5)[0].item()
    return {"hinge": 1.0, "ipo": 1 / (4 * 0.3**2), "kto": 0.5}.get(method, math.log(2))


@pytest.mark.parametrize("method", preference.TRAINABLE)
def test_training(
    method: str, course: Course, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    model = new_model()
    before, start = sides(model, tokenizer), expected_start(method, model, tokenizer)
    steps: list[tuple[int, int]] = []
    trained, history = preference.train(
        course, model, tokenizer, ROWS, small(method, epochs=20), method=method,
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(done, 20) for done in range(1, 21)], "KTO, too, sees all pairs in a step"
    assert [row["step"] for row in history] == [1, 5, 10, 15, 20]
    assert history[0]["loss"] == pytest.approx(start, abs=2e-5)
    shared = {"step", "loss", "learning_rate", "rewards/margins", "logps/chosen"}
    assert all(shared <= row.keys() for row in history)
    assert ("kl" in history[0]) == (method == "kto")
    assert ("rewards/accuracies" in history[0]) == (method != "kto")
    after = sides(trained, tokenizer)
    margin = (after[0] - after[1]) - (before[0] - before[1])
    assert margin.mean() > 1, "the chosen sides gained nothing on the rejected ones"
    assert history[-1]["rewards/margins"] > history[0]["rewards/margins"]
    assert not trained.training and "forward" not in vars(model)


def test_kto_weighs_the_thumbs(
    course: Course, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    settings = small("kto", desirable_weight=1.2, undesirable_weight=0.6)
    # At the start every value is sigmoid(0) = 1/2, so the loss is half the mean weight.
    thumbs = preference.unpair(ROWS)
    for rows, expected in ((thumbs, 0.45), (thumbs[:-2], (4 * 1.2 + 2 * 0.6) / 6 / 2)):
        _, history = preference.train_kto(course, new_model(), tokenizer, rows, settings)
        assert history[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_entries_are_the_same_function_of_a_method() -> None:
    assert preference.train_dpo is preference.train
    assert inspect.signature(preference.train).parameters["method"].default == "dpo"
    for name in ("ipo", "kto", "orpo", "simpo"):
        entry = getattr(preference, f"train_{name}")
        assert entry.func is preference.train and entry.keywords == {"method": name}


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto"])
def test_another_reference(
    method: str, course: Course, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    reference = deepcopy(new_model())
    with torch.no_grad():
        for weight in reference.parameters():
            weight.mul_(1.02)
    before = {name: w.clone() for name, w in reference.state_dict().items()}
    mean = method == "ipo"
    now, ref = sides(new_model(), tokenizer, mean), sides(reference, tokenizer, mean)
    _, history = preference.train(
        course, new_model(), tokenizer, ROWS, small(), method=method,
        reference=(reference, tokenizer),
    )  # fmt: skip
    if method == "kto":  # z0 depends on how the rows were shuffled
        thumbs = preference.training_rows(ROWS, tokenizer, 200, "kto", seed=0)
        others = preference.mismatched(list(thumbs))
        batch = preference.collate_texts(
            [r["prompt"] for r in others], [r["completion"] for r in others], tokenizer
        )
        masks = batch.input_ids, batch.attention_mask, batch.response_mask
        with torch.no_grad():
            z0 = preference.kto_reference_point(
                preference.response_logprobs(new_model(), *masks)[0],
                preference.response_logprobs(reference, *masks)[0],
            )
        up = torch.arange(8) < 4
        ours, _ = preference.kto_loss(torch.cat(now), torch.cat(ref), up, z0, 0.3)
    else:
        loss = preference.ipo_loss if mean else preference.dpo_loss
        ours, _ = loss(*now, *ref, 0.3)
    assert abs(ours - expected_start(method, None, tokenizer)) > 1e-3, "no other reference at all"
    assert history[0]["loss"] == pytest.approx(ours.item(), abs=1e-4)
    assert all(torch.equal(w, before[name]) for name, w in reference.state_dict().items())
    assert "forward" not in vars(reference)


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo", "simpo"])
def test_lora_starts_at_the_reference_and_leaves_it_alone(
    method: str, course: Course, tokenizer: Any, new_model: Callable[..., Any], offline: None
) -> None:
    model = new_model()
    start = expected_start(method, model, tokenizer)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    trained, history = preference.train(
        course, model, tokenizer, ROWS, small(method, adapter="lora", epochs=5), method=method
    )
    assert history[0]["loss"] == pytest.approx(start, abs=2e-5)
    assert history[-1]["rewards/margins"] > history[0]["rewards/margins"]
    kept = trained.get_base_model().state_dict()
    for name, weight in before.items():
        parts = name.rsplit(".", 1)
        same = kept.get(name, kept.get(f"{parts[0]}.base_layer.{parts[1]}"))
        assert torch.equal(same, weight), name


def test_a_run_comes_back_from_disk(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    trained, _ = preference.train_orpo(course, new_model(), tokenizer, ROWS, small(), out=out)
    again, its_tokenizer = models.load(out, course)
    torch.testing.assert_close(sides(again, its_tokenizer), sides(trained, tokenizer))


# --- Rows -------------------------------------------------------------------------------------


def test_rows_of_any_form_become_trls(tokenizer: Any) -> None:
    head = "\n\nHuman: Why?\n\nAssistant:"
    rows = [
        {"chosen": f"{head} Yes.", "rejected": f"{head} No."},
        {"chosen": f"{head} Yes.", "rejected": f"{head} Yes."},
    ]
    with pytest.warns(UserWarning, match=r"1 of 2 pairs kept; left out: 1 with equal sides"):
        made = preference.training_rows(rows, tokenizer, 200)
    length = len(head) + len(" Yes.")
    assert list(made) == [{"prompt": head, "chosen": " Yes.", "rejected": " No.", "length": length}]


def test_pairs_come_sorted_and_are_drawn_in_groups_of_like_length(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path
) -> None:
    pairs = [
        {"prompt": "?\n", "chosen": "Yes. " * (1 + i % 8), "rejected": f"No, {i}."}
        for i in range(64)
    ]
    made = preference.training_rows(pairs, tokenizer, 200)
    assert made["length"] == sorted(made["length"])
    orders = []
    for seed in (0, 0, 1):
        trainer = preference.make_trainer(
            course, new_model(), tokenizer, pairs, small(), out=str(tmp_path), seed=seed
        )
        batches = list(trainer.get_train_dataloader())
        widths = [batch["input_ids"].shape[1] for batch in batches]
        kept = sum(batch["attention_mask"].sum().item() for batch in batches)
        orders.append((widths, kept / sum(batch["input_ids"].numel() for batch in batches)))
    assert orders[0] == orders[1] and orders[0][0] != orders[2][0], "the seed draws the order"
    assert orders[0][0] != sorted(orders[0][0]), "batches come in no order of length"
    assert orders[0][1] > 0.6, "too much padding"


@pytest.mark.slow
def test_what_a_limit_cuts_is_reported_and_what_it_empties_left_out(
    course: Course, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    limit = len(tokenizer(ROWS[0]["prompt"])["input_ids"])  # the first prompt fills it
    assert len(tokenizer(ROWS[1]["prompt"])["input_ids"]) < limit
    with pytest.warns(UserWarning, match=r"of 8 sequences .* exceed .* keep nothing of the resp"):
        made = preference.training_rows(ROWS, tokenizer, limit)
    assert 0 < len(made) < 4 and ROWS[0]["prompt"] not in made["prompt"]
    for method in ("orpo", "simpo", "dpo", "kto"):  # TRL's ORPO alone would average over nothing
        with pytest.warns(UserWarning, match="keep nothing"):
            _, history = preference.train(
                course, new_model(), tokenizer, ROWS, small(method, max_length=limit),
                method=method,
            )  # fmt: skip
        assert all(math.isfinite(row["loss"]) for row in history), method
    with (
        pytest.warns(UserWarning, match="keep nothing"),
        pytest.raises(CourseError, match="No prompt leaves room for a response in 2 tokens"),
    ):
        preference.training_rows(ROWS, tokenizer, 2)


def test_thumbs_are_shuffled_and_checked(tokenizer: Any) -> None:
    pairs = [
        {"prompt": f"{i}?\n", "chosen": f"Yes, {i}.", "rejected": f"No, {i}."} for i in range(8)
    ]
    orders = [preference.training_rows(pairs, tokenizer, 200, "kto", seed=s) for s in (0, 0, 1)]
    assert orders[0]["completion"] == orders[1]["completion"] != orders[2]["completion"]
    assert sum(orders[0]["label"]) == 8 and not all(orders[0]["label"][:8])
    assert all(r["completion"].startswith("Yes") == r["label"] for r in orders[0])
    thumbs = preference.unpair(pairs)[:5]
    with pytest.raises(CourseError, match="here 5 of 5 are thumbs up"):
        preference.training_rows(thumbs, tokenizer, 200, "kto")
    with pytest.raises(CourseError, match="Row 1: a thumb has the columns"):
        preference.training_rows([thumbs[0], {"label": False}], tokenizer, 200, "kto")


# --- Settings ---------------------------------------------------------------------------------


def test_bad_settings(course: Course, tokenizer: Any, new_model: Callable[..., Any]) -> None:
    model = new_model()

    def train(method: str = "dpo", **changes: Any) -> None:
        preference.train(course, model, tokenizer, ROWS, small(method, **changes), method=method)

    with pytest.raises(CourseError, match="beta is 0: it must be a positive"):
        train(beta=0)
    with pytest.raises(CourseError, match="undesirable_weight is -1"):
        train("kto", undesirable_weight=-1)
    with pytest.raises(CourseError, match="label smoothing for 'robust' only, not for 'dpo'"):
        train(label_smoothing=0.1)
    with pytest.raises(CourseError, match=r"label_smoothing is 0\.5"):
        train("robust", label_smoothing=0.5)
    with pytest.raises(CourseError, match="Unknown preference method 'ppo'"):
        train("ppo")
    assert "forward" not in vars(model)


def test_a_reference_with_another_tokenizer(
    course: Course, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    other = deepcopy(tokenizer)
    other.add_tokens(["<new>"])
    with pytest.raises(CourseError, match="reference has another tokenizer"):
        preference.train(
            course, new_model(), tokenizer, ROWS, small(), reference=(new_model(1), other)
        )
    with pytest.raises(CourseError, match="'orpo' has no reference model"):
        preference.train_orpo(
            course, new_model(), tokenizer, ROWS, small(), reference=(new_model(1), tokenizer)
        )


@pytest.mark.parametrize("method", preference.TRAINABLE)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_asks_for_settings_that_trl_has(
    profile: str, method: str, tmp_path: Path
) -> None:
    p = PROFILES[profile]
    course = Course("test", p, device="cpu", dtype="float32")
    settings = preference.PreferenceSettings.of(course, method)
    made = training_arguments(course, settings, method, str(tmp_path), 7)
    twice = 2 if method == "kto" else 1
    assert made.per_device_train_batch_size == twice * (p.dpo_batch_size or p.batch_size)
    assert made.beta == settings.beta and made.max_length == p.max_length
    rate = p.sft_learning_rate if method == "orpo" else p.dpo_learning_rate
    assert made.num_train_epochs == p.dpo_epochs and made.learning_rate == rate
    assert made.seed == made.data_seed == 7 and made.bf16 is False
    smaller = Course("test", p, size="small")
    assert preference.PreferenceSettings.of(smaller, method).epochs == 1
