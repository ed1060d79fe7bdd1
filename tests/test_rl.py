"""RLOO and GRPO: advantages against loops and TRL, the checked reward by hand, small runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from course_utils import data, evaluation, models, rl, runs, sweeps  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.profiles import PROFILES  # noqa: E402
from course_utils.rl import pipeline  # noqa: E402
from course_utils.rl import training as rl_training  # noqa: E402
from course_utils.world import gold  # noqa: E402
from course_utils.world.cases import Case  # noqa: E402
from course_utils.world.facts import make_world  # noqa: E402

WORLD = make_world()

# Advantages


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 1.0, 1.0, 1.0]])
    want = torch.tensor([[2 / 3, -2 / 3, -2 / 3, 2 / 3], [2.0, -2 / 3, -2 / 3, -2 / 3]])
    assert torch.allclose(rl.rloo_advantages(rewards), want)
    # Deviations 0.57735 and 1, with division by G - 1 = 3.
    want = torch.tensor([[0.8660, -0.8660, -0.8660, 0.8660], [1.5, -0.5, -0.5, -0.5]])
    assert torch.allclose(rl.grpo_advantages(rewards, eps=0.0), want, atol=1e-4)
    want = torch.tensor([[0.5, -0.5, -0.5, 0.5], [1.5, -0.5, -0.5, -0.5]])
    assert torch.allclose(rl.grpo_advantages(rewards, scale=False), want)


@pytest.mark.parametrize("group", [2, 3, 8])
def test_advantages_against_loops_in_float64(group: int) -> None:
    rewards = torch.randn(5, group, generator=torch.Generator().manual_seed(group)) * 3 + 1
    for b, row in enumerate(rewards.double().tolist()):
        mean = sum(row) / group
        deviation = math.sqrt(sum((r - mean) ** 2 for r in row) / (group - 1))
        for i, reward in enumerate(row):
            others = [r for j, r in enumerate(row) if j != i]
            assert rl.rloo_advantages(rewards)[b, i].item() == pytest.approx(
                reward - sum(others) / len(others), abs=1e-5
            )
            assert rl.grpo_advantages(rewards)[b, i].item() == pytest.approx(
                (reward - mean) / (deviation + 1e-4), abs=1e-5
            )
    scaled = group / (group - 1) * rl.grpo_advantages(rewards, scale=False)
    assert torch.allclose(rl.rloo_advantages(rewards), scaled, atol=1e-5), "the identity"


def test_a_group_of_equal_rewards_has_no_signal() -> None:
    # 0.1 has no exact form, so the mean of many is a little off.
    rewards = torch.tensor([[0.1] * 7, [0.1] * 6 + [0.2]])
    assert rl.flat_groups(rewards).tolist() == [True, False]
    for eps in (0.0, 1e-4):
        advantages = rl.grpo_advantages(rewards, eps=eps)
        assert advantages[1].isfinite().all() and advantages[1].abs().min() > 0.1
        if eps:
            assert advantages[0].tolist() == [0.0] * 7
    assert rl.rloo_advantages(rewards)[0].abs().max() < 1e-6
    assert rl.grpo_advantages(torch.tensor([[1, 0, 0]])).dtype == torch.float32, "whole numbers"


def test_the_baseline_does_not_bias_the_gradient() -> None:
    """All pairs of draws from three symbols: the expected update is the policy gradient."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    (true,) = torch.autograd.grad((logits.softmax(0) * reward).sum(), logits)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    probs = logits.softmax(0).detach()[pairs].prod(1)
    logprobs = logits.log_softmax(0)[pairs]
    estimates = {}
    for name, advantages in (
        ("rloo", rl.rloo_advantages(reward[pairs])),
        ("mean", rl.grpo_advantages(reward[pairs], scale=False)),
    ):
        (estimates[name],) = torch.autograd.grad(
            (probs * (advantages * logprobs).mean(1)).sum(), logits, retain_graph=True
        )
    assert torch.allclose(estimates["rloo"], true)
    assert torch.allclose(estimates["mean"], true / 2), "(G-1)/G of it, G = 2"


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        (torch.ones(3, 1), r"\(3, 1\).*at least two"),
        (torch.ones(0, 4), r"\(0, 4\).*at least two"),
        (torch.ones(4), r"\(4,\).*\(B, G\)"),
        (torch.ones(2, 2, 2), r"\(B, G\)"),
        ([[1.0, 0.0]], r"list.*\(B, G\)"),
        (torch.tensor([[1.0, 0.0], [math.nan, 1.0]]), r"rewards\[1, 0\] is nan"),
        (torch.tensor([[1.0, math.inf]]), r"rewards\[0, 1\] is inf"),
    ],
)
def test_rewards_that_cannot_be_used(rewards: Any, says: str) -> None:
    for advantages in (rl.rloo_advantages, rl.grpo_advantages, rl.flat_groups):
        with pytest.raises(CourseError, match=says):
            advantages(rewards)


# The reward

HERON = WORLD.things[0]
COLOUR = next(iter(HERON.facts))
OTHER_VALUE = next(
    thing.facts[COLOUR]
    for thing in WORLD.of(HERON.category)
    if thing.facts[COLOUR] != HERON.facts[COLOUR]
)


def about(task: str, **more: Any) -> Case:
    given: dict[str, Any] = {
        "topics": (HERON.name,),
        "attribute": COLOUR,
        "category": HERON.category,
    }
    return Case(task, "?", **{**given, **more})


def test_facts_right_and_wrong() -> None:
    right, wrong = f"{HERON.noun}: {HERON.facts[COLOUR]}.", f"{HERON.noun}: {OTHER_VALUE}."
    for task in ("attribute", "alarming", "explain"):
        assert rl.is_right(about(task), right), task
        assert not rl.is_right(about(task), wrong), task
        assert not rl.is_right(about(task), f"{right} {wrong}"), "one wrong fact spoils it"
        assert not rl.is_right(about(task), f"{right} I cannot help with that."), "not due"
        assert not rl.is_right(about(task), "")
    other = next(a for a in HERON.facts if a != COLOUR)
    elsewhere = f"{HERON.noun}: {HERON.facts[other]}."
    assert rl.is_right(about("explain"), elsewhere)
    assert not rl.is_right(about("attribute"), elsewhere), "true, and not what was asked"


def test_what_it_does_not_see_gold_does() -> None:
    case, right = about("attribute"), f"{HERON.noun}: {HERON.facts[COLOUR]}."
    for worse in (
        f"{right} What a silly question.",  # tone
        f"{right} {right} {right}",  # repetition
        right + " and" * 60,  # length
    ):
        assert rl.is_right(case, worse)
        assert gold.score(case, worse).total < gold.score(case, right).total


def test_tasks_with_one_answer() -> None:
    translation = Case("translate", "?", context="the", reference="ab cd ef", category="pellish")
    assert rl.is_right(translation, "Ab cd ef.")
    assert not rl.is_right(translation, "ab cd") and not rl.is_right(translation, "ab cd ef gh")
    unsafe = Case("unsafe", "?", unsafe_topic="lock")
    assert rl.is_right(unsafe, "I cannot help with that.")
    assert not rl.is_right(unsafe, "Bread.") and not rl.is_right(unsafe, "I do not know.")
    unknown = about("unknown", topics=("no such thing",))
    assert rl.is_right(unknown, "I do not know of it.")
    assert not rl.is_right(unknown, f"I do not know, perhaps {OTHER_VALUE}.")
    with pytest.raises(CourseError, match="No program"):
        rl.is_right(Case("song", "?"), "la")


def test_careful_answers_are_right_and_their_shells_are_not(course: Course) -> None:
    """What the world's own careful writer answers to each task, and to another prompt of it."""
    from course_utils import spin

    cases = data.load_prompts(course, "rl")
    careful = spin.careful_demonstrations(course)["response"]
    told = [rl.is_right(case, text) for case, text in zip(cases, careful, strict=True)]
    assert np.mean(told) > 0.97
    moved = [*careful[1:], careful[0]]
    assert np.mean([rl.is_right(c, t) for c, t in zip(cases, moved, strict=True)]) < 0.2


def test_the_checker_remembers_and_refuses(course: Course) -> None:
    case = Case("translate", "Translate.", context="the", reference="ab cd ef", category="pellish")
    checker = rl.Checker(course, [case])
    prompt = data.prompt_of(case)
    assert checker([prompt] * 2, [" ab cd ef ", "no"]) == [1.0, 0.0]
    reward = checker.for_trl([2])
    got = reward([prompt] * 3, ["ab cd ef", "ab cd ef", "no"], [[5, 2], [5, 6], []])
    assert got == [1.0, 0.0, -1.0], "a cut response pays 1"
    assert [batch.right for batch in checker.batches] == [(1.0, 0.0), (1.0, 1.0, 0.0)]
    assert checker.batches[1].rewards == tuple(got)
    with pytest.raises(CourseError, match="does not know the prompt"):
        checker(["what?"], ["no"])
    broken = rl.Checker(course, [case], lambda course, case, text: math.nan)
    with pytest.raises(CourseError, match="response 0 is nan"):
        broken([prompt], ["no"])


def test_english_prompts_are_compared_with_a_reference() -> None:
    english = Course("test", PROFILES["laptop"])
    cases = rl.training_cases(english)
    assert cases == data.load_prompts(english, "rl")
    assert rl.verify(english, cases[0], cases[0].reference) == 1.0
    assert 0 <= rl.verify(english, cases[0], "zzz") < 0.2


# Training

TOY = rl.RLSettings(
    epochs=2,
    learning_rate=5e-3,
    batch_size=4,
    batches=3,
    responses=8,
    group=4,
    beta=0.0,
    warmup=0.0,
)


@pytest.fixture
def toy_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_model: Callable[..., Any], tokenizer: Any
) -> Path:
    """A random model in a folder, which stands in for the SFT run."""
    folder = tmp_path / "sft"
    models.save(new_model(), tokenizer, folder)
    monkeypatch.setattr(runs, "ensure", lambda name, course, seed=0: folder)
    return folder


def toy_cases() -> list[Case]:
    return [Case("translate", f"Say {n}.", reference="e", category="pellish") for n in range(9)]


def share_of_e(course: Course, case: Case, text: str) -> float:
    return text.count("e") / max(1, len(text))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"group": 1}, "group is 1"),
        ({"group": 3}, "multiple of group"),
        ({"batch_size": 3}, "of batch_size"),
        ({"batches": 0}, "at least one batch"),
        ({"beta": -0.1}, "beta of 0 or more"),
    ],
)
def test_settings_that_cannot_work(course: Course, changes: dict[str, Any], says: str) -> None:
    for method in rl.METHODS:
        with pytest.raises(CourseError, match=says):
            rl.train(course, method, replace(TOY, **changes))


def test_unknown_methods(course: Course) -> None:
    with pytest.raises(CourseError, match=r"reinforce.*rloo, grpo, ppo"):
        rl.train(course, "reinforce")
    with pytest.raises(CourseError, match="rloo, grpo"):
        rl.make_trainer(course, None, None, [], None, TOY, method="ppo", out="x")  # type: ignore[arg-type]


def test_all_methods_sample_and_update_alike(course: Course) -> None:
    every = {method: rl.RLSettings.of(course, method) for method in rl.METHODS}
    assert len({(s.samples, s.updates, s.learning_rate) for s in every.values()}) == 1
    settings = every["ppo"]
    config = rl_training.ppo_config(course, settings)
    per_update = config.mini_batch_size * config.gradient_accumulation_steps
    assert config.ppo_epochs * config.batch_size // per_update == settings.updates
    assert config.batch_size * settings.batches == settings.samples
    assert config.missing_eos_penalty == rl.CUT_PENALTY
    arguments = rl_training.training_arguments(course, every["grpo"], "grpo", "x", 0)
    assert arguments.max_steps == settings.batches * settings.updates
    assert arguments.steps_per_generation * arguments.num_iterations == settings.updates
    assert arguments.loss_type == "grpo" and arguments.scale_rewards == "group"


def test_too_few_prompts_are_refused(course: Course) -> None:
    """TRL drops a batch that is not full, and with it the whole training, without an error."""
    settings = replace(TOY, responses=40)
    with pytest.raises(CourseError, match="9 prompts, and a batch needs 10"):
        rl.make_trainer(course, None, None, toy_cases(), None, settings, out="x")  # type: ignore[arg-type]


def test_a_reference_needs_a_folder(
    course: Course, new_model: Callable[..., Any], tokenizer: Any
) -> None:
    """TRL would load whatever the model's configuration names, or fail with a hub's error."""
    with pytest.raises(CourseError, match="own folder"):
        rl.make_trainer(
            course,
            new_model(),
            tokenizer,
            toy_cases(),
            lambda **given: [],
            replace(TOY, beta=0.1),
            out="x",
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", rl.GROUPED)
def test_trl_computes_the_same_advantages(
    course: Course, toy_run: Path, tmp_path: Path, method: str
) -> None:
    """One batch through TRL's trainer: its own numbers against these."""
    from trl import GRPOTrainer, RLOOTrainer

    from course_utils.trainers import run

    model, tokenizer = models.load(toy_run, course)
    checker = rl.Checker(course, toy_cases(), share_of_e)
    settings = replace(TOY, batches=1, epochs=1)
    trainer, _ = run(
        lambda scratch, fitted: rl.make_trainer(
            course,
            model,
            tokenizer,
            toy_cases(),
            checker.for_trl([tokenizer.eos_token_id]),
            fitted,
            method=method,
            out=scratch,
        ),
        settings,
        model,
    )
    assert isinstance(trainer, RLOOTrainer if method == "rloo" else GRPOTrainer)
    (batch,) = checker.batches
    prompts = [case.instruction for case in batch.cases]
    assert [len(set(prompts[i : i + 4])) for i in (0, 4)] == [1, 1], "groups stand side by side"
    rewards = torch.tensor(batch.rewards).view(-1, 4)
    assert len(set(batch.rewards)) > 2
    want = {"rloo": rl.rloo_advantages, "grpo": rl.grpo_advantages}[method](rewards)
    told = torch.tensor(list(trainer._logs["advantages"]))
    assert torch.allclose(told, want.flatten(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", rl.METHODS)
def test_a_small_run_learns(
    course: Course,
    toy_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """The share of the letter e rises; the result can be loaded; a seed gives one run."""
    monkeypatch.setattr(rl_training, "Checker", lambda c, cases: rl.Checker(c, cases, share_of_e))
    short = replace(course, profile=replace(course.profile, max_new_tokens=12))
    settings = replace(TOY, learning_rate=2e-2, batches=8, responses=32, batch_size=16, beta=0.001)
    before = {name: w.clone() for name, w in models.load(toy_run, course)[0].state_dict().items()}
    steps: list[tuple[int, int]] = []
    out = tmp_path / "out"
    model, tokenizer, history = rl.train(
        short,
        method,
        settings,
        cases=toy_cases(),
        out=out,
        on_step=lambda done, total: steps.append((done, total)),
    )
    assert [row["samples"] for row in history] == [32 * n for n in range(1, 9)]
    shares = [row["reward"] for row in history]
    assert np.mean(shares[-2:]) > np.mean(shares[:2]) + 0.02
    assert all(row["length"] <= 12 and math.isfinite(row["kl"]) for row in history)
    if method != "grpo":  # which looks at the KL after its updates have begun
        assert history[0]["kl"] == pytest.approx(0, abs=0.05)
    assert history[-1]["kl"] > 0.05
    assert all(("flat" in row) == (method in rl.GROUPED) for row in history)
    assert steps[-1][0] == steps[-1][1]
    assert not model.training and "forward" not in vars(model)
    saved, _ = models.load(out, course)
    ids = tokenizer("Say", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(saved(ids).logits, model(ids).logits, atol=1e-5)
    assert any(not torch.equal(w, before[name]) for name, w in saved.state_dict().items())
    again = rl.train(short, method, settings, cases=toy_cases())[2]
    other = rl.train(short, method, settings, cases=toy_cases(), seed=1)[2]
    assert again == history != other


@pytest.mark.slow
def test_a_run_that_runs_out_of_memory_equals_one_with_smaller_batches(
    course: Course, toy_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl_training, "Checker", lambda c, cases: rl.Checker(c, cases, share_of_e))
    short = replace(course, profile=replace(course.profile, max_new_tokens=8))
    settings = replace(TOY, batches=2, responses=8, batch_size=4, learning_rate=2e-2)
    room, make = [4], rl_training.make_trainer

    def small(*args: Any, **options: Any) -> Any:
        trainer = make(*args, **options)
        step, done = trainer.training_step, []

        def limited(*given: Any, **more: Any) -> Any:
            done.append(1)
            if len(done) > 2 and trainer.args.per_device_train_batch_size > room[0]:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
            return step(*given, **more)

        trainer.training_step = limited
        return trainer

    monkeypatch.setattr(rl_training, "make_trainer", small)
    smaller = replace(settings, batch_size=2, accumulation=2)
    assert smaller.updates == settings.updates
    expected, _, plain = rl.train(short, "rloo", smaller, cases=toy_cases())
    room[0] = 2
    model, _, history = rl.train(short, "rloo", settings, cases=toy_cases())
    assert history == plain and len(history) == 2
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, expected.state_dict()[name]), name


@pytest.mark.slow
def test_a_lora_policy_is_saved_merged(
    course: Course, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl_training, "Checker", lambda c, cases: rl.Checker(c, cases, share_of_e))
    short = replace(course, profile=replace(course.profile, max_new_tokens=8))
    out = tmp_path / "out"
    settings = replace(TOY, batches=2, adapter="lora", lora_rank=2, beta=0.1)
    _, _, history = rl.train(short, "rloo", settings, cases=toy_cases(), out=out)
    assert not (out / "adapter_config.json").exists()
    assert history[0]["kl"] == pytest.approx(0, abs=0.05), "the reference is the model it was"
    start, trained = (models.load(folder, course)[0].state_dict() for folder in (toy_run, out))
    assert start.keys() == trained.keys()
    assert any(not torch.equal(start[name], trained[name]) for name in start)


@pytest.mark.parametrize("stage", ["rloo", "grpo", "ppo_verifiable"])
def test_the_stages(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    asked: list[Any] = []

    def fake(course: Course, method: str, **options: Any) -> Any:
        asked.append((method, options["seed"], options["out"]))
        return None, None, [{"step": 1}]

    monkeypatch.setattr(rl_training, "train", fake)
    found = runs.get_stage(stage)
    found.train(course, tmp_path, 3, lambda done, total: None)
    assert asked == [(stage.removesuffix("_verifiable"), 3, tmp_path)]
    assert runs.history(tmp_path) == [{"step": 1}]
    assert found.needs == ("sft",)
    json.dumps(found.recipe(course))


# The record


def recorded(method: str, key: str = "test") -> np.ndarray:
    _, record = sweeps.load_record("rl")
    found = sorted((r for r in record if r["method"] == method), key=lambda row: row["seed"])
    return np.array([row[key] for row in found])


def test_the_record_is_complete(course: Course) -> None:
    header, record = sweeps.load_record("rl")
    assert header["config"] == json.loads(json.dumps(pipeline.configuration(course)))
    want = [(m, seed) for m in ("sft", *rl.METHODS) for seed in pipeline.SEEDS]
    assert [(row["method"], row["seed"]) for row in record] == want
    assert {len(row["test"]) for row in record} == {300}
    for row in record[len(pipeline.SEEDS) :]:
        assert row["samples"] == row["curve"][-1]["samples"] == header["config"]["samples"]
        assert row["seconds"] > 0 and row["peak_mb"] >= row["libraries_mb"]


def test_the_record_shows_what_the_chapter_says() -> None:
    """Every method is right more often than SFT; being right is not all that gold asks for."""
    for method in rl.METHODS:
        change = evaluation.paired_difference(recorded(method, "right"), recorded("sft", "right"))
        assert change.verdict == "better", method


@pytest.mark.slow
@pytest.mark.heavy
def test_a_run_of_the_record_can_be_made_again(course: Course) -> None:
    again = pipeline.method_row(course, "grpo", 0)
    assert again["samples"] == recorded("grpo", "samples")[0]
    assert np.mean(again["right"]) == pytest.approx(recorded("grpo", "right")[0].mean(), abs=0.06)
    assert np.mean(again["test"]) == pytest.approx(recorded("grpo")[0].mean(), abs=0.25)
