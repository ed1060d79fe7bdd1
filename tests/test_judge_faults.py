"""The judge's fault matrix, each fault from a real server on loopback through the real client."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("openai")

from judge_toys import (
    KEY,
    MODEL,
    PAIR,
    HttpResponse,
    JudgeServer,
    completion,
    error,
    prefers,
    verdict,
)

from course_utils.errors import CourseError
from course_utils.judge import PairJudge, Verdict, Verdicts, to_preferences, win_rate
from course_utils.judge.catalogue import ModelCard

pytest_plugins = ("judge_fixtures",)
pytestmark = pytest.mark.usefixtures("loopback_only")


def page(text: str, status: int = 200, kind: str = "text/html") -> Callable[[Any], HttpResponse]:
    return lambda body: HttpResponse(text, status, content_type=kind)


def judge_one(server: JudgeServer, **changes: Any) -> Verdict:
    """One pair, its two questions one after the other."""
    with pytest.warns(UserWarning) if changes.pop("warns", False) else _nothing():
        found = PairJudge(server.backend(concurrency=1, **changes)).compare([PAIR])
    assert len(found) == 1
    return found[0]


class _nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def assert_soft(server: JudgeServer, kind: str, **changes: Any) -> Verdict:
    """The fault is an error of its kind: no tie, no preference, not cached, asked anew."""
    backend = server.backend(concurrency=1, **changes)
    with pytest.warns(UserWarning, match=kind):
        found = PairJudge(backend).compare([PAIR])
    assert found[0].error.startswith(f"{kind}: ")
    assert found[0].winner is None and found[0].score is None and found[0].confidence is None
    assert found.errors == {kind: 1}
    rate = win_rate(found)
    assert (rate.n, rate.errors, rate.rate) == (0, 1, None)
    assert to_preferences(found).errors == 1 and len(to_preferences(found)) == 0
    kept = len(backend.transcript.records)
    assert kept <= 1  # of the other order, if that was answered
    server.script.clear()
    server.handler, server.delay = prefers("Paris"), 0.0
    again = PairJudge(backend).compare([PAIR])
    assert again[0].winner == "A" and not again.errors
    assert (again.cached, again.calls) == (kept, 2 - kept)
    return found[0]


# --- waiting and retrying ---------------------------------------------------------------------


def test_429_with_retry_after_is_obeyed_and_concurrency_stays_capped(server: JudgeServer) -> None:
    server.script = [error(429, retry_after="1")] * 2
    backend = server.backend(concurrency=2)
    pairs = [(f"{PAIR[0]} {i}", *PAIR[1:]) for i in range(3)]
    began = time.perf_counter()
    found = PairJudge(backend).compare(pairs)
    assert time.perf_counter() - began >= 1.0
    assert [v.winner for v in found] == ["A"] * 3
    assert server.calls == 8 and server.most <= 2


def test_429_with_a_long_retry_after_pauses_the_run_and_resumes_later(server: JudgeServer) -> None:
    pairs = [(f"{PAIR[0]} {i}", *PAIR[1:]) for i in range(4)]
    server.script = [prefers("Paris")] * 3 + [error(429, retry_after="300")]
    backend = server.backend(concurrency=1)
    with pytest.warns(UserWarning, match="STOPPED, 3 pairs left: the server asks to wait 300 s"):
        found = PairJudge(backend).compare(pairs)
    assert len(found) == 1 and [p.prompt for p in found.left] == [p[0] for p in pairs[1:]]
    assert server.calls == 4  # no retry
    assert not found.errors
    rest = PairJudge(backend).compare(pairs)
    assert len(rest) == 4 and not rest.left
    assert server.calls == 4 + 5  # three of eight answers were kept


def test_a_date_as_retry_after_pauses_too(server: JudgeServer) -> None:
    server.script = [error(429, retry_after="Fri, 01 Jan 2100 00:00:00 GMT")]
    with pytest.warns(UserWarning, match="STOPPED, 1 pairs left"):
        assert len(PairJudge(server.backend(concurrency=1)).compare([PAIR])) == 0
    assert server.calls == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error(429), "rate_limited"),
        (error(500), "server_error"),
        (page("<html><b>Service</b> unavailable</html>", 503), "server_error"),
    ],
    ids=["429 bare", "500", "503 HTML"],
)
def test_server_trouble_gets_five_retries(
    server: JudgeServer, fast_retries: None, fault: Any, kind: str
) -> None:
    server.script = [fault] * 5  # then the server is well again
    assert judge_one(server).winner == "A"
    assert server.calls == 5 + 2
    server.script = [fault] * 6
    failed = assert_soft(server, kind)
    assert "<" not in failed.error


def test_an_exhausted_quota_is_fatal_at_once(server: JudgeServer) -> None:
    server.handler = error(429, "You exceeded your current quota", code="insufficient_quota")
    with pytest.raises(CourseError, match=r"quota at .* is used up: add credit"):
        judge_one(server)
    assert server.calls == 1


def test_a_hang_ends_at_the_deadline(server: JudgeServer, fast_retries: None) -> None:
    server.delay = 1.0
    failed = assert_soft(server, "timeout", timeout=0.2, deadline=0.5)
    assert "no whole answer within 0.5 s" in failed.error


@pytest.mark.slow
def test_a_slow_drip_ends_at_the_deadline(server: JudgeServer) -> None:
    """The client's timeout counts per read, and this server sends a byte every 50 ms."""
    text = json.dumps(completion(verdict("A")))

    def drip(body: Any) -> HttpResponse:
        def send() -> Iterator[str]:
            for letter in text:
                time.sleep(0.05)
                yield letter

        headers = {"Content-Length": str(len(text))}
        return HttpResponse(send(), 200, headers, content_type="application/json")

    server.script = [drip] * 2
    assert_soft(server, "timeout", timeout=0.3, deadline=0.7)


def test_a_truncated_body_is_a_soft_error(server: JudgeServer, fast_retries: None) -> None:
    def cut(body: Any) -> HttpResponse:
        text = json.dumps(completion(verdict("A")))
        headers = {"Content-Length": str(len(text))}
        return HttpResponse(iter([text[:60]]), 200, headers, content_type="application/json")

    server.script = [cut] * 6
    assert_soft(server, "connection")
    assert server.calls == 6 + 1 + 1  # five retries, the other order, and the failed one anew


# --- answers that are none --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (page("<html>Please log in</html>"), "not_json"),
        (page("", kind="application/json"), "broken_json"),
        (page('{"id": "c", "choices": [{', kind="application/json"), "broken_json"),
        (page("[]", kind="application/json"), "not_json"),
        (page("null", kind="application/json"), "not_json"),
        (page("17", kind="application/json"), "not_json"),
        (lambda body: {**completion(verdict("A")), "choices": []}, "no_choices"),
        (lambda body: {**completion(verdict("A")), "choices": None}, "no_choices"),
        (lambda body: {"error": {"message": "overloaded", "code": 1}}, "error_in_200"),
        (lambda body: {**completion(), "choices": [{}]}, "empty"),
        (lambda body: {**completion(), "choices": ["A"]}, "empty"),
        (lambda body: completion(None), "empty"),
        (lambda body: completion("  \n"), "empty"),
        (lambda body: completion([{"type": "text"}]), "empty"),
        (lambda body: completion(None, refusal="I cannot judge this."), "refusal"),
        (lambda body: completion(verdict("A"), finish_reason="length"), "length"),
        (lambda body: completion(verdict("A"), finish_reason="content_filter"), "filtered"),
        (error(400, "flagged", code="content_filter"), "filtered"),
        (error(400, "messages are too long", param="messages"), "bad_request"),
        (
            error(400, "maximum context length is 9, reduce messages or max_tokens"),
            "bad_request",
        ),
        (error(422, "what?"), "http_422"),
        (lambda body: completion("Answer A is more accurate."), "unparsable"),
        (lambda body: completion('{"winner": "C", "why": ""}'), "unparsable"),
        (lambda body: completion('{"why": "a tie"}'), "unparsable"),
        (lambda body: completion('{"why": "x", "winner": ["A"]}'), "unparsable"),
        (lambda body: completion('{"why": "x", "winner": "A", "winner": "B"}'), "unparsable"),
        (lambda body: completion('{"winner": "A"} or {"winner": "B"}'), "unparsable"),
        (lambda body: completion("{" * 5000), "unparsable"),
    ],
)
def test_an_answer_that_is_none_is_an_error_and_no_tie(
    server: JudgeServer, answer: Any, kind: str
) -> None:
    server.script = [answer]
    assert_soft(server, kind)


def test_fenced_json_and_prose_before_json_are_read(server: JudgeServer) -> None:
    server.script = [
        lambda body: completion(f"```json\n{verdict('A')}\n```"),
        lambda body: completion(f"Let me think. B names the capital.\n{verdict('B')}"),
    ]
    found = judge_one(server)
    assert found.winner == "A" and found.flipped is False


def test_usage_may_be_missing(server: JudgeServer) -> None:
    server.handler = lambda body: {**prefers("Paris")(body), "usage": None}
    assert judge_one(server).winner == "A"


# --- fatal faults -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "set OPENAI_API_KEY"), (403, "set OPENAI_API_KEY"), (404, "COURSE_JUDGE_MODEL")],
)
def test_a_wrong_key_or_model_is_fatal_and_names_the_remedy(
    server: JudgeServer, status: int, remedy: str
) -> None:
    server.handler = error(status, f"bad key {KEY}")
    with pytest.raises(CourseError, match=remedy) as caught:
        judge_one(server)
    assert KEY not in str(caught.value) and MODEL in str(caught.value)
    assert server.calls == 1


def test_a_fatal_fault_cancels_the_calls_under_way_and_keeps_what_is_done(
    server: JudgeServer,
) -> None:
    pairs = [(f"{PAIR[0]} {i}", *PAIR[1:]) for i in range(20)]
    server.script = [prefers("Paris")] * 4
    server.handler = error(401)
    backend = server.backend(concurrency=2)
    with pytest.raises(CourseError, match=r"4 answers of this run are kept"):
        PairJudge(backend).compare(pairs)
    assert len(backend.transcript.records) == 4
    assert server.calls <= 4 + 2


def test_a_key_that_the_server_repeats_is_not_shown(
    server: JudgeServer, fast_retries: None
) -> None:
    server.handler = error(500, f"request with {KEY} failed")
    failed = judge_one(server, warns=True)
    assert "***" in failed.error and KEY not in failed.error


def test_no_server_is_fatal_and_named(server: JudgeServer, fast_retries: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    with pytest.raises(CourseError, match=f"No server answers at {url} after 6 tries: start it"):
        judge_one(server, base_url=url)


def test_a_redirect_is_not_followed(server: JudgeServer) -> None:
    server.handler = lambda body: HttpResponse(
        "", 307, {"Location": "http://example.invalid/v1/chat/completions"}
    )
    with pytest.raises(CourseError, match="redirect"):
        judge_one(server)


def test_another_servers_bug_in_a_local_function_is_not_hidden() -> None:
    from course_utils.judge import FunctionModel, local_backend

    def broken(messages: Any, parameters: Any) -> str:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        PairJudge(local_backend(FunctionModel(broken))).compare([PAIR])


# --- parameters a model refuses -----------------------------------------------------------------


def refuse(*names: str, rename: bool = False) -> Callable[[Any], Any]:
    """A reasoning model of OpenAI's: 400 with the parameter's name for each of `names`."""

    def handler(body: Any) -> Any:
        for name in names:
            if name in body:
                hint = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return error(
                    400,
                    f"Unsupported parameter: '{name}' is not supported with this model.{hint}",
                    param=name,
                    code="unsupported_parameter",
                )(body)
        return prefers("Paris")(body)

    return handler


def test_temperature_is_dropped_and_max_tokens_renamed_once_for_the_run(
    server: JudgeServer,
) -> None:
    server.handler = refuse("temperature", "max_tokens", "logprobs")
    pairs = [(f"{PAIR[0]} {i}", *PAIR[1:]) for i in range(3)]
    backend = server.backend(concurrency=1)
    found = PairJudge(backend).compare(pairs)
    assert [v.winner for v in found] == ["A"] * 3
    assert server.calls == 3 + 6  # one refusal each, then never again
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 300
    assert not {"temperature", "max_tokens", "logprobs", "top_logprobs"} & set(last)
    assert found.changes == {
        "temperature dropped": 6,
        "max_tokens sent as max_completion_tokens": 6,
        "logprobs dropped": 6,
        "top_logprobs dropped": 6,
    }
    assert "temperature dropped in 6 calls" in found.summary()
    record = next(iter(backend.transcript.records.values()))
    assert "temperature dropped" in record["changes"]
    assert record["parameters"]["temperature"] == 0.0  # what was asked stands beside it


def test_concurrent_refusals_of_one_parameter_are_learnt_once(server: JudgeServer) -> None:
    server.handler, server.delay = refuse("max_tokens"), 0.05
    pairs = [(f"{PAIR[0]} {i}", *PAIR[1:]) for i in range(4)]
    found = PairJudge(server.backend(concurrency=8)).compare(pairs)
    assert [v.winner for v in found] == ["A"] * 4
    assert server.calls == 16


def test_a_server_that_names_the_parameter_only_in_its_text(server: JudgeServer) -> None:
    def handler(body: Any) -> Any:
        if "response_format" in body:
            return error(400, "extra fields: response_format is not permitted")(body)
        return prefers("Paris")(body)

    server.handler = handler
    found = PairJudge(server.backend(concurrency=1)).compare([PAIR])
    assert found.changes == {"response_format dropped": 2}


def test_the_limit_on_length_is_never_dropped(server: JudgeServer) -> None:
    server.handler = refuse("max_tokens", "max_completion_tokens")
    assert judge_one(server, warns=True).error.startswith("bad_request: ")
    assert all({"max_tokens", "max_completion_tokens"} & set(body) for body in server.bodies)


def test_what_the_models_file_knows_is_not_tried(server: JudgeServer) -> None:
    server.handler = refuse("temperature", "max_tokens")
    card = ModelCard(
        MODEL,
        refuses=frozenset({"temperature"}),
        renames={"max_tokens": "max_completion_tokens"},
        adds={"reasoning_effort": "none"},
    )
    assert judge_one(server, card=card).winner == "A"
    assert server.calls == 2 and server.bodies[0]["reasoning_effort"] == "none"


# --- loops --------------------------------------------------------------------------------------


def test_one_backend_serves_several_event_loops(server: JudgeServer) -> None:
    """A client kept over two loops fails with "Event loop is closed"."""
    judge = PairJudge(server.backend())
    for number in range(3):
        question = (f"{PAIR[0]} {number}", *PAIR[1:])
        assert asyncio.run(judge.acompare([question]))[0].winner == "A"


def test_compare_works_inside_a_running_loop_as_in_a_notebook(server: JudgeServer) -> None:
    async def cell() -> Verdicts:
        return PairJudge(server.backend()).compare([PAIR])

    assert asyncio.run(cell())[0].winner == "A"


@pytest.mark.slow
def test_many_calls_run_at_once_and_never_more_than_allowed(server: JudgeServer) -> None:
    server.delay = 0.1  # long beside what a call costs, even on a busy machine
    pairs = [(f"{PAIR[0]} {i}", *PAIR[1:]) for i in range(200)]
    backend = server.backend(concurrency=32)
    steps: list[tuple[int, int]] = []
    found = PairJudge(backend).compare(
        pairs, on_step=lambda done, total: steps.append((done, total))
    )
    assert len(found) == 200 and not found.errors
    assert server.calls == 400
    assert 16 <= server.most <= 32
    assert steps[0] == (0, 400) and steps[-1] == (400, 400)
    again = PairJudge(backend).compare(pairs)
    assert server.calls == 400 and again.cached == 400 and again.calls == 0
