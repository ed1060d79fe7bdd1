"""Preferences in the pipeline: what is measured, and the record against a live row of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from datasets import Dataset  # noqa: E402
from ppo_toys import PROMPTS, make_trainer  # noqa: E402

from course_utils import costs, data, models, runs  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.ppo import pipeline as ppo_pipeline  # noqa: E402
from course_utils.preference import PreferenceSettings, pipeline  # noqa: E402
from course_utils.profiles import PROFILES  # noqa: E402

PAIRS = [
    {"prompt": "Where does it live?\n", "chosen": "In the reeds.", "rejected": "Who?"},
    {"prompt": "And?\n", "chosen": "A lantern is lit at noon, every noon.", "rejected": "No."},
    {"prompt": "When?\n", "chosen": "At noon.", "rejected": "Small fish eat in the Upper Mere."},
]
RESPONSES = [[40, 41, 42], [50], [60, 61], [70, 71, 72, 73]]


def alone(model: Any, ids: list[int], count: int) -> float:
    """Log-probability of the last `count` tokens, in float64 and without any padding."""
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(rows[t - 1, ids[t]].item() for t in range(len(ids) - count, len(ids)))


def test_pair_logprobs_against_each_text_alone(
    new_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ROWS", 2)  # two batches, and not in the order of the rows
    model, rows = new_model(), PAIRS[::-1]  # the longest first
    got = pipeline.pair_logprobs(model, tokenizer, rows)
    assert got.shape == (2, 3)
    for place, row in enumerate(rows):
        for side, name in enumerate(("chosen", "rejected")):
            prompt = tokenizer(row["prompt"])["input_ids"]
            ids = tokenizer(row["prompt"] + row[name] + tokenizer.eos_token)["input_ids"]
            want = alone(model, ids, len(ids) - len(prompt))
            assert got[side, place] == pytest.approx(want, abs=1e-4), (row, name)


def test_mean_kl_against_each_row_alone_and_against_ppos(
    new_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ROWS", 3)
    policy, reference = new_model(0), new_model(1)
    got = pipeline.mean_kl(policy, reference, tokenizer, PROMPTS, RESPONSES)
    want = 0.0
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ids = tokenizer(prompt)["input_ids"] + response
        want += (alone(policy, ids, len(response)) - alone(reference, ids, len(response))) / 4
    assert abs(want) > 0.1
    assert got == pytest.approx(want, abs=1e-4)

    trainer = make_trainer(reference, tokenizer)  # PPO's reference is a copy of this one
    trainer.policy.pretrained_model.load_state_dict(policy.state_dict())
    assert got == pytest.approx(ppo_pipeline.mean_kl(trainer, PROMPTS, RESPONSES), abs=1e-4)


def test_win_rate_by_hand() -> None:
    """Three wins, two ties, one loss; Wilson's interval of 3 in 4 worked out from its formula."""
    got = pipeline.win_rate([1, 2, 3, 0, 0, -1], [0, 1, 2, 0, 0, 5])
    assert (got.wins, got.ties, got.losses) == (3, 2, 1)
    assert got.rate == 0.75
    z, n, p = 1.959964, 4, 0.75
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert got.interval() == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert "wins 3, ties 2, losses 1: 75%" in str(got)
    nothing = pipeline.win_rate([1, 1], [1, 1])
    assert nothing.rate == 0.5 and nothing.interval() == (0.0, 1.0)


def test_train_pairs_are_drawn_by_seed(course: Course) -> None:
    every = data.load_preferences(course, "train")
    known = {(r["prompt"], r["chosen"], r["rejected"]) for r in every}
    first, again, other = (pipeline.train_pairs(course, seed, 20) for seed in (0, 0, 1))
    assert len(first) == 20 and list(first) == list(again)
    assert first["prompt"] != other["prompt"]
    assert all((r["prompt"], r["chosen"], r["rejected"]) in known for r in first)
    assert len(pipeline.train_pairs(course)) == course.profile.dpo_pairs < len(every)
    assert len(pipeline.train_pairs(course, 0, len(every) + 1)) == len(every)
    assert len(pipeline.train_pairs(replace(course, size="small"))) == 64
    whole = replace(course, profile=replace(course.profile, dpo_pairs=None))
    assert len(pipeline.train_pairs(whole)) == len(every)


def test_settings_have_a_batch_size_of_their_own(course: Course) -> None:
    assert PreferenceSettings.of(course).batch_size == course.profile.dpo_batch_size
    plain = replace(course, profile=replace(course.profile, dpo_batch_size=None))
    assert PreferenceSettings.of(plain, "ipo").batch_size == course.profile.batch_size
    assert PreferenceSettings.of(plain, "ipo").beta == 5 * course.profile.dpo_beta


def test_orpo_has_the_learning_rate_of_what_it_replaces(course: Course) -> None:
    rates = {m: PreferenceSettings.of(course, m).learning_rate for m in ("dpo", "kto", "orpo")}
    sft, dpo = course.profile.sft_learning_rate, course.profile.dpo_learning_rate
    assert rates == {"dpo": dpo, "kto": dpo, "orpo": sft}


def test_few_thumbs_down(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "train_pairs", lambda *given: Dataset.from_list(PAIRS * 4))
    kto = pipeline.variant_of(course, "kto")
    assert pipeline.rows_of(course, kto, 0) == PAIRS * 4
    thumbs = pipeline.rows_of(course, replace(kto, thumbs_down=0.25), 0)
    assert [row["label"] for row in thumbs] == [True] * 12 + [False] * 3
    assert {row["completion"] for row in thumbs[12:]} == {row["rejected"] for row in PAIRS}


def test_orpo_starts_from_the_base_model(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def base(*given: Any) -> Any:
        started.append("base")
        return new_model(), tokenizer

    def sft(*given: Any) -> Any:
        started.append("sft")
        return new_model(), tokenizer

    monkeypatch.setattr(models, "load_base", base)
    monkeypatch.setattr(models, "load_merged", sft)
    monkeypatch.setattr(runs, "ensure", lambda *given: Path("sft"))
    for method in ("orpo", "simpo"):
        settings = replace(PreferenceSettings.of(course, method), max_length=200)
        pipeline.train(course, method, settings=settings, rows=PAIRS)
    assert started == ["base", "sft"]


def sft_folder(folder: Path, model: Any, tokenizer: Any) -> Path:
    models.save(model, tokenizer, folder)
    return folder


def test_training_starts_at_the_run_and_is_saved(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from datasets import Dataset

    monkeypatch.setattr(pipeline, "train_pairs", lambda *given: Dataset.from_list(PAIRS * 8))
    start = sft_folder(tmp_path / "sft", new_model(), tokenizer)
    settings = replace(PreferenceSettings.of(course), learning_rate=3e-3, max_length=200)
    trained, _, history = pipeline.train(
        course, start=start, settings=settings, out=tmp_path / "out"
    )
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    before = pipeline.pair_logprobs(new_model(), tokenizer, PAIRS)
    after = pipeline.pair_logprobs(trained, tokenizer, PAIRS)
    assert ((after - before)[0] > (after - before)[1]).all()
    again, its_tokenizer = models.load(tmp_path / "out", course)
    assert pipeline.pair_logprobs(again, its_tokenizer, PAIRS) == pytest.approx(after, abs=1e-4)


def test_a_saved_adapter_is_merged(
    course: Course, tokenizer: Any, new_model: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An adapter alone would be put onto the base model, not onto the SFT model it was made for."""
    from datasets import Dataset

    monkeypatch.setattr(pipeline, "train_pairs", lambda *given: Dataset.from_list(PAIRS * 8))
    start = sft_folder(tmp_path / "sft", new_model(), tokenizer)
    settings = replace(
        PreferenceSettings.of(course), learning_rate=3e-3, max_length=200, adapter="lora"
    )
    trained, *_ = pipeline.train(course, start=start, settings=settings, out=tmp_path / "out")
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    again, _ = models.load(tmp_path / "out", course)
    want = pipeline.pair_logprobs(trained, tokenizer, PAIRS)
    assert pipeline.pair_logprobs(again, tokenizer, PAIRS) == pytest.approx(want, abs=1e-4)
    start_sums = pipeline.pair_logprobs(new_model(), tokenizer, PAIRS)
    assert abs(want - start_sums).max() > 0.1


def test_english_pairs_are_named_by_their_file() -> None:
    """Another file is other data: the hash stands in recipes, not the name of the source."""
    laptop = Course("test", PROFILES["laptop"])
    want = runs.file_hash(data.data_dir() / "english" / "preferences.jsonl")[:16]
    assert runs.preference_fingerprint(laptop) == want
    assert runs.recipe("reward", laptop, 0)["settings"]["data"] == want
    assert runs.recipe("spin", laptop, 0)["settings"]["prompts"] == want


def test_the_stage_builds_on_sft_and_names_its_data(course: Course) -> None:
    recipe = runs.recipe("dpo", course, 0)
    assert recipe["needs"] == {"sft": runs.recipe("sft", course, 0)}
    settings = recipe["settings"]
    assert settings["pairs"] == course.profile.dpo_pairs
    assert settings["data"] == runs.preference_fingerprint(course)
    assert {"beta", "learning_rate", "batch_size"} <= set(settings)
    json.dumps(recipe)


def resident_mb(course: Course, size: int) -> float:
    held = bytearray(size * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    return costs.peak_mb()


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(course: Course) -> None:
    ballast = bytearray(400 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    if not sys.platform.startswith("linux"):  # nothing else tells a process's own peak
        assert costs.peak_mb() == 0
        return
    small, large = (costs.in_fresh_process(resident_mb, course, size) for size in (1, 300))
    assert large - small == pytest.approx(299, abs=30)
    assert small < costs.peak_mb(), "the parent's memory does not count"


def test_the_configuration_can_be_recorded(course: Course) -> None:
    config = json.loads(json.dumps(pipeline.configuration(course)))
    beta = course.profile.dpo_beta
    named = {(v["name"], v["beta"]): v for v in config["variants"]}
    assert len(named) == len(config["variants"])
    assert {("dpo", beta), ("hinge", beta), ("dpo", 0.02), ("dpo", 0.5)} <= set(named)
    assert {name for name, _ in named} >= {"ipo", "kto", "orpo", "simpo", "chosen_only"}
    assert config["settings"]["dpo"] == json.loads(
        json.dumps(asdict(PreferenceSettings.of(course)))
    )


def test_the_record_is_complete_and_dpo_gains() -> None:
    """DPO is better than SFT with an interval that excludes 0, as the course promises."""
    import numpy as np

    from course_utils import evaluation, sweeps

    header, record = sweeps.load_record("preference")
    config = header["config"]
    made = [(r["method"], r.get("beta"), r["seed"]) for r in record if "test" in r]
    trained = [(v["name"], v["beta"], s) for v in config["variants"] for s in config["seeds"]]
    want = set(trained) | {("sft", None, s) for s in config["seeds"]}
    assert set(made) == want and len(made) == len(want)
    assert {len(r["test"]) for r in record if "test" in r} == {300}
    costs = [r["method"] for r in record if "seconds" in r]
    assert sorted(costs) == sorted((*pipeline.RLHF, *pipeline.METHODS))
    short_of_downs = ("kto_few_down", "kto_weighted")
    for row in (r for r in record if "examples" in r):  # thumbs there, pairs everywhere else
        thumbs = row["method"] in short_of_downs
        assert row["examples"] == config["pairs"] * (1.25 if thumbs else 1)
    assert all(r["peak_mb"] > r["libraries_mb"] > 0 for r in record if "peak_mb" in r)

    def gold(method: str, beta: float | None = None) -> np.ndarray:
        found = [r for r in record if (r["method"], r.get("beta")) == (method, beta)]
        return np.array([r["test"] for r in sorted(found, key=lambda r: r["seed"])])

    default = config["settings"]["dpo"]["beta"]
    gain = evaluation.paired_difference(gold("dpo", default), gold("sft"))
    assert gain.verdict == "better"


def test_the_record_compares_the_methods_as_chapter_07_says() -> None:
    import numpy as np

    from course_utils import evaluation, sweeps

    header, record = sweeps.load_record("preference")
    default = header["config"]["settings"]["dpo"]["beta"]

    def of(key: str, method: str) -> np.ndarray:
        found = [r for r in record if r["method"] == method and key in r]
        found = [r for r in found if r["beta"] == default] if method == "dpo" else found
        return np.array([r[key] for r in sorted(found, key=lambda r: r["seed"])])

    def verdict(a: str, b: str) -> str:
        return evaluation.paired_difference(of("test", a), of("test", b)).verdict

    assert {verdict(method, "sft") for method in pipeline.METHODS} == {"better"}
    against_dpo = {m: verdict(m, "dpo") for m in ("ipo", "kto", "orpo", "simpo")}
    assert against_dpo == {
        "kto": "better",
        "orpo": "worse",
        "simpo": "worse",
        "ipo": "inconclusive",
    }
    assert verdict("orpo", "chosen_only") == verdict("kto_weighted", "kto_few_down")
    assert (
        verdict("orpo", "chosen_only") == "inconclusive"
        and verdict("chosen_only", "sft") == "better"
    )
    assert verdict("kto_few_down", "kto") == "worse"
    kl, length, finished = (
        {m: of(key, m).mean() for m in pipeline.METHODS} for key in ("kl", "length", "finished")
    )
    assert kl["kto"] < kl["dpo"] / 2
    assert length["ipo"] > length["dpo"] and finished["ipo"] < finished["dpo"]
    assert min(length, key=length.__getitem__) == "simpo" and finished["simpo"] > 0.95


def test_betas_were_chosen_from_their_record(course: Course) -> None:
    """Each method's beta is the best of its grid on the validation prompts."""
    from course_utils import sweeps

    header, record = sweeps.load_record("betas")
    assert header["config"] == json.loads(json.dumps(pipeline.beta_configuration(course)))
    assert [(r["method"], r["beta"]) for r in record] == [
        (method, beta) for method, betas in pipeline.GRID.items() for beta in betas
    ]
    assert {len(r["test"]) for r in record} == {len(data.load_prompts(course, "validation"))}
    for method in pipeline.GRID:
        tried = [r for r in record if r["method"] == method]
        best = max(tried, key=lambda r: sum(r["test"]))
        assert best["beta"] == PreferenceSettings.of(course, method).beta, method


def test_the_record_shows_what_the_chapter_says() -> None:
    """A larger beta stays closer and writes less; a tiny one costs gold; both sides fall."""
    from course_utils import sweeps

    header, record = sweeps.load_record("preference")
    betas = sorted({r["beta"] for r in record if r["method"] == "dpo" and "beta" in r})

    def mean(key: str, beta: float) -> float:
        found = [r[key] for r in record if (r["method"], r.get("beta")) == ("dpo", beta)]
        return sum(sum(v) / len(v) if isinstance(v, list) else v for v in found) / len(found)

    for key in ("kl", "length"):
        values = [mean(key, beta) for beta in betas]
        assert values == sorted(values, reverse=True), key
    default = header["config"]["settings"]["dpo"]["beta"]
    assert mean("test", betas[0]) < mean("test", default)
    sft = [r["length"] for r in record if r["method"] == "sft"]
    assert mean("length", default) > 1.2 * sum(sft) / len(sft)
    for row in (r for r in record if (r["method"], r.get("beta")) == ("dpo", default)):
        (chosen, chosen_after), (rejected, rejected_after) = row["chosen"], row["rejected"]
        assert rejected_after - rejected < chosen_after - chosen < 0, "both fall, one faster"


@pytest.mark.slow
@pytest.mark.heavy
def test_a_row_of_the_record_can_be_made_again(course: Course) -> None:
    from course_utils import sweeps

    _, record = sweeps.load_record("preference")
    dpo = pipeline.variant_of(course, "dpo")
    recorded = next(r for r in record if (r["method"], r.get("beta")) == ("dpo", dpo.beta))
    again = costs.in_fresh_process(pipeline.preference_row, course, dpo, recorded["seed"])
    assert len(again["test"]) == len(recorded["test"])
    # Another processor rounds differently, and then samples differ here and there.
    assert sum(again["test"]) / 300 == pytest.approx(sum(recorded["test"]) / 300, abs=0.25)
    assert again["agrees"] == pytest.approx(recorded["agrees"], abs=0.03)
    assert again["chosen"] == pytest.approx(recorded["chosen"], abs=0.5)
    assert again["rejected"] == pytest.approx(recorded["rejected"], abs=0.5)
    assert again["kl"] == pytest.approx(recorded["kl"], rel=0.15)
