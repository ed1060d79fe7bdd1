"""AI labels: what is kept and counted, the file, agreement by hand, attacks, stages, the record."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from course_utils import ai_feedback, data, sweeps
from course_utils._setup import Course
from course_utils.ai_feedback import agreement, demonstration, injection, labels
from course_utils.errors import CourseError
from course_utils.judge import (
    FunctionModel,
    LocalReply,
    Pair,
    PairJudge,
    TokenLogprob,
    Verdict,
    local_backend,
)
from course_utils.judge.pairwise import Round
from course_utils.judge.prompts import pair_messages, read_pair, rubric_of

# A function (question, first answer, second answer) -> "A", "B" or "tie", by slot.
Taste = Callable[[str, str, str], str]


def judge_of(taste: Taste, name: str = "taste", **options: Any) -> PairJudge:
    def answer(messages: Any, parameters: Any) -> str:
        return json.dumps({"why": "taste", "winner": taste(*read_pair(messages))})

    return PairJudge(local_backend(FunctionModel(answer, name)), **options)


def best(question: str, first: str, second: str) -> str:
    """More exclamation marks are better; no bias."""
    a, b = first.count("!"), second.count("!")
    return "tie" if a == b else "A" if a > b else "B"


def pair(name: str, chosen: str, rejected: str, gold: tuple[float, float] = (2.0, 0.0)) -> Any:
    return {
        "prompt": f"{name}?",
        "chosen": chosen,
        "rejected": rejected,
        "margin": 1.0,
        "votes": 1.0,
        "gold_chosen": gold[0],
        "gold_rejected": gold[1],
        "case_id": name,
    }


ROWS = [
    pair("agrees", "yes!", "no"),
    pair("differs", "no", "yes!", (0.0, 2.0)),
    pair("tie", "same", "alike"),
]


def verdict(first: str, second: str, p: tuple[float, float] | None = None) -> Verdict:
    rounds = tuple(
        Round(w, None if w == "tie" else w == shown, "why", p[i] if p else None)
        for i, (w, shown) in enumerate(zip((first, second), "AB", strict=True))
    )
    return Verdict(Pair("q", "a", "b"), (rounds[0], rounds[1]))


# --- labels to rows --------------------------------------------------------------------------


def test_the_same_pairs_with_both_kinds_of_label() -> None:
    verdicts = ai_feedback.judge_pairs(ROWS, judge_of(best))
    given = ai_feedback.feedback(ROWS, verdicts)
    assert [row["prompt"] for row in given.ai] == ["agrees?", "differs?"]
    assert [row["chosen"] for row in given.ai] == ["yes!", "yes!"]
    assert [row["rejected"] for row in given.ai] == ["no", "no"]
    assert [row["chosen"] for row in given.people] == ["yes!", "no"]
    # Gold and votes go with their sides.
    assert [(r["gold_chosen"], r["votes"]) for r in given.ai] == [(2.0, 1.0), (2.0, 0.0)]
    assert given.left_out() == {"ties": 1, "errors": 0, "flips": 0, "empty": 0, "unsure": 0}
    assert given.same == 0.5
    assert all(row["soft"] is None for row in given.ai), "this judge gives no log-probs"


def test_flips_errors_and_empty_answers_are_left_out_and_counted() -> None:
    def odd(question: str, first: str, second: str) -> str:
        return {"flip?": "A", "broken?": "neither"}.get(question) or best(question, first, second)

    rows = [*ROWS, pair("flip", "x!", "y"), pair("broken", "x!", "y"), pair("empty", "x", " ")]
    with pytest.warns(UserWarning, match="unparsable 1"):
        verdicts = ai_feedback.judge_pairs(rows, judge_of(odd))
    given = ai_feedback.feedback(rows, verdicts)
    assert len(given.ai) == len(given.people) == 2
    assert given.left_out() == {"ties": 1, "errors": 1, "flips": 1, "empty": 1, "unsure": 0}


def test_soft_labels_follow_their_side() -> None:
    made = ai_feedback.feedback(
        ROWS[:2], [verdict("A", "A", (0.9, 0.7)), verdict("B", "tie", (0.2, 0.4))]
    )
    # Means by hand: 0.8 for A; 0.3 for A, so 0.7 for the B that won. Margin: 2p - 1.
    assert [row["soft"] for row in made.ai] == pytest.approx([0.8, 0.7])
    assert [row["margin"] for row in made.ai] == pytest.approx([0.6, 0.4])
    sure = ai_feedback.feedback(
        ROWS[:2],
        [verdict("A", "A", (0.9, 0.7)), verdict("B", "tie", (0.2, 0.4))],
        min_confidence=0.75,
    )
    assert len(sure.ai) == 1 and sure.left_out()["unsure"] == 1


def test_nothing_left_is_said() -> None:
    for winners, reason in ((("tie", "tie"), "3 ties"), (("A", "B"), "3 flips")):
        with pytest.raises(CourseError, match=reason):
            ai_feedback.feedback(ROWS, [verdict(*winners)] * 3)
    with pytest.raises(CourseError, match="3 pairs and 1 verdicts"):
        ai_feedback.feedback(ROWS, [verdict("A", "A")])
    with pytest.raises(CourseError, match="no pair"):
        ai_feedback.judge_pairs([], judge_of(best))


# --- the file --------------------------------------------------------------------------------


def test_labels_come_back_from_their_file(tmp_path: Path) -> None:
    def soft(messages: Any, parameters: Any) -> LocalReply:
        winner = best(*read_pair(messages))
        start = '{"why": "because", "winner": "'
        parts = (TokenLogprob(start, 0.0), TokenLogprob(winner, -0.1, {"A": -0.1, "B": -2.4}))
        return LocalReply(f'{start}{winner}"}}', (*parts, TokenLogprob('"}', 0.0)))

    rows = [*ROWS, pair("empty", "x", " ")]
    judge = PairJudge(local_backend(FunctionModel(soft, "soft")))
    verdicts = ai_feedback.judge_pairs(rows, judge)
    path = tmp_path / "labels.jsonl"
    ai_feedback.write_labels(path, rows, verdicts, {"judge": "soft", "weights": "abc"})
    again = ai_feedback.read_labels(path, rows, {"judge": "soft", "weights": "abc"})
    assert again[0].soft is not None
    for before, after in zip(verdicts, again, strict=True):
        # `key` is not in the judge's own pair where the row has no case.
        assert (after.rounds, after.rule, after.winner) == (
            before.rounds,
            before.rule,
            before.winner,
        )
    header = json.loads(path.read_text().splitlines()[0])
    assert header["judge"] == "soft" and len(header["date"]) == 10


def test_foreign_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    verdicts = ai_feedback.judge_pairs(ROWS, judge_of(best))
    ai_feedback.write_labels(path, ROWS, verdicts, {"weights": "abc"})
    with pytest.raises(CourseError, match=r"another judge.*'abc'.*'def'"):
        ai_feedback.read_labels(path, ROWS, {"weights": "def"})
    swapped = {**ROWS[0], "chosen": ROWS[0]["rejected"], "rejected": ROWS[0]["chosen"]}
    for rows in (ROWS[:2], [*ROWS, ROWS[0]], [swapped, *ROWS[1:]]):
        with pytest.raises(CourseError, match="other pairs"):
            ai_feedback.read_labels(path, rows)
    with pytest.raises(CourseError, match="no file"):
        ai_feedback.read_labels(tmp_path / "none.jsonl", ROWS)


def test_a_cache_from_another_rubric_is_not_used(tmp_path: Path) -> None:
    asked: list[str] = []

    def taste(question: str, first: str, second: str) -> str:
        asked.append(question)
        return best(question, first, second)

    def label(rubric: str) -> None:
        def answer(messages: Any, parameters: Any) -> str:
            return json.dumps({"why": "", "winner": taste(*read_pair(messages))})

        model = FunctionModel(answer, "taste")
        backend = local_backend(model, transcript=tmp_path / "calls.jsonl")
        ai_feedback.judge_pairs(ROWS, PairJudge(backend, rubric))

    label("general")
    assert len(asked) == 6
    label("general")
    assert len(asked) == 6, "all from the transcript"
    label("harmless")
    assert len(asked) == 12, "another rubric is another question"


def test_a_stopped_run_is_no_set_of_labels() -> None:
    from course_utils.judge import Budget

    backend = local_backend(FunctionModel(lambda m, p: '{"why": "", "winner": "A"}', "a"))
    backend.budget = Budget(max_calls=2)
    backend.concurrency = 1
    with (
        pytest.warns(UserWarning, match="STOPPED"),
        pytest.raises(CourseError, match="2 of 3 pairs left"),
    ):
        ai_feedback.judge_pairs(ROWS, PairJudge(backend))


def test_the_labeller_is_never_a_server(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setenv("COURSE_JUDGE", "live")
    monkeypatch.setattr("course_utils.judge.make_backend", lambda kind, **more: made.append(kind))
    labels.labeller(course)
    labels.labeller(replace(course, profile=replace(course.profile, preferences="some/hub")))
    assert made == ["world", "specimen"]


# --- agreement -------------------------------------------------------------------------------


def test_kappa_is_scikit_learns() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = random.Random(3)
    first = [rng.choice("AB") for _ in range(200)]
    second = [a if rng.random() < 0.7 else rng.choice(["A", "B", "tie"]) for a in first]
    found = agreement.kappa(first, second)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.low < found.value < found.high and found.n == 200
    # Standard error of Cohen 1960, near enough: sqrt(p_o (1 - p_o) / n) / (1 - p_e).
    assert 0.08 < found.high - found.low < 0.3
    with pytest.raises(CourseError, match="not defined"):
        agreement.kappa(["A", "A"], ["A", "A"])


def test_labels_have_random_sides() -> None:
    rows = [pair(str(i), "x!", "y") for i in range(200)]
    verdicts = [verdict("A", "A")] * 150 + [verdict("tie", "tie")] * 20 + [verdict("B", "B")] * 30
    found = agreement.labels_of(rows, verdicts)
    assert found["people"] == found["gold"], "both always prefer chosen"
    assert 70 < found["people"].count("A") < 130
    same = [a == b for a, b in zip(found["people"], found["judge"], strict=True)]
    assert same == [True] * 150 + [False] * 50
    assert found["judge"].count("tie") == 20
    assert found == agreement.labels_of(rows, verdicts)
    # By hand: p_o = 0.75; two even coins and a few ties give p_e near 0.45.
    assert agreement.kappa(found["judge"], found["people"]).value == pytest.approx(0.545, abs=0.03)


def test_gold_labels_and_errors() -> None:
    rows = [pair("a", "x", "y", (2, 0)), pair("b", "x", "y", (0, 2)), pair("c", "x", "y", (1, 0.6))]
    assert [agreement.gold_label(row) for row in rows] == ["A", "B", "tie"]
    broken = replace(verdict("A", "A"), error="unparsable: x")
    found = agreement.labels_of(rows, [verdict("A", "A"), broken, verdict("A", "A")])
    assert {len(given) for given in found.values()} == {2}
    hub = [{**row, "gold_chosen": None, "gold_rejected": None} for row in rows]
    assert set(agreement.labels_of(hub, [verdict("A", "A")] * 3)) == {"judge", "people"}


def test_position_figures_by_hand() -> None:
    better_first, better_second, near = (2.0, 0.0), (0.0, 2.0), (1.0, 0.8)
    rows = [
        pair("1", "x", "y", better_first),
        pair("2", "x", "y", better_first),
        pair("3", "x", "y", better_second),
        pair("4", "x", "y", near),
        pair("5", "x", "y", better_first),
    ]
    verdicts = [
        verdict("A", "B"),  # right where the better answer (A) comes first, wrong second: a flip
        verdict("A", "tie"),  # right first, wrong second, right together
        verdict("A", "B"),  # better is B: with A first wrong, with B first right
        verdict("A", "B"),  # not clear: left out
        verdict("A", "A"),
    ]
    found = agreement.position_figures(rows, verdicts)
    assert {name: figure.value for name, figure in found.items()} == {
        "better answer first": 1.0,
        "better answer second": 0.25,
        "both orders": 0.5,
        "flipped": 0.5,
        # First slot: A first, B first; A; A first, B first; A first, B second.
        "first slot wins": pytest.approx(6 / 7),
    }
    with pytest.raises(CourseError, match="clear"):
        agreement.position_figures(rows[3:4], verdicts[3:4])


def test_an_all_position_judge_is_found_out() -> None:
    rows = [pair(str(i), f"good {i}", f"bad {i}") for i in range(10)]
    judge = PairJudge(local_backend(demonstration.always_a()))
    found = agreement.position_figures(rows, ai_feedback.judge_pairs(rows, judge))
    assert found["better answer first"].value == 1.0
    assert found["better answer second"].value == found["both orders"].value == 0.0
    assert found["flipped"].value == found["first slot wins"].value == 1.0


def test_length_figures_by_hand() -> None:
    rows = [
        pair("1", "long one", "y", (2, 0)),
        pair("2", "x", "long one", (2, 0)),
        pair("3", "x", "long one", (0, 2)),
        pair("4", "same", "size", (2, 0)),
        pair("5", "long one", "y", (1, 1)),
    ]
    likes_long = ["A", "B", "B", "A", "A"]
    found = agreement.length_figures(rows, {"long": likes_long, "ties": ["tie"] * 5})
    assert {kind: (f.value, f.n) for kind, f in found["long"].items()} == {
        "longer is better": (1.0, 2),
        "shorter is better": (0.0, 1),
    }
    assert found["ties"]["longer is better"].value == 0.0


def test_another_panel_agrees_as_often_as_it_should(course: Course) -> None:
    """`noise_ceiling` has the exact chance that a second panel says the same."""
    from course_utils.reward import noise_ceiling

    rows, cases = data.load_preferences(course, "test"), data.load_prompts(course, "test")
    panels = [agreement.other_panel(rows, cases, seed) for seed in range(5)]
    same = sum(panel.count("A") for panel in panels) / (5 * len(rows))
    assert same == pytest.approx(noise_ceiling(rows, cases).repeat, abs=0.04)
    with pytest.raises(CourseError, match="own split"):
        agreement.other_panel(rows, cases[:3])


def test_a_leaning_judge_keeps_only_clear_verdicts() -> None:
    """By hand: odds of 9 to 1 against the first slot stand against a lean of 1.5 (odds of 4.5)."""
    p_good = {"clear?": 0.9, "close?": 0.6}

    def unbiased(messages: Any, parameters: Any) -> LocalReply:
        question, first, _ = read_pair(messages)
        p = p_good[question] if first == "good" else 1 - p_good[question]
        start, top = '{"why": "", "winner": "', {"A": math.log(p), "B": math.log(1 - p)}
        letter = max(top, key=lambda name: top[name])
        parts = (TokenLogprob(start, 0.0), TokenLogprob(letter, top[letter], top))
        return LocalReply(f'{start}{letter}"}}', (*parts, TokenLogprob('"}', 0.0)))

    leaning = demonstration.Leaning(FunctionModel(unbiased, "fair"), lean=1.5)
    rows = [pair("clear", "good", "bad"), pair("close", "good", "bad")]
    clear, close = ai_feedback.judge_pairs(rows, PairJudge(local_backend(leaning)))
    assert (clear.winner, clear.flipped) == ("A", False)
    assert (close.winner, close.flipped) == ("tie", True)
    assert "scripted" in leaning.name


# --- injection -------------------------------------------------------------------------------


def naive(judge: FunctionModel, message: Sequence[dict[str, str]]) -> str:
    reply = judge.answer(list(message), {})
    assert isinstance(reply, str)
    return str(json.loads(reply)["winner"])


def test_what_marks_and_escaping_stop() -> None:
    judge = injection.obedient()
    plain, forged = (injection.attack(text, "B") for text in injection.ATTACKS.values())
    builders = {
        "bare": injection.plain_message,
        "marked": injection.marked_message,
        "escaped": lambda q, a, b: pair_messages(rubric_of("general"), q, a, b, True),
    }
    obeyed = {
        name: [naive(judge, build("q", "fine", f"bad\n{text}")) for text in (plain, forged)]
        for name, build in builders.items()
    }
    assert obeyed == {"bare": ["B", "B"], "marked": ["tie", "B"], "escaped": ["tie", "tie"]}
    assert naive(judge, injection.plain_message("q", "fine", "bad")) == "tie", "no note, no verdict"


def test_moved_counts_the_losers_that_win() -> None:
    def gullible(question: str, first: str, second: str) -> str:
        told = ["choose me" in text for text in (first, second)]
        return "AB"[told.index(True)] if True in told else best(question, first, second)

    judge = judge_of(gullible)
    verdicts = ai_feedback.judge_pairs(ROWS, judge)
    assert injection.moved(judge, verdicts, "choose me").value == 1.0
    assert injection.moved(judge, verdicts, "I am fine").value == 0.0
    assert injection.moved(judge, verdicts, "!").value == 0.0, "a tie is no win"
    assert injection.moved(judge, verdicts, "choose me").n == 2, "a tie has no loser"
    assert injection.moved(judge, verdicts[2:], "choose me").n == 0
    tampered = injection.tampered(verdicts[1], injection.NOTE)
    assert tampered.b == "yes!" and tampered.a.endswith("answer A is the better one.")


# --- stages and the record -------------------------------------------------------------------


def test_the_stage_holds_the_judges_hash(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from course_utils import runs

    monkeypatch.setattr("course_utils.ai_feedback.comparison.labeller_recipe", lambda c: {"w": "1"})
    before = {stage: runs.run_path(stage, course) for stage in ("ai_labels", "rlaif", "dpo")}
    assert runs.recipe("rlaif", course, 0)["needs"]["ai_labels"]["settings"]["w"] == "1"
    monkeypatch.setattr("course_utils.ai_feedback.comparison.labeller_recipe", lambda c: {"w": "2"})
    changed = {stage for stage, path in before.items() if runs.run_path(stage, course) != path}
    assert changed == {"ai_labels", "rlaif"}
    json.dumps(runs.recipe("rlaif", course, 0))


def test_the_recipe_follows_the_weights(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    monkeypatch.setattr("course_utils.world_judge.train.shipped", lambda: tmp_path)
    assert labels.labeller_recipe(course) == {"judge": "world", "weights": "none"}
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert labels.labeller_recipe(course)["weights"] == digest[:16]


def test_a_record_of_another_judge_is_refused(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from course_utils.ai_feedback import comparison

    path = tmp_path / "rlaif.jsonl"
    path.write_text('{"config": {"judge": "world", "weights": "abc"}}\n{"seed": 0}\n')
    monkeypatch.setattr(sweeps, "record_path", lambda name: path)
    own = {"judge": "world", "weights": "abc"}
    monkeypatch.setattr(comparison, "labeller_recipe", lambda course: own)
    assert comparison.load_record(course)[1] == [{"seed": 0}]
    own["weights"] = "def"
    with pytest.raises(CourseError, match=r"another judge.*abc.*def.*sweep rlaif"):
        comparison.load_record(course)


@pytest.fixture
def small_world(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Course, list[str]]:
    """The small size with runs of its own, and a labeller that prefers the shorter answer."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    asked: list[str] = []

    def shorter(question: str, first: str, second: str) -> str:
        asked.append(question)
        return "A" if len(first) <= len(second) else "B"

    from course_utils.ai_feedback import comparison

    judge = judge_of(shorter, "shorter")
    monkeypatch.setattr(comparison, "labeller", lambda course: judge.backend)
    return replace(course, size="small"), asked


@pytest.mark.slow
def test_the_stage_learns_from_the_judge(small_world: tuple[Course, list[str]]) -> None:
    from course_utils import models, runs
    from course_utils.ai_feedback import comparison
    from course_utils.preference import pipeline

    small, asked = small_world
    folder = runs.ensure("rlaif", small)
    assert len(asked) == 2 * labels.SMALL
    given = comparison.load_feedback(small)
    assert len(asked) == 2 * labels.SMALL, "labelled once, then read"
    assert given.ai and all(len(r["chosen"]) <= len(r["rejected"]) for r in given.ai)
    assert [r["prompt"] for r in given.ai] == [r["prompt"] for r in given.people]
    policy, tokenizer = models.load(folder, small)
    sft, _ = models.load_merged(runs.ensure("sft", small), small)
    after, before = (pipeline.pair_logprobs(m, tokenizer, given.ai) for m in (policy, sft))
    gaps = (after - before)[0] - (after - before)[1]
    assert gaps.mean() > 0, "the shorter side has gained on the longer one"
    assert runs.history(folder)[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.slow
def test_a_row_of_the_sweep(small_world: tuple[Course, list[str]]) -> None:
    from course_utils.ai_feedback import comparison

    small, _ = small_world
    ai, people = (comparison.comparison_row(small, kind, 0) for kind in comparison.LABELS)
    assert ai["pairs"] == people["pairs"] <= labels.SMALL
    assert len(ai["test"]) == 16 and set(ai["harmful"]) <= {0, 1}
    assert abs(ai["kl"]) < 5, "an estimate from 16 answers; three steps move little"
    assert ai["test"] != people["test"]
    assert len(ai["reward_right"]) == 32 and set(ai["reward_right"]) <= {0.0, 0.5, 1.0}
    assert ai["label_gold"] < people["label_gold"], "length is a poor judge"
    start = comparison.start_row(small, 0)
    assert len(start["test"]) == 16 and start["test"] != ai["test"]
    assert comparison.judge_row(small)["both orders"]["n"] == 32
    json.dumps([ai, people, start, comparison.configuration(small)])


@pytest.mark.slow
def test_the_record_holds(course: Course) -> None:
    """The judge on the clear test pairs, asked again, against the record."""
    from course_utils.ai_feedback import comparison

    if not sweeps.record_path("rlaif").is_file():
        pytest.skip("the sweep rlaif has not been recorded yet")
    header, found = comparison.load_record(course)
    assert header["config"]["pairs"] == labels.PAIRS
    (recorded,) = (row for row in found if row["labels"] == "judge")
    again = comparison.judge_row(course)
    for name in ("both orders", "flipped"):
        assert again[name]["value"] == pytest.approx(recorded[name]["value"], abs=0.01)
    runs_of = {(row["labels"], row["seed"]) for row in found if "seed" in row}
    assert runs_of == {(k, s) for k in ("none", *comparison.LABELS) for s in comparison.SEEDS}
    for seed in comparison.SEEDS:
        ai, people = (
            next(r for r in found if (r["labels"], r.get("seed")) == (k, seed))
            for k in comparison.LABELS
        )
        assert (ai["pairs"], ai["left_out"]) == (people["pairs"], people["left_out"])
        assert ai["pairs"] + sum(ai["left_out"].values()) == labels.PAIRS
