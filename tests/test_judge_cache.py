"""The judge's transcript, resuming after a kill or Ctrl-C, and the budget."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from judge_toys import (
    KEY,
    MODEL,
    PAIR,
    JudgeServer,
    completion,
    error,
    prefers,
    slots,
    verdict,
)

from course_utils.errors import CourseError
from course_utils.judge import Budget, PairJudge, PointJudge, Rubric
from course_utils.judge.budget import likely_tokens, most_tokens, reserve_or_wait
from course_utils.judge.catalogue import ModelCard
from course_utils.judge.transcript import Transcript, request_key

pytest_plugins = ("judge_fixtures",)
pytestmark = pytest.mark.usefixtures("loopback_only")

ROOT = Path(__file__).resolve().parent.parent


def pairs_of(count: int) -> list[tuple[str, str, str]]:
    return [(f"{PAIR[0]} {i}", *PAIR[1:]) for i in range(count)]


def questions(server: JudgeServer) -> list[str]:
    return [json.dumps(body["messages"]) for body in server.bodies]


# --- the file -------------------------------------------------------------------------------------


def test_a_second_session_asks_nothing(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "judge.jsonl"
    first = PairJudge(server.backend(transcript=Transcript.open(path))).compare(pairs_of(3))
    second = PairJudge(server.backend(transcript=Transcript.open(path))).compare(pairs_of(3))
    assert server.calls == 6
    assert (first.calls, first.cached, second.calls, second.cached) == (6, 0, 0, 6)
    assert first.items == second.items
    assert second.usd == 0.0 and first.usd == pytest.approx(6 * (100 * 1 + 20 * 10) / 1e6)


def test_a_record_holds_the_whole_exchange_and_never_the_key(
    server: JudgeServer, tmp_path: Path
) -> None:
    path = tmp_path / "judge.jsonl"
    url = server.url.replace("://", "://user:hunter2@") + "?token=hunter2"
    PairJudge(server.backend(transcript=Transcript.open(path), concurrency=1)).compare([PAIR])
    text = path.read_text()
    assert KEY not in text and server.keys == [f"Bearer {KEY}"] * 2
    record = json.loads(text.splitlines()[0])
    assert record["messages"] == server.bodies[0]["messages"]
    assert record["parameters"]["max_tokens"] == 300
    assert record["usage"] == [100, 20] and record["model_returned"] == f"{MODEL}-2026"
    assert json.loads(record["text"])["winner"] in ("A", "B")
    assert {"key", "base_url", "model", "salt", "changes", "seconds", "time"} <= set(record)
    # A password in the address is neither written nor part of the key.
    assert request_key(url, "m", [], {}) == request_key(server.url, "m", [], {})
    assert oct(path.stat().st_mode & 0o077) == "0o0"


@pytest.mark.parametrize("change", ["url", "model", "messages", "parameters", "salt"])
def test_whatever_changes_the_question_changes_the_key(change: str) -> None:
    asked: dict[str, Any] = {
        "base_url": "http://a/v1",
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "parameters": {"temperature": 0.0, "max_tokens": 3},
        "salt": "",
    }
    other = {
        "url": {"base_url": "http://b/v1"},
        "model": {"model": "n"},
        "messages": {"messages": [{"role": "user", "content": "y"}]},
        "parameters": {"parameters": {"temperature": 0.5, "max_tokens": 3}},
        "salt": {"salt": "1"},
    }[change]
    assert request_key(**asked) != request_key(**{**asked, **other})
    swapped = {**asked, "parameters": {"max_tokens": 3, "temperature": 0.0}}
    assert request_key(**asked) == request_key(**swapped)


def test_a_cache_of_another_rubric_does_not_match_and_is_reported(
    server: JudgeServer, tmp_path: Path
) -> None:
    path = tmp_path / "judge.jsonl"
    PairJudge(server.backend(transcript=Transcript.open(path))).compare(pairs_of(2))
    other = Rubric("brief", (("brevity", "it is short."),))
    found = PairJudge(server.backend(transcript=Transcript.open(path)), other).compare(pairs_of(2))
    assert server.calls == 8 and found.cached == 0 and found.unused == 4
    assert "4 records of the transcript not used" in found.summary()
    assert len(path.read_text().splitlines()) == 8


@pytest.mark.parametrize(
    "rubbish", [b'{"key": "abc", "te', b"\xff\xfe\x00", b"[]", b'{"key": "k", "text": null}', b"7"]
)
def test_a_torn_or_foreign_line_is_survived(
    server: JudgeServer, tmp_path: Path, rubbish: bytes
) -> None:
    path = tmp_path / "judge.jsonl"
    PairJudge(server.backend(transcript=Transcript.open(path))).compare([PAIR])
    with path.open("ab") as file:
        file.write(rubbish)  # no newline: the run was killed in the middle of a line
    transcript = Transcript.open(path)
    assert transcript.torn == 1 and len(transcript.records) == 2
    PairJudge(server.backend(transcript=transcript)).compare(pairs_of(1))
    assert len(Transcript.open(path).records) == 4  # the next line did not stick to the torn one
    assert server.calls == 4


def test_a_record_that_says_nothing_usable_is_asked_again(
    server: JudgeServer, tmp_path: Path
) -> None:
    path = tmp_path / "judge.jsonl"
    PairJudge(server.backend(transcript=Transcript.open(path))).compare([PAIR])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["text"] = "no verdict"
    lines[1]["usage"] = 17
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = PairJudge(server.backend(transcript=Transcript.open(path))).compare([PAIR])
    assert found[0].winner == "A" and server.calls == 4


def test_a_folder_as_transcript_is_said(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="name another file"):
        Transcript.open(tmp_path)


def test_a_transcript_that_cannot_be_written_is_said(server: JudgeServer, tmp_path: Path) -> None:
    transcript = Transcript.open(tmp_path / "folder" / "judge.jsonl")
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(CourseError, match=r"judge\.jsonl cannot be written .*name another file"):
        PairJudge(server.backend(transcript=transcript)).compare([PAIR])


def test_a_question_asked_twice_in_one_run_is_paid_once(server: JudgeServer) -> None:
    patient = server.backend(timeout=10.0)  # a busy machine's pause must not make the client repeat
    found = PairJudge(patient).compare([PAIR] * 5)
    assert [v.winner for v in found] == ["A"] * 5
    assert server.calls == 2


# --- resuming -------------------------------------------------------------------------------------

RUN = """
import sys
sys.path.insert(0, "tests")
from course_utils.judge import PairJudge
from course_utils.judge.backend import Backend
from course_utils.judge.transcript import Transcript
backend = Backend("live", {model!r}, {url!r}, transcript=Transcript.open({path!r}), concurrency=2)
backend.quiet = True
PairJudge(backend).compare([({question!r} + f" {{i}}", {a!r}, {b!r}) for i in range(12)])
"""


def test_a_killed_run_resumes_without_repeating_a_paid_call(
    server: JudgeServer, tmp_path: Path
) -> None:
    path = tmp_path / "judge.jsonl"
    server.delay = 0.05
    code = RUN.format(
        model=MODEL, url=server.url, path=str(path), question=PAIR[0], a=PAIR[1], b=PAIR[2]
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        until = time.monotonic() + 30
        while server.calls < 9 and run.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        run.kill()
        run.wait()
    assert 9 <= server.calls < 24, "the run was to be killed half-way"
    time.sleep(0.1)
    recorded = {json.dumps(r["messages"]) for r in Transcript.open(path).records.values()}
    assert len(recorded) >= 7  # nine were asked, two of them under way
    asked_before = len(server.bodies)
    server.delay = 0.0
    found = PairJudge(server.backend(transcript=Transcript.open(path))).compare(pairs_of(12))
    assert [v.winner for v in found] == ["A"] * 12
    again = set(questions(server)[asked_before:])
    assert not again & recorded
    assert len(again) == server.calls - asked_before == 24 - len(recorded)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_what_is_done(server: JudgeServer) -> None:
    backend = server.backend(concurrency=2)
    server.delay = 0.05

    stopped = threading.Event()

    def stop_half_way() -> None:
        while server.calls < 7:
            time.sleep(0.01)
        while not stopped.is_set():  # one that meets a finaliser is lost: the reader presses again
            os.kill(os.getpid(), signal.SIGINT)
            stopped.wait(0.3)

    thread = threading.Thread(target=stop_half_way)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        try:
            PairJudge(backend).compare(pairs_of(50))
        finally:
            stopped.set()
    thread.join()
    kept = len(backend.transcript.records)
    assert 4 <= kept < 20
    time.sleep(0.3)  # what was under way arrives
    asked = server.calls
    time.sleep(0.3)
    assert server.calls == asked < 20  # nothing goes on behind the reader's back
    assert backend.budget.under_way == 0
    server.delay = 0.0
    found = PairJudge(backend).compare(pairs_of(50))
    assert (found.cached, found.calls) == (kept, 100 - kept)


def test_a_cancelled_await_leaves_no_reservation(server: JudgeServer) -> None:
    backend = server.backend(concurrency=2, budget=Budget(max_calls=1000))
    server.delay = 0.2

    async def impatient() -> None:
        await asyncio.wait_for(PairJudge(backend).acompare(pairs_of(9)), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert backend.budget.under_way == 0
    assert backend.budget.calls == 2  # they may have been charged


# --- budget ---------------------------------------------------------------------------------------


def test_the_cap_on_calls_keeps_what_is_done_and_lists_the_rest(server: JudgeServer) -> None:
    backend = server.backend(concurrency=3, budget=Budget(max_calls=5))
    with pytest.warns(UserWarning, match="STOPPED, 4 pairs left: the budget does not cover"):
        found = PairJudge(backend).compare(pairs_of(6))
    assert server.calls == 5
    assert [v.pair.prompt for v in found] == [p[0] for p in pairs_of(2)]
    assert [p.prompt for p in found.left] == [p[0] for p in pairs_of(6)[2:]]
    assert not found.errors
    backend.budget = Budget()
    rest = PairJudge(backend).compare(found.left)
    assert len(rest) == 4 and server.calls == 12  # the fifth answer was not lost


@pytest.mark.parametrize("concurrency", [1, 16])
def test_the_cap_in_money_holds_with_many_calls_under_way(
    server: JudgeServer, concurrency: int
) -> None:
    """Each call costs 300 millionths of a dollar by usage, and may cost up to about 5,000."""
    server.delay = 0.02
    backend = server.backend(concurrency=concurrency, budget=Budget(max_usd=0.010))
    with pytest.warns(UserWarning, match="STOPPED"):
        found = PairJudge(backend).compare(pairs_of(40))
    spent = server.calls * (100 * 1.0 + 20 * 10.0) / 1e6
    assert backend.budget.usd == pytest.approx(spent) and spent <= 0.010
    assert found.usd == pytest.approx(spent)
    assert spent > 0.004  # and reservations do not stop the run long before the cap
    assert len(found) + len(found.left) == 40


def test_a_server_without_usage_is_charged_the_reservation(server: JudgeServer) -> None:
    server.handler = lambda body: {**prefers("Paris")(body), "usage": None}
    backend = server.backend(concurrency=1, budget=Budget(max_tokens=10**6))
    PairJudge(backend).compare([PAIR])
    most = sum(most_tokens(body["messages"]) + 300 for body in server.bodies)
    assert backend.budget.tokens == most


def test_a_failed_call_is_charged_what_the_server_counted(
    server: JudgeServer, fast_retries: None
) -> None:
    server.handler = lambda body: completion(verdict("A"), finish_reason="length")
    backend = server.backend(concurrency=1)
    with pytest.warns(UserWarning, match="length"):
        PairJudge(backend).compare([PAIR])
    assert backend.budget.tokens == 2 * 120
    server.handler = error(500)
    with pytest.warns(UserWarning, match="server_error"):
        PairJudge(backend).compare(pairs_of(1))
    assert backend.budget.tokens == 2 * 120  # an error page costs nothing


def test_a_cap_in_money_needs_a_price(server: JudgeServer) -> None:
    backend = server.backend(card=ModelCard(MODEL), budget=Budget(max_usd=1.0))
    with pytest.raises(CourseError, match=r"judge_models\.json, or give max_tokens"):
        PairJudge(backend).compare([PAIR])
    assert server.calls == 0


@pytest.mark.parametrize("bad", [-1, float("nan")])
def test_a_cap_is_a_number_from_zero_up(bad: float) -> None:
    with pytest.raises(CourseError, match="max_usd"):
        Budget(max_usd=bad)


def test_reservations_count_until_they_are_settled() -> None:
    budget = Budget(max_tokens=100)
    first = budget.reserve(60, 0.0)
    assert first is not None and budget.reserve(41, 0.0) is None
    second = budget.reserve(40, 0.0)
    assert second is not None
    budget.settle(first, 10)
    budget.release(second)
    assert (budget.tokens, budget.calls, budget.under_way) == (10, 1, 0)
    assert budget.reserve(90, 0.0) is not None


def test_a_call_waits_for_others_to_settle_for_less() -> None:
    async def scene() -> int | None:
        budget, settled = Budget(max_tokens=100), asyncio.Event()
        first = budget.reserve(80, 0.0)
        assert first is not None

        async def settle() -> None:
            await asyncio.sleep(0.01)
            budget.settle(first, 5)
            settled.set()

        task = asyncio.create_task(settle())
        ticket = await reserve_or_wait(budget, 50, 0.0, settled)
        await task
        return ticket

    assert asyncio.run(scene()) is not None


def test_the_estimate_sends_nothing_and_bounds_the_cost(server: JudgeServer) -> None:
    backend = server.backend()
    judge = PairJudge(backend)
    judge.compare([PAIR])
    estimate = judge.estimate([PAIR, PAIR, *pairs_of(2)])
    assert server.calls == 2
    # Two pairs are new, with two questions each; the known one stands there twice.
    assert (estimate.calls, estimate.cached, estimate.completion_tokens) == (4, 4, 1200)
    judge.compare(pairs_of(2))
    asked = [likely_tokens(body["messages"]) for body in server.bodies[2:]]
    assert estimate.prompt_tokens == sum(asked)
    assert estimate.usd == pytest.approx((sum(asked) * 1.0 + 1200 * 10.0) / 1e6)
    unknown = PairJudge(server.backend(card=ModelCard(MODEL))).estimate([PAIR])
    assert unknown.usd is None and "cost unknown" in str(unknown)


# --- scores ---------------------------------------------------------------------------------------


def test_scores_resume_and_report_like_verdicts(server: JudgeServer) -> None:
    scores = {"accuracy": 4, "usefulness": 5, "clarity": 3, "safety": 5}
    server.handler = lambda body: completion(json.dumps({"why": "fine", "scores": scores}))
    backend = server.backend(concurrency=1, budget=Budget(max_calls=2))
    items = [(f"q{i}", "an answer") for i in range(3)]
    with pytest.warns(UserWarning, match="STOPPED, 1 answers left"):
        found = PointJudge(backend).score(items)
    assert [s.scores for s in found] == [scores] * 2 and found.left == (("q2", "an answer"),)
    assert found[0].total == 4.25 == found.mean and found[0].why == "fine"
    backend.budget = Budget()
    assert len(PointJudge(backend).score(items)) == 3 and server.calls == 3


def test_an_answer_without_text_is_not_sent_to_be_scored(server: JudgeServer) -> None:
    with pytest.warns(UserWarning, match="no_answer 1"):
        found = PointJudge(server.backend()).score([{"prompt": "q", "response": " \n"}])
    assert server.calls == 0 and found[0].total is None and found.mean is None


@pytest.mark.parametrize(
    "scores",
    [
        {"accuracy": 4},
        {"accuracy": 4, "usefulness": 6, "clarity": 3, "safety": 5},
        {"accuracy": 4, "usefulness": 4.5, "clarity": 3, "safety": 5},
        {"accuracy": 4, "usefulness": "5", "clarity": 3, "safety": 5},
        {"accuracy": True, "usefulness": 5, "clarity": 3, "safety": 5},
        [4, 5, 3, 5],
        None,
    ],
)
def test_incomplete_or_impossible_scores_are_errors(server: JudgeServer, scores: Any) -> None:
    server.handler = lambda body: completion(json.dumps({"why": "", "scores": scores}))
    with pytest.warns(UserWarning, match="unparsable 1"):
        found = PointJudge(server.backend()).score([("q", "an answer")])
    assert found[0].scores == {} and found[0].total is None


def test_both_orders_are_asked(server: JudgeServer) -> None:
    PairJudge(server.backend(concurrency=1)).compare([PAIR])
    assert [slots(body) for body in server.bodies] == [PAIR[1:], PAIR[:0:-1]]
    assert Counter(body["model"] for body in server.bodies) == {MODEL: 2}
