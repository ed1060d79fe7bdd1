"""SPIN: its closed form against an optimiser, its pairs and rounds by hand, its record."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from datasets import Dataset  # noqa: E402

from course_utils import data, evaluation, preference, sft, spin, sweeps  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.exercises.ch10 import best_round  # noqa: E402
from course_utils.generation import Generation  # noqa: E402
from course_utils.preference.pipeline import pair_logprobs  # noqa: E402
from course_utils.profiles import PROFILES  # noqa: E402
from course_utils.world import gold  # noqa: E402

ROWS = [
    {"instruction": "Where does it live?", "context": "", "response": "In the reeds."},
    {"instruction": "When?", "context": "", "response": "At noon, every evening."},
    {"instruction": "Who?", "context": "", "response": "The bell heron."},
    {"instruction": "What does it eat?", "context": "", "response": "Small fish."},
]
OWN = ["The ferry.", "At noon, every evening.", " ", "A lantern."]  # of the model, made up


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_where_a_round_leads_against_an_optimiser(beta: float) -> None:
    """The loss of every pair of three responses, each as likely as it is drawn, minimised."""
    people = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    opponent = torch.tensor([0.5, 0.4, 0.1], dtype=torch.float64)
    real, own = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
    drawn = people[real] * opponent[own]
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12)

    def closure() -> Any:
        optimiser.zero_grad()
        policy, ref = logits.log_softmax(-1), opponent.log()
        losses = torch.stack(
            [
                preference.dpo_loss(policy[[i]], policy[[j]], ref[[i]], ref[[j]], beta)[0]
                for i, j in zip(real.tolist(), own.tolist(), strict=True)
            ]
        )
        loss = (drawn * losses).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert torch.allclose(logits.softmax(-1), best_round(opponent, people, beta), atol=1e-4)


def test_pairs_by_hand() -> None:
    rows = [{"prompt": f"{n}?", "completion": row["response"]} for n, row in enumerate(ROWS)]
    pairs, left_out = spin.spin_pairs(rows, OWN)
    assert left_out == 2, "one equals people's, one is empty"
    assert pairs == [
        {"prompt": "0?", "chosen": "In the reeds.", "rejected": "The ferry."},
        {"prompt": "3?", "chosen": "Small fish.", "rejected": "A lantern."},
    ]


def test_rounds_draw_their_own_prompts() -> None:
    rows = Dataset.from_list([{"instruction": str(i)} for i in range(50)])
    first, again, second, other = (
        spin.draw(rows, 20, seed, number)["instruction"]
        for seed, number in ((0, 1), (0, 1), (0, 2), (1, 1))
    )
    assert first == again and len(set(first)) == 20
    assert first != second and first != other
    assert len(spin.draw(rows, 99, 0, 1)) == 50


def test_careful_demonstrators(course: Course) -> None:
    careful = spin.careful_demonstrations(course)
    assert list(careful) == list(spin.careful_demonstrations(course))
    cases = data.load_prompts(course, "rl")
    assert careful["instruction"] == [case.instruction for case in cases]
    told = [
        gold.score(case, text, finished=True).total
        for case, text in zip(cases, careful["response"], strict=True)
    ]
    assert np.mean(told) > 2, "far above the demonstrations that SFT was shown"
    tested = {(case.instruction, case.context) for case in data.load_prompts(course, "test")}
    assert not tested & set(zip(careful["instruction"], careful["context"], strict=True))
    with pytest.raises(CourseError, match="tiny"):
        spin.careful_demonstrations(Course("test", PROFILES["laptop"]))


def test_gold_of_people(course: Course) -> None:
    own, careful = (
        np.mean([score.total for score in spin.gold_of_people(course, source)])
        for source in spin.SOURCES
    )
    assert 0 < own < 1 < 2 < careful, "half of the own ones are careless, most are curt"


def played(
    course: Course, model: Any, tokenizer: Any, seed: int = 0, epochs: int = 1
) -> tuple[Any, spin.Round]:
    settings = replace(
        spin.spin_settings(course), learning_rate=3e-3, max_length=200, epochs=epochs
    )
    rows = Dataset.from_list(ROWS)
    return spin.spin_iteration(
        model, rows, course=course, tokenizer=tokenizer, settings=settings, seed=seed
    )


@pytest.mark.slow
def test_rounds_follow_one_another_with_lora(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round puts on an adapter of its own, so the one before has to be folded in."""
    monkeypatch.setattr(spin, "generate", lambda *a, **k: [Generation(t, (), True) for t in OWN])
    with_lora = replace(course, profile=replace(course.profile, adapter="lora", lora_rank=2))
    model = new_model()
    for seed in range(2):
        model, _ = played(with_lora, model, tokenizer, seed)
        assert not hasattr(model, "peft_config") and not hasattr(model, "merge_and_unload")


@pytest.mark.slow
def test_a_round_prefers_people_to_the_opponent(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def answers(model: Any, tokenizer: Any, prompts: Any, **options: Any) -> list[Generation]:
        asked.append(list(prompts))
        return [Generation(text, (), True) for text in OWN]

    histories: list[Any] = []
    train = spin.train_on_pairs

    def recorded(*given: Any, **options: Any) -> Any:
        trained, history = train(*given, **options)
        histories.append(history)
        return trained, history

    monkeypatch.setattr(spin, "generate", answers)
    monkeypatch.setattr(spin, "train_on_pairs", recorded)
    prompts = data.to_prompt_completion(Dataset.from_list(ROWS))["prompt"]
    pairs = [
        {"prompt": prompts[i], "chosen": ROWS[i]["response"], "rejected": OWN[i]} for i in (0, 3)
    ]
    before = pair_logprobs(new_model(), tokenizer, pairs)
    model, first = played(course, new_model(), tokenizer, epochs=10)
    assert (first.pairs, first.same, first.generated) == (2, 2, tuple(OWN))
    assert asked[0] == prompts
    after = pair_logprobs(model, tokenizer, pairs)
    assert ((after - before)[0] > (after - before)[1] + 0.5).all()
    model, _ = played(course, model, tokenizer)
    # ln 2: at the start of each round the reference is the model itself, not the first one.
    assert [h[0]["loss"] for h in histories] == pytest.approx([math.log(2)] * 2, abs=1e-4)


def test_told_apart_is_the_later_half(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [{"rewards/accuracies": share} for share in (0.0, 0.25, 0.5, 1.0)]
    monkeypatch.setattr(spin, "train_on_pairs", lambda *given, **options: (given[1], history))
    _, said = played(course, new_model(), tokenizer)
    assert said.told_apart == 0.75


def test_samples_are_the_models_own(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [{"rewards/accuracies": 1.0}]
    monkeypatch.setattr(spin, "train_on_pairs", lambda *given, **options: (given[1], history))
    texts = [
        played(course, new_model(weights), tokenizer, seed)[1].generated
        for weights, seed in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert texts[0] == texts[1] and texts[0] != texts[2] and texts[0] != texts[3]


def test_nothing_left_to_learn(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [Generation(row["response"], (), True) for row in ROWS]
    monkeypatch.setattr(spin, "generate", lambda *given, **options: same)
    with pytest.raises(CourseError, match="nothing left to learn"):
        played(course, new_model(), tokenizer)


def test_the_control_takes_the_same_steps(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, control = spin.spin_settings(course), spin.sft_settings(course)
    assert (control.batch_size, control.epochs) == (rounds.batch_size, rounds.epochs) == (16, 1)
    assert control.learning_rate == sft.SFTSettings.of(course).learning_rate / 2
    assert rounds.learning_rate == pytest.approx(course.profile.dpo_learning_rate / 3)
    laptop = replace(course, profile=PROFILES["laptop"])
    rounds, slower = spin.spin_settings(laptop), spin.sft_settings(laptop)
    assert (slower.batch_size, rounds.batch_size, rounds.learning_rate) == (4, 4, 1e-3)
    given: list[Any] = []
    monkeypatch.setattr(sft, "train", lambda *args, **options: (given.append(args) or args[1], []))
    rows = Dataset.from_list(ROWS)
    assert spin.more_sft("model", rows, course=course, tokenizer="tokenizer") == "model"
    assert given[0][1:] == ("model", "tokenizer", rows, control)


# The record


def recorded(source: str, method: str, number: int) -> np.ndarray:
    """Gold per seed and test prompt after that round, (S, N)."""
    _, record = sweeps.load_record("spin")
    rows = [r for r in record if (r["data"], r["method"], r["round"]) == (source, method, number)]
    return np.array([row["test"] for row in sorted(rows, key=lambda row: row["seed"])])


def test_the_record_is_complete(course: Course) -> None:
    import json

    header, record = sweeps.load_record("spin")
    assert header["config"] == json.loads(json.dumps(spin.configuration(course)))
    want = {
        (source, method, seed, number)
        for source in spin.SOURCES
        for method in ("spin", "sft")
        for seed in spin.SEEDS
        for number in range(spin.ROUNDS + 1)
    }
    assert {(r["data"], r["method"], r["seed"], r["round"]) for r in record} == want
    assert len(record) == len(want) and {len(r["test"]) for r in record} == {300}
    starts = {json.dumps(r["test"]) for r in record if r["round"] == 0}
    assert len(starts) == len(spin.SEEDS), "every run of a seed starts from the same answers"


def test_the_record_shows_what_the_chapter_says() -> None:
    """Careful people's responses lift the model, and more SFT on them more; its own do nothing."""
    last = spin.ROUNDS
    start = recorded("careful", "spin", 0)
    played, control = recorded("careful", "spin", last), recorded("careful", "sft", last)
    assert evaluation.paired_difference(played, start).verdict == "better"
    assert evaluation.paired_difference(control, played).verdict == "better"
    for method in ("spin", "sft"):
        change = evaluation.paired_difference(
            recorded("own", method, last), recorded("own", method, 0)
        )
        assert change.verdict == "inconclusive"
    _, record = sweeps.load_record("spin")
    told = {
        (source, number): np.mean(
            [
                r["told_apart"]
                for r in record
                if (r["data"], r["method"], r["round"]) == (source, "spin", number)
            ]
        )
        for source in spin.SOURCES
        for number in (1, last)
    }
    assert told["careful", last] < told["careful", 1] - 0.1
    assert max(told["own", 1], told["own", last]) < 0.6 < told["careful", last]
