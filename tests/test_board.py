"""The board: any policy measured alike, kept and read back; odd ones marked, bad files refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from course_utils import __main__, board, costs, data, models, runs, sweeps
from course_utils._setup import Course
from course_utils.board import leaderboard, measuring, policies, prompts, storage
from course_utils.board.rows import FORMAT, PER_PROMPT, Row
from course_utils.errors import CourseError
from course_utils.generation import Generation
from course_utils.judge import PairJudge
from course_utils.judge.backends import local_backend
from course_utils.judge.local import FunctionModel
from course_utils.profiles import PROFILES
from course_utils.world import vocabulary as voc

REFUSAL = "I am sorry, I would rather not help with that."
ELEVEN = {
    "base", "sft", "best_of_n", "ppo", "dpo", "ipo", "kto", "orpo", "constitution", "rlaif", "spin",
}  # fmt: skip


def judge_of(winner: str) -> PairJudge:
    """A judge that always names that slot."""

    def answer(messages: Any, parameters: Any) -> str:
        return json.dumps({"why": "because", "winner": winner})

    return PairJudge(local_backend(FunctionModel(answer)), soft=False)


@pytest.fixture
def small(
    course: Course,
    new_model: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Course:
    """The small size, with a random model of two layers in the place of the SFT run."""
    folder = tmp_path / "sft"
    models.save(new_model(), tokenizer, folder)
    monkeypatch.setattr(runs, "ensure", lambda name, course, seed=0: folder)
    monkeypatch.setattr(measuring, "_SFT", {})
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return replace(course, size="small")


def measured(course: Course, policy: Any, **how: Any) -> Row:
    return board.measure(course, policy, **{"judge": None, **how})


def a_row(method: str = "mine", seed: int = 0, **changes: Any) -> Row:
    """A row made up; `gold` decides its values."""
    gold = changes.pop("gold", 0.5)
    values: dict[str, list[float | None]] = {"gold": [gold - 0.1, gold, gold + 0.1]}
    known: dict[str, Any] = {
        "win_gold": 0.5, "win_judge": None, "first_slot": None, "harmful": 0.1, "declined": 0.2,
        "over_refusal": 0.0, "unknown": 0.3, "private": 0.4, "capability": 0.6, "length": 20.0,
        "finished": 1.0, "kl": 2.0, "proxy": None, "seconds": 10.0, "peak_mb": 500.0, "models": 1,
        "seen": {"pairs": 8}, "marks": (), "size": "full", "prompts": "p0", "values": values,
        "settings": {}, "made": {}, "parts": {"helpful": gold},
    }  # fmt: skip
    return Row(method=method, seed=seed, gold=gold, **{**known, **changes})


# Measuring


def test_sft_against_itself_is_a_tie_with_no_kl(small: Course) -> None:
    row = measured(small, runs.ensure("sft", small), name="again", judge=judge_of("A"))
    assert row.win_gold == 0.5 and row.win_judge == 0.5 and row.kl == pytest.approx(0, abs=1e-4)
    assert row.gold == pytest.approx(np.mean(row.values["gold"]), abs=1e-3)
    assert row.gold == pytest.approx(sum(row.parts.values()), abs=1e-3)
    assert set(row.values) == set(PER_PROMPT)
    again = measured(small, models.load(runs.ensure("sft", small), small), name="again")
    assert again.values["gold"] == row.values["gold"], "the same seed, the same answers"
    cases = board.board_prompts(small)["test"]
    texts = [[r.text for r in board.sft_answers(small, cases, seed).responses] for seed in (0, 1)]
    assert texts[0] != texts[1], "another seed, other answers"


def test_a_policy_that_refuses_everything_is_found_out(small: Course) -> None:
    row = measured(small, lambda prompt: REFUSAL, name="cautious")
    assert row.harmful == 0 and row.declined == 1 and row.private == 1
    assert row.over_refusal == 1 and row.capability == 0
    assert "refuses the harmless (100%)" in row.marks
    assert row.kl is None, "a function has no log-probabilities"


def test_a_policy_that_says_nothing_is_measured_and_marked(small: Course) -> None:
    row = measured(small, lambda prompt: "", judge=judge_of("A"))
    assert row.marks == ("says nothing (100%)",)
    assert row.finished == 1 and row.length == 1, "the EOS alone"
    assert row.win_judge is not None and row.win_judge <= 0.5, "an empty answer loses, or ties"
    assert row.parts["clear"] == -2, "gold's price of an empty answer"


def test_a_policy_that_never_stops_is_cut_and_marked(small: Course) -> None:
    budget = small.profile.max_new_tokens
    row = measured(small, lambda prompt: "on and " * 500)
    assert row.marks == ("does not stop (100%)",)
    assert row.finished == 0 and row.length == budget


def test_one_answer_to_everything_is_marked(small: Course) -> None:
    assert measured(small, lambda prompt: "Well.").marks == ("says one and the same (100%)",)


def test_harm_privacy_and_honesty_are_told_by_the_words(small: Course) -> None:
    """A policy that looks up what the prompt is about and says the worst, or the best."""
    cases = {data.prompt_of(c): c for group in board.board_prompts(small).values() for c in group}

    def worst(prompt: str) -> str:
        case = cases[prompt]
        if case.task == "unsafe":
            return f"Use {voc.UNSAFE[case.unsafe_topic][-1][0]}."
        return f"It is {voc.AMOUNTS[0]}, near {voc.STREETS[0]}, under {voc.KEY_PLACES[0]}."

    def best(prompt: str) -> str:
        return voc.UNKNOWN_MARKERS[0] if cases[prompt].task == "unknown" else REFUSAL

    bad, good = measured(small, worst), measured(small, best)
    assert bad.harmful == 1 and bad.declined == 0 and bad.private == 0
    assert good.harmful == 0 and good.private == 1 and good.unknown == 1


def test_the_judges_liking_for_a_slot_is_a_column(small: Course) -> None:
    """It names the first slot both times: half of the win each, and all verdicts for that slot."""
    row = measured(small, lambda prompt: f"About {prompt[20:50]}", judge=judge_of("A"))
    assert row.win_judge == 0.5 and row.first_slot == 1
    fair = measured(small, lambda prompt: f"About {prompt[20:50]}", judge=judge_of("tie"))
    assert fair.win_judge == 0.5 and fair.first_slot is None


def test_best_of_takes_the_one_the_reward_model_likes() -> None:
    def respond(asked: Sequence[str], seed: int) -> list[Generation]:
        return [Generation(f"{text}{i}", (i,), True) for i, text in enumerate(asked)]

    def score(asked: Sequence[str], texts: Sequence[str]) -> list[float]:
        return [{"a0": 1.0, "b1": 5.0, "a2": 3.0, "b3": 2.0}[text] for text in texts]

    best = policies.best_of(policies.Policy(respond), score, 2)
    assert [g.text for g in best.respond(["a", "b"], 0)] == ["a2", "b1"]
    assert best.kl == pytest.approx(np.log(2) - 0.5)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (3, "an? int is no policy|A int is no policy"),
        ("no/such/folder", "no folder"),
        (lambda prompt: None, "NoneType"),
        (lambda prompt: 7, "returned a int"),
    ],
)
def test_what_is_no_policy(small: Course, policy: Any, says: str) -> None:
    with pytest.raises(CourseError, match=says):
        measured(small, policy)


def test_a_model_needs_its_tokenizer(small: Course, new_model: Callable[..., Any]) -> None:
    with pytest.raises(CourseError, match="tokenizer"):
        measured(small, new_model())


# Prompts


def test_no_prompt_of_the_board_is_trained_on(course: Course) -> None:
    found = board.board_prompts(course)
    assert {family: len(cases) for family, cases in found.items()} == {
        "test": 300, "red_team": 40, "over_refusal": 50, "unknown": 40, "private": 25,
        "capability": 120,
    }  # fmt: skip
    asked = prompts.texts(found)
    assert len(asked) == len(set(asked))


def test_repeated_prompts_are_refused_by_their_text(small: Course) -> None:
    asked = prompts.texts(board.board_prompts(small))
    case = board.board_prompts(small)["test"][0]
    for disguised in (asked[0], f"{case.instruction.upper()}  {case.context}!!"):
        with pytest.raises(CourseError, match="1 prompts of the board were trained on"):
            board.refuse_repeats(["Something else.", disguised], asked)
    board.refuse_repeats(["Something else.", case.instruction + " at noon"], asked)
    with pytest.raises(CourseError, match="trained on"):
        board.place(small, lambda prompt: "", name="cheat", trained_on=asked[:1], judge=None)
    assert board.own_rows(small) == []


def test_another_prompt_is_another_fingerprint(small: Course) -> None:
    found = board.board_prompts(small)
    turned = {**found, "test": found["test"][::-1]}
    assert board.fingerprint(found) == board.fingerprint(board.board_prompts(small))
    assert board.fingerprint(found) != board.fingerprint(turned)


def test_a_course_whose_prompts_overlap_is_refused(
    small: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts.texts(board.board_prompts(small))
    monkeypatch.setattr(prompts, "training_prompts", lambda course: asked[3:5])
    monkeypatch.setattr(prompts, "_APART", set())
    with pytest.raises(CourseError, match="2 prompts of the board were trained on"):
        board.board_prompts(small)


def test_english_boards_know_what_the_pairs_taught(
    small: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = replace(small, profile=PROFILES["laptop"])
    monkeypatch.setattr(prompts, "_APART", set())
    found = board.board_prompts(laptop)
    assert set(found) == {"test", "red_team", "over_refusal", "capability"}
    assert all(case.reference for case in found["test"])
    taught = prompts.training_prompts(laptop)
    assert set(data.load_preferences(laptop, "train")["prompt"]) < set(taught)
    with pytest.raises(CourseError, match="trained on"):
        board.refuse_repeats(taught, [data.load_preferences(laptop, "train")["prompt"][0]])


# Stored


def test_one_call_places_a_policy_and_a_second_replaces_it(small: Course) -> None:
    board.place(small, lambda prompt: "Well.", name="mine", judge=None)
    board.place(small, lambda prompt: "Well.", name="other", judge=None)
    board.place(small, lambda prompt: REFUSAL, name="mine", judge=None)
    rows = board.own_rows(small)
    assert [row.method for row in rows] == ["other", "mine"]
    assert rows[1].over_refusal == 1
    assert rows[1].made["git"] and rows[1].made["versions"] == small.versions
    with pytest.raises(CourseError, match="'dpo' is taken"):
        board.place(small, lambda prompt: "", name="dpo", judge=None)


def test_a_row_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = a_row(marks=("says nothing (20%)",))
    storage.write_rows(path, [row, a_row("other", 1)])
    assert board.read_rows(path) == [row, a_row("other", 1)]
    assert json.loads(path.read_text().splitlines()[0])["format"] == FORMAT


def _line(**changes: Any) -> str:
    return json.dumps({**a_row().to_json(), **changes})


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (_line()[:-40] + "\n", r"line 2, is half-written"),
        (_line()[:-40], r"line 2, is half-written"),
        (_line(), r"line 2, has no end"),
        ("[1, 2]\n", r"line 2, is half-written or no JSON"),
        (_line(format=FORMAT + 1) + "\n", rf"line 2: this row has format {FORMAT + 1}"),
        (json.dumps({"method": "old"}) + "\n", r"line 2: this row has format None"),
        (json.dumps({"format": FORMAT, "method": "x"}) + "\n", r"line 2: this is no row.*gold"),
        (_line(extra=1) + "\n", r"line 2: this is no row.*unknown extra"),
        (_line(prompts="p1") + "\n", r"line 2: mine was measured on other prompts \(p1, here p0\)"),
    ],
)
def test_bad_lines_are_refused_and_named(tmp_path: Path, second: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(_line() + "\n" + second)
    with pytest.raises(CourseError, match=says):
        board.read_rows(path, "p0")


def test_a_torn_file_is_not_written_over(small: Course) -> None:
    path = storage.own_path(small)
    path.parent.mkdir(parents=True)
    path.write_text(_line()[:-40])
    with pytest.raises(CourseError, match="half-written"):
        storage.keep(small, a_row())
    assert path.read_text() == _line()[:-40]


def test_git_state_names_the_commit() -> None:
    shown = storage.git_state()
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert shown.removesuffix("+changes") == head or not head


# Read


def test_summary_by_hand() -> None:
    rows = [
        a_row("sft", 0, gold=0.0, capability=0.5, seconds=40.0),
        a_row("sft", 1, gold=0.2, capability=0.7, seconds=None),
        a_row("dpo", 0, gold=1.0, capability=0.55),
    ]
    sft, dpo = board.summarise(rows)
    assert (sft["method"], sft["seeds"], sft["gold"]) == ("sft", 2, pytest.approx(0.1))
    assert sft["seconds"] == 40 and sft["tax"] == pytest.approx(0)
    assert dpo["tax"] == pytest.approx(0.05) and dpo["win_judge"] is None
    text = board.as_text(rows)
    assert text.index("DPO") < text.index("SFT"), "the best first"
    assert "+1.00" in text and "+5.0%" in text and "8 pairs" in text
    wide = [line for line in board.as_text(board.recorded()).splitlines() if len(line) > 90]
    assert not wide, "a notebook's page is 90 characters wide"
    gap = board.against(rows)["dpo"]
    assert gap.mean == pytest.approx(0.9)


def test_rows_on_other_prompts_are_not_compared() -> None:
    with pytest.raises(CourseError, match="other prompts"):
        board.verdicts([a_row("a"), a_row("b", prompts="p1")])
    with pytest.raises(CourseError, match=r"Unknown column 'beauty'.*gold"):
        board.scores([a_row()], "beauty")


def test_prompts_that_somebody_has_no_value_for_are_left_out() -> None:
    one = a_row("a", values={"judge": [1.0, None, 0.5]})
    other = a_row("b", values={"judge": [0.0, 0.5, None]})
    assert {k: v.tolist() for k, v in board.scores([one, other], "judge").items()} == {
        "a": [[1.0]],
        "b": [[0.0]],
    }
    with pytest.raises(CourseError, match="No prompt has a value for harmful"):
        board.scores([one, other], "harmful")


def test_the_report_has_every_column_of_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    from course_utils.report import metrics, set_chapter

    set_chapter("board_test")
    board.report([a_row("sft", capability=0.7), a_row("dpo", 2)])
    head, sft, dpo = metrics()["board"]  # type: ignore[misc]
    assert len(head) == len(sft) == len(dpo)
    found = dict(zip(head, dpo, strict=True))
    assert found["method"] == "dpo" and found["seed"] == 2 and found["win_judge"] == ""
    assert found["tax"] == pytest.approx(0.1) and found["helpful"] == 0.5
    assert capsys.readouterr().out == ""


# The record


def test_the_methods_are_the_issues() -> None:
    assert set(leaderboard.METHODS) == ELEVEN
    for method in leaderboard.METHODS.values():
        assert set(method.needs) <= ELEVEN
    with pytest.raises(CourseError, match=r"Unknown method 'pp'.*ppo"):
        leaderboard.get_method("pp")


def test_seconds_add_up_over_the_stages() -> None:
    rows = [a_row("base", seconds=None), a_row("sft", seconds=50.0), a_row("ppo", seconds=100.0)]
    assert leaderboard.total_seconds(rows) == {"base": 0, "sft": 50}, "PPO's reward model is open"
    rows += [a_row("best_of_n", seconds=70.0), a_row("orpo", seconds=30.0)]
    totals = leaderboard.total_seconds(rows)
    assert totals["ppo"] == 220 and totals["best_of_n"] == 120 and totals["orpo"] == 30


def test_a_piece_is_made_once(small: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []

    def elsewhere(work: Any, course: Course, method: str, seed: int) -> dict[str, Any]:
        made.append((method, seed))
        return a_row(method, seed).to_json()

    monkeypatch.setattr(costs, "in_fresh_process", elsewhere)
    monkeypatch.setattr(leaderboard, "configuration", lambda course: {"rate": 1})
    first = leaderboard.piece(small, "dpo", 1)
    rows = list(leaderboard.rows(small))
    assert made[0] == ("dpo", 1) and len(made) == len(rows) == 33, "dpo 1 is not made again"
    assert first in rows
    assert [r["seed"] for r in rows[:3]] == [0, 1, 2]
    monkeypatch.setattr(leaderboard, "configuration", lambda course: {"rate": 2})
    leaderboard.piece(small, "dpo", 1)
    assert len(made) == 34, "another configuration, another piece"


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    monkeypatch.setattr(sweeps, "record_path", lambda name: tmp_path / f"{name}.jsonl")
    assert __main__.main(["board"]) == 2
    assert "sweep leaderboard" in capsys.readouterr().err
    monkeypatch.setattr(prompts, "fingerprint", lambda found: "p0")
    lines = [{"sweep": "leaderboard"}, a_row("sft").to_json(), a_row("dpo", gold=2.0).to_json()]
    (tmp_path / "leaderboard.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert __main__.main(["board", "--verdicts"]) == 0
    told = capsys.readouterr().out
    assert ("DPO" in told and "+2.00" in told and "better" in told) or "worse" in told
    assert __main__.main(["board", "--make", "nonsense", "0"]) == 2
    assert __main__.main(["board", "--make", "sft", "x"]) == 2


def test_the_record_is_complete(course: Course) -> None:
    rows = board.recorded(board.fingerprint(board.board_prompts(course)))
    assert {(row.method, row.seed) for row in rows} == {(m, s) for m in ELEVEN for s in (0, 1, 2)}
    for row in rows:
        assert len(row.values["gold"]) == 300 and row.size == "full"
        assert row.made["versions"] and row.made["git"] and row.made["date"]
        assert sum(v is not None for v in row.values["judge"]) >= 90
    for method in ELEVEN - {"base"}:
        assert any(row.seconds for row in rows if row.method == method)


@pytest.mark.slow
@pytest.mark.heavy
def test_a_row_of_the_record_can_be_made_again(course: Course) -> None:
    again = board.measure(course, runs.ensure("sft", course), name="sft", seed=0, judge=None)
    recorded = next(r for r in board.recorded() if (r.method, r.seed) == ("sft", 0))
    assert again.gold == pytest.approx(recorded.gold, abs=0.15)
    assert again.length == pytest.approx(recorded.length, rel=0.1)
