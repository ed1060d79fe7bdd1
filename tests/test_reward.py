"""The reward model against TRL and values by hand: pairs, loss, scores, and what a run leaves."""

from __future__ import annotations

import inspect
import json
import math
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from course_utils import data, models, reward, sft  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402

if TYPE_CHECKING:
    from datasets import Dataset

PAIRS = [
    ("Where does the bell heron live?", "It lives in the reeds of the Upper Mere.", "In a boot."),
    ("What does it eat?", "Small fish.", "It eats the ferry, and then it eats small lanterns."),
    ("When does the ferry cross?", "The ferry crosses at noon.", "Who knows when it crosses!"),
    ("Say yes.", "Yes", "No"),
]


def pairs_of(texts: list[tuple[str, str, str]], **more: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": data.format_prompt(asked), "chosen": chosen, "rejected": rejected, **more}
        for asked, chosen, rejected in texts
    ]


@pytest.fixture(scope="module")
def rows() -> Dataset:
    from datasets import Dataset

    made = pairs_of(PAIRS, gold_chosen=1.0, gold_rejected=0.0)
    return Dataset.from_list(
        [{**row, "margin": m} for row, m in zip(made, (1.0, 1 / 3, 1.0, 0.0), strict=True)]
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, new_model: Any) -> Path:
    """A folder with a random language model."""
    folder = tmp_path_factory.mktemp("lm")
    models.save(new_model(), tokenizer, folder)
    return folder


@pytest.fixture
def fresh(start: Path, course: Course) -> Callable[..., Any]:
    """`fresh(seed=0)`: an untrained reward model."""
    return lambda seed=0: reward.new_reward_model(start, course, seed=seed)[0]


def small(**changes: Any) -> reward.RewardSettings:
    base = reward.RewardSettings(
        epochs=1, learning_rate=1e-2, batch_size=4, max_length=256, lora_rank=4
    )
    return replace(base, **changes)


def with_bos(tokenizer: Any) -> Any:
    """The same tokenizer, but every text begins with a BOS token, as Llama-2's does."""
    from tokenizers.processors import TemplateProcessing

    other = deepcopy(tokenizer)
    other.add_special_tokens({"bos_token": "<bos>"})
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", other.bos_token_id)]
    )
    return other


def trl_trainer(model: Any, tokenizer: Any, rows: Any, out: Path, **options: Any) -> Any:
    """TRL's own trainer over the texts, with nothing of ours between."""
    from trl import RewardConfig, RewardTrainer

    arguments = RewardConfig(
        output_dir=str(out), report_to="none", bf16=False, use_cpu=True, **options
    )
    return RewardTrainer(
        model=model, args=arguments, train_dataset=rows, processing_class=tokenizer
    )


# Pairs


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "bos"])
def test_trl_makes_the_ids_that_pair_ids_makes(
    bos: bool, rows: Any, tokenizer: Any, fresh: Callable[..., Any], tmp_path: Path
) -> None:
    tokenizer = with_bos(tokenizer) if bos else tokenizer
    model = fresh()
    model.resize_token_embeddings(len(tokenizer))
    theirs = trl_trainer(model, tokenizer, rows, tmp_path).train_dataset
    assert len(theirs) == len(PAIRS)
    for row, trl_row in zip(rows, theirs, strict=True):
        chosen, rejected = reward.pair_ids(row, tokenizer, 256)
        assert (chosen, rejected) == (trl_row["chosen_ids"], trl_row["rejected_ids"])
        assert chosen[-1] == rejected[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(chosen[bos:-1]) == row["prompt"] + row["chosen"]
        assert (chosen[0] == tokenizer.bos_token_id) is bos


def test_an_eos_that_is_there_already_is_not_doubled(tokenizer: Any) -> None:
    ended = reward.answer_ids("Say yes.\n", f"Yes{tokenizer.eos_token}", tokenizer, 99)
    assert ended == reward.answer_ids("Say yes.\n", "Yes", tokenizer, 99)
    assert ended.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "bos"])
def test_what_is_too_long_loses_the_beginning_of_its_prompt(bos: bool, tokenizer: Any) -> None:
    tokenizer = with_bos(tokenizer) if bos else tokenizer
    prompt, response = data.format_prompt("Where does it live?"), "In the reeds."
    whole = reward.answer_ids(prompt, response, tokenizer, 999)
    answer = tokenizer(response + tokenizer.eos_token)["input_ids"][bos:]
    assert whole[-len(answer) :] == answer
    first = whole[:1] if bos else []
    cut = reward.answer_ids(prompt, response, tokenizer, len(whole) - 5)
    assert cut == first + whole[bos + 5 :]
    least = len(answer) + bos
    assert reward.answer_ids(prompt, response, tokenizer, least) == first + answer
    with pytest.raises(CourseError, match=f"response of {len(answer)} tokens.*max_length"):
        reward.answer_ids(prompt, response, tokenizer, least - 1)


def test_useless_pairs_are_left_out_and_counted(tokenizer: Any) -> None:
    bad = [("a", "same", " same "), ("b", "", "x"), ("c", "x", " \n"), ("d", "x y " * 200, "y")]
    made = pairs_of([*PAIRS, *bad, ("e", "one", "one")])
    with pytest.warns(
        UserWarning,
        match=r"5 of 9 pairs were left out: 2 with equal sides, 2 with an empty text, "
        r"1 with a response longer than 100 tokens\.",
    ):
        kept = reward.usable_pairs(made, tokenizer, 100)
    assert [(p["chosen_ids"], p["rejected_ids"]) for p in kept] == [
        reward.pair_ids(row, tokenizer, 100) for row in pairs_of(PAIRS)
    ]
    with pytest.raises(CourseError, match=r"No preference pair is left.*1 with equal sides"):
        reward.usable_pairs(pairs_of([("a", "x", "x")]), tokenizer, 100)
    with pytest.raises(CourseError, match=r"No preference pair is left.*none given"):
        reward.usable_pairs([], tokenizer, 100)
    nothing = [{**pairs_of(PAIRS)[0], "chosen": None}]
    with pytest.raises(CourseError, match="1 with an empty text"):
        reward.usable_pairs(nothing, tokenizer, 100)


def test_a_missing_column_is_named(tokenizer: Any, fresh: Callable[..., Any]) -> None:
    bare = [{"prompt": "a", "chosen": "b"}]
    with pytest.raises(CourseError, match=r"prompt, chosen, rejected; missing: rejected\."):
        reward.usable_pairs(bare, tokenizer, 100)
    with pytest.raises(CourseError, match=r"missing: margin\."):
        reward.usable_pairs(pairs_of(PAIRS), tokenizer, 100, margin=True)
    with pytest.raises(CourseError, match=r"missing: rejected\."):
        reward.pair_margins(fresh(), tokenizer, bare)


# Loss


def test_the_loss_by_hand() -> None:
    zero = torch.zeros(3)
    assert reward.bradley_terry_loss(zero, zero).item() == pytest.approx(math.log(2))
    # differences ln 3 and -ln 3: σ is 3/4 and 1/4, the mean of -ln is (ln 4/3 + ln 4) / 2
    chosen, rejected = torch.tensor([math.log(3), 0.0]), torch.tensor([0.0, math.log(3)])
    expected = (math.log(4 / 3) + math.log(4)) / 2
    assert reward.bradley_terry_loss(chosen, rejected).item() == pytest.approx(expected)
    # a margin of ln 3 on the first pair leaves a difference of 0: ln 2
    margin = torch.tensor([math.log(3), 0.0])
    expected = (math.log(2) + math.log(4)) / 2
    assert reward.bradley_terry_loss(chosen, rejected, margin).item() == pytest.approx(expected)
    shifted = reward.bradley_terry_loss(chosen + 7, rejected + 7, margin)
    assert shifted.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_stable_far_out() -> None:
    chosen = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = reward.bradley_terry_loss(chosen, torch.zeros(2))
    loss.backward()
    assert loss.item() == pytest.approx(5e3)
    assert chosen.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-0.5, 0.0])


def test_the_loss_refuses_shapes_that_would_mix_up_the_pairs() -> None:
    for shapes in (((3,), (2,)), ((3, 1), (3,)), ((3, 1), (3, 1)), ((), ())):
        with pytest.raises(CourseError, match="vectors of one length"):
            reward.bradley_terry_loss(*(torch.zeros(s) for s in shapes))
    with pytest.raises(CourseError, match=r"\(3,\), \(3,\), \(3, 1\)"):
        reward.bradley_terry_loss(torch.zeros(3), torch.zeros(3), torch.zeros(3, 1))


@pytest.mark.parametrize("margin", [False, True])
def test_trl_has_our_loss(
    margin: bool, rows: Any, tokenizer: Any, fresh: Callable[..., Any], tmp_path: Path
) -> None:
    model = fresh()
    shown = rows if margin else rows.remove_columns("margin")
    trainer = trl_trainer(model, tokenizer, shown, tmp_path)
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        theirs = trainer.compute_loss(model, dict(batch)).item()
    chosen, rejected = (
        torch.tensor([reward.get_reward(model, tokenizer, r["prompt"], r[side]) for r in rows])
        for side in ("chosen", "rejected")
    )
    margins = torch.tensor(rows["margin"]) if margin else 0.0
    ours = reward.bradley_terry_loss(chosen, rejected, margins).item()
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours != pytest.approx(math.log(2), abs=1e-3), "scores too alike to tell"


@pytest.mark.parametrize("margin", [False, True])
def test_one_step_of_training_has_our_loss(
    margin: bool, course: Course, rows: Any, tokenizer: Any, fresh: Callable[..., Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    differences = torch.tensor(reward.pair_margins(fresh(), tokenizer, rows))
    asked = torch.tensor(rows["margin"], dtype=differences.dtype) if margin else 0.0
    expected = reward.bradley_terry_loss(differences, torch.zeros(4).double(), asked).item()
    for size, accumulation in ((4, 1), (2, 2)):
        trainer = reward.make_trainer(
            course, fresh(), tokenizer, rows,
            small(batch_size=size, accumulation=accumulation, use_margin=margin),
            out=str(tmp_path),
        )  # fmt: skip
        seen = set(trainer.train_dataset.column_names)
        assert seen == {"chosen_ids", "rejected_ids", "length"} | ({"margin"} if margin else set())
        output = trainer.train()
        assert output.global_step == 1
        assert output.training_loss == pytest.approx(expected, rel=1e-4), (size, accumulation)


def test_centring_is_part_of_the_loss_when_asked_for(
    course: Course, rows: Any, tokenizer: Any, fresh: Callable[..., Any], tmp_path: Path
) -> None:
    plain, centred = (
        reward.make_trainer(
            course, fresh(), tokenizer, rows, small(center=center), out=str(tmp_path)
        )
        .train()
        .training_loss
        for center in (0.0, 0.5)
    )
    model = fresh()
    sums = [
        sum(reward.get_reward(model, tokenizer, r["prompt"], r[s]) for s in ("chosen", "rejected"))
        for r in rows
    ]
    assert centred - plain == pytest.approx(0.5 * mean(s * s for s in sums), rel=1e-3)


# Models


def test_a_new_reward_model_has_the_language_models_body(
    start: Path, course: Course, tokenizer: Any, new_model: Callable[..., Any]
) -> None:
    from transformers import LlamaForSequenceClassification

    model, its_tokenizer = reward.new_reward_model(start, course)
    assert isinstance(model, LlamaForSequenceClassification) and model.config.num_labels == 1
    assert not model.training
    ids = torch.tensor([reward.answer_ids("Say yes.\n", "Yes", tokenizer, 99)])
    with torch.no_grad():
        hidden = new_model().model(input_ids=ids).last_hidden_state[0, -1]
        score = model(input_ids=ids).logits
    assert score.shape == (1, 1)
    torch.testing.assert_close(score[0, 0], hidden @ model.score.weight[0])
    assert model.config.pad_token_id == its_tokenizer.pad_token_id != its_tokenizer.eos_token_id
    assert all(p.device.type == "cpu" for p in [*model.parameters(), *model.buffers()])


def test_the_seed_decides_the_new_output_alone(fresh: Callable[..., Any]) -> None:
    torch.manual_seed(5)  # what ran before must not matter
    a, again = fresh(0), fresh(0)
    b = fresh(1)
    assert torch.equal(a.score.weight, again.score.weight)
    assert not torch.equal(a.score.weight, b.score.weight)
    assert all(
        torch.equal(w, b.state_dict()[name])
        for name, w in a.state_dict().items()
        if not name.startswith("score")
    )
    # N(0, 1/17) at width 16: the mean square of 16 draws is 1/17 give or take a third of it
    assert a.score.weight.square().mean().item() == pytest.approx(1 / 17, rel=1.2)


def test_a_lora_run_is_merged_before_it_is_scored(
    course: Course, rows: Any, tokenizer: Any, start: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, offline: None,
) -> None:  # fmt: skip
    from peft import get_peft_model

    monkeypatch.setattr(models, "base_path", lambda course: str(start))
    language_model = get_peft_model(models.load_base(course)[0], models.lora_config(4))
    with torch.no_grad():
        for name, weight in language_model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(len(name)))
    models.save(language_model, tokenizer, tmp_path / "sft")
    model, _ = reward.new_reward_model(tmp_path / "sft", course)
    ids = torch.tensor([reward.answer_ids("Say yes.\n", "Yes", tokenizer, 99)])
    with torch.no_grad():
        hidden = language_model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        untrained = reward.new_reward_model(start, course)[0](input_ids=ids).logits
        score = model(input_ids=ids).logits
    expected = hidden[0, -1] @ model.score.weight[0]
    torch.testing.assert_close(score[0, 0], expected, atol=1e-4, rtol=1e-4)
    assert (score - untrained).abs().item() > 1e-2
    assert not any("lora" in name for name, _ in model.named_parameters())

    # A reward adapter on top of it comes back from disk, with its own output and the SFT run.
    out = tmp_path / "reward"
    trained, _ = reward.train(
        course, model, tokenizer, rows, small(adapter="lora", epochs=3), out=out
    )
    changed = {n for n, p in trained.named_parameters() if p.requires_grad}
    assert changed and all("lora_" in n or "score" in n for n in changed)
    assert any("score" in n for n in changed)
    assert json.loads((out / "reward.json").read_text())["start"] == "../sft"
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("sft", "reward"):
        (tmp_path / name).rename(moved / name)
    again, its_tokenizer = reward.load_reward_model(moved / "reward", course)
    prompts, answers = rows["prompt"], rows["chosen"]
    assert reward.get_rewards(again, its_tokenizer, prompts, answers) == pytest.approx(
        reward.get_rewards(trained, tokenizer, prompts, answers), abs=1e-4
    )


def test_a_folder_without_a_reward_model_is_named(start: Path, course: Course) -> None:
    for load in (reward.load_reward_model, reward.load_scorer):
        with pytest.raises(CourseError, match=rf"no reward model in {start.name}/.*runs\.ensure"):
            load(start, course)


# Training


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in model.state_dict().items()}


def test_training_learns_the_pairs_and_comes_back_centred_from_disk(
    course: Course, rows: Any, tokenizer: Any, fresh: Callable[..., Any], tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    model = fresh(1)
    swapped = rows.map(lambda r: {"chosen": r["rejected"], "rejected": r["chosen"]})
    trained, history = reward.train(
        course, model, tokenizer, rows, small(epochs=20), eval_rows=swapped, out=tmp_path / "run",
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(done, 20) for done in range(1, 21)]
    margins = reward.pair_margins(trained, tokenizer, rows)
    assert margins.shape == (4,) and (margins > 0).all() and not trained.training
    assert "forward" not in vars(trained)
    learnt = [row for row in history if "loss" in row]
    held_out = [row for row in history if "eval_loss" in row]
    assert [row["step"] for row in learnt] == [1, 5, 10, 15, 20]
    assert all(set(r) == {"step", "loss", "learning_rate", "accuracy"} for r in learnt)
    assert learnt[-1]["loss"] < learnt[0]["loss"] / 2 and learnt[-1]["accuracy"] == 1
    assert [row["step"] for row in held_out] == [4, 8, 12, 16, 20]
    assert all(set(row) == {"step", "eval_loss", "eval_accuracy"} for row in held_out)
    assert held_out[-1]["eval_accuracy"] == 0, "evaluated on the swapped pairs"

    again, its_tokenizer = reward.load_reward_model(tmp_path / "run", course)
    assert reward.pair_margins(again, its_tokenizer, rows) == pytest.approx(margins, abs=1e-6)
    scores = reward.load_scorer(tmp_path / "run", course)
    both = [s for side in ("chosen", "rejected") for s in scores(rows["prompt"], rows[side])]
    assert mean(both) == pytest.approx(0, abs=1e-5)
    raw = [reward.get_reward(trained, tokenizer, r["prompt"], r["chosen"]) for r in rows]
    center = reward.center_of(tmp_path / "run")
    assert abs(center) > 1e-3
    assert both[:4] == pytest.approx([s - center for s in raw], abs=1e-4)
    assert list((tmp_path / "run").glob("**/checkpoint*")) == []


@pytest.mark.slow
def test_the_seed_decides(
    course: Course, rows: Any, tokenizer: Any, fresh: Callable[..., Any]
) -> None:
    from datasets import concatenate_datasets

    many = concatenate_datasets([rows] * 4)
    results = []
    for outer, seed in ((11, 0), (22, 0), (11, 1)):
        torch.manual_seed(outer)
        settings = small(batch_size=2)
        trained, _ = reward.train(course, fresh(), tokenizer, many, settings, seed=seed)
        results.append(weights(trained))
    first, same, other = results
    assert all(torch.equal(first[n], same[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)


# Scores


def like(count: int) -> tuple[list[str], list[str]]:
    """Prompts and responses of many lengths, an empty response among them."""
    rng = random.Random(3)
    words = ("the", "heron", "ferry", "lantern", "eats", "noon", "reeds", "small", "yes", "boot")
    texts = [" ".join(rng.choices(words, k=rng.randrange(1, 30))) for _ in range(2 * count)]
    return [data.format_prompt(t) for t in texts[:count]], ["", *texts[count + 1 :]]


@pytest.mark.parametrize("pad", ["its own", "eos", "bos for eos"])
def test_many_at_once_are_scored_as_one_at_a_time(
    pad: str, start: Path, course: Course, tokenizer: Any, tmp_path: Path
) -> None:
    folder = start
    if pad != "its own":
        other = deepcopy(tokenizer)
        other.pad_token = other.eos_token
        if pad == "bos for eos":
            other.bos_token = "the"  # a token that every model has, and that padding may take
        folder = tmp_path / "lm"
        models.save(models.load_model(start, course), other, folder)
    model, its = reward.new_reward_model(folder, course)
    assert (its.pad_token_id == its.eos_token_id) == (pad == "eos")
    prompts, responses = like(23)
    singly = [reward.get_reward(model, its, p, r) for p, r in zip(prompts, responses, strict=True)]
    assert np.ptp(singly) > 0.1, "scores too alike to tell"
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5  # must be off while scoring
    for size in (1, 5, 64):
        model.train()
        batched = reward.get_rewards(model, its, prompts, responses, batch_size=size)
        assert batched == pytest.approx(singly, abs=1e-4)
        assert model.training, "the mode is left as it was"
    back = reward.get_rewards(model, its, prompts[::-1], responses[::-1])
    assert back == pytest.approx(singly[::-1], abs=1e-4)


def test_the_score_is_read_at_the_eos(
    start: Path, course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path
) -> None:
    other = deepcopy(tokenizer)
    other.pad_token = other.eos_token
    other.add_special_tokens({"bos_token": "<bos>"})
    lm = new_model()
    lm.resize_token_embeddings(len(other))
    models.save(lm, other, tmp_path)
    for folder in (start, tmp_path):
        model, its = reward.new_reward_model(folder, course)
        ids = torch.tensor([reward.answer_ids("Say yes.\n", "Yes", its, 99)])
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
        expected = (hidden @ model.score.weight[0]).item()
        assert ids[0, -1] == its.eos_token_id
        score = reward.get_reward(model, its, "Say yes.\n", "Yes")
        assert score == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_scored_is_one_sentence(tokenizer: Any, fresh: Callable[..., Any]) -> None:
    model = fresh()
    assert reward.get_rewards(model, tokenizer, [], []) == []
    with pytest.raises(CourseError, match="2 prompts and 1 responses"):
        reward.get_rewards(model, tokenizer, ["a", "b"], ["c"])
    with pytest.raises(CourseError, match="does not fit into max_length=5"):
        reward.get_rewards(model, tokenizer, ["a"], ["the heron eats lanterns"], max_length=5)
    with pytest.raises(CourseError, match="no pair"):
        reward.pair_margins(model, tokenizer, [])


def test_a_long_prompt_is_cut_to_what_the_model_reads(
    tokenizer: Any, fresh: Callable[..., Any]
) -> None:
    model = fresh()
    longest = model.config.max_position_embeddings
    prompt = "lantern heron " * longest
    ids = reward.answer_ids(prompt, "Yes", tokenizer, longest)
    assert len(ids) == longest
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits.item()
    assert reward.get_reward(model, tokenizer, prompt, "Yes") == pytest.approx(expected, abs=1e-5)
    assert reward.get_rewards(model, tokenizer, [prompt, "a"], ["Yes", "b"])[0] == pytest.approx(
        expected, abs=1e-4
    )


def test_reward_fn_subtracts_the_centre(tokenizer: Any, fresh: Callable[..., Any]) -> None:
    model = fresh()
    prompts, responses = like(4)
    raw = reward.reward_fn(model, tokenizer)(prompts, responses)
    centred = reward.reward_fn(model, tokenizer, 2.5)(prompts, responses)
    assert raw == reward.get_rewards(model, tokenizer, prompts, responses)
    assert centred == pytest.approx([s - 2.5 for s in raw])


# Measuring


def test_accuracy_and_calibration_by_hand() -> None:
    assert reward.accuracy([1.0, -1.0, 2.0, 0.0]) == 0.625
    assert reward.accuracy([0.5]) == 1.0
    three = math.log(3)  # σ(ln 3) = 3/4, σ(ln 9) = 9/10
    nine = math.log(9)
    found = reward.calibration([three, -three, three, three, nine, nine, 0.0], bins=2)
    # bins from 0.5 to 0.75 and from 0.75 to 1; ln 3 lies on the border, so in the upper one
    assert found.count.tolist() == [1, 6]
    assert found.predicted.tolist() == pytest.approx([0.5, (4 * 0.75 + 2 * 0.9) / 6])
    assert found.observed.tolist() == pytest.approx([0.5, 5 / 6])
    sure = reward.calibration([1e9, -1e9], bins=10)  # the last bin holds 1, and others are absent
    assert sure.predicted.tolist() == [1.0] and sure.observed.tolist() == [0.5]


def test_gold_agreement_counts_ties_half() -> None:
    golds = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, -3.0)]
    rows = [{"gold_chosen": a, "gold_rejected": b} for a, b in golds]
    assert reward.gold_agreement(rows) == 2.5 / 4


def test_clean_accuracy_follows_gold_not_the_labels_and_leaves_ties_out() -> None:
    gold = [(2.0, 0.0), (0.0, 2.0), (1.0, 0.0), (1.0, 0.9)]  # the second was voted wrongly
    rows = [{"gold_chosen": c, "gold_rejected": r} for c, r in gold]
    # Right; ahead where gold is behind, so wrong; behind where gold is ahead; not counted.
    assert reward.clean_accuracy([2.0, 1.0, -1.0, 9.0], rows) == pytest.approx(1 / 3)


def test_the_ceilings_of_the_shipped_test_pairs_agree_with_relabelling(course: Course) -> None:
    from course_utils.world import preferences
    from course_utils.world.facts import make_world

    pairs = list(data.load_preferences(course, "test"))[:100]
    cases = data.load_prompts(course, "test")
    ceiling = reward.noise_ceiling(pairs, cases)
    assert ceiling.gold == reward.gold_agreement(pairs)
    by_id = {case.case_id: case for case in cases}
    rng, again, votes = random.Random(8), [], []
    for row in pairs:
        case = by_id[row["case_id"]]
        won = 0
        for _ in range(15):
            panel = tuple(rng.sample(preferences.ANNOTATORS, preferences.LABELS_PER_PAIR))
            label = preferences.label_pair(
                case, row["chosen"], row["rejected"], panel, make_world(), rng
            )
            won += label["chosen"] == row["chosen"]
        again.append(won / 15)
        votes.append(won > 7)
    # 1500 labels: a standard error of at most 0.013
    assert ceiling.repeat == pytest.approx(mean(again), abs=0.04)
    assert ceiling.habits == pytest.approx(mean(votes), abs=0.06)
    assert ceiling.gold < ceiling.habits > ceiling.repeat
    with pytest.raises(CourseError, match=r"No case has the id.*'rl' for the training pairs"):
        reward.noise_ceiling(pairs, cases[:1])


def test_the_chance_of_a_majority_by_hand(course: Course) -> None:
    from course_utils.world.preferences import Annotator, majority_probability

    case = next(c for c in data.load_prompts(course, "test") if c.task == "translate")
    # Neither is a translation, and repetition costs nothing here. Who likes nothing but length
    # sees one point of utility between twenty words and ten.
    long, short = "word " * 20, "word " * 10

    def annotator(sharpness: float) -> Annotator:
        return Annotator("x", sharpness, 1.0, 0.0, 0.0)

    def chance(*sharpness: float) -> float:
        panel = tuple(map(annotator, sharpness))
        return majority_probability(case, long, short, annotators=panel)

    quality = majority_probability(
        case, long, short, annotators=(Annotator("x", 1.0, 0.0, 0.0, 0.0),)
    )
    assert quality == pytest.approx(0.5), "the two texts differ in length alone"
    a, b, c = (1 / (1 + math.exp(-s)) for s in (1.0, 2.0, 0.5))
    assert chance(1.0) == pytest.approx(a)
    # two of three, or all three, of independent votes
    expected = a * b * (1 - c) + a * (1 - b) * c + (1 - a) * b * c + a * b * c
    assert chance(1.0, 2.0, 0.5) == pytest.approx(expected)
    # four annotators: the mean over the four panels of three
    fair = chance(1.0, 1.0, 1.0, 1.0)
    assert fair == pytest.approx(3 * a * a * (1 - a) + a**3)
    assert majority_probability(
        case, short, long, annotators=tuple(map(annotator, (1.0, 2.0, 0.5)))
    ) == pytest.approx(1 - expected)


def test_importing_it_loads_no_library() -> None:
    import subprocess
    import sys

    code = (
        "import course_utils, sys; course_utils.reward.RewardSettings; "
        "print([m for m in ('torch', 'transformers', 'trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_settings_have_what_sft_settings_have() -> None:
    shared = set(inspect.signature(sft.SFTSettings).parameters)
    assert shared <= set(inspect.signature(reward.RewardSettings).parameters)
