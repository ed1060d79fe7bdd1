"""Choosing a backend, models in this process, replay, the models file, the specimen."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import threading
import types
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("openai")

from judge_toys import KEY, MODEL, PAIR, JudgeServer, verdict

from course_utils.errors import CourseError
from course_utils.judge import (
    Budget,
    FunctionModel,
    LocalReply,
    LocalRequest,
    PairJudge,
    TokenLogprob,
    ask_texts,
    local_backend,
    make_backend,
)
from course_utils.judge.calls import Failure
from course_utils.judge.catalogue import catalogue, read_catalogue
from course_utils.judge.local import BATCH, respond
from course_utils.judge.prompts import RUBRICS, pair_messages, read_pair
from course_utils.judge.wire import bare_url, is_loopback, retry_after
from course_utils.paths import data_dir

if TYPE_CHECKING:
    from course_utils._setup import Course

pytest_plugins = ("judge_fixtures",)
pytestmark = pytest.mark.usefixtures("loopback_only")


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))


def world(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put a world judge where the course's own stands; the list receives what `load` was given."""
    given: list[Any] = []
    module = types.ModuleType("course_utils.judge.world_model")

    def load(course: Any) -> FunctionModel:
        given.append(course)
        return FunctionModel(lambda messages, parameters: verdict("A"), "world-judge-abc")

    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "course_utils.judge.world_model", module)
    return given


# --- choosing -------------------------------------------------------------------------------------


def test_auto_is_the_world_in_tiny_even_with_a_key(
    course: Course, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = world(monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    backend = make_backend("auto", course=course)
    said = capsys.readouterr().out
    assert backend.kind == "world" and given == [course] and not backend.leaves_machine
    assert "judge: world-judge-abc (world)" in said and "answers in this process" in said
    assert "COURSE_JUDGE=live" in said and KEY not in said
    assert PairJudge(backend).compare([PAIR]).title == "judge: world-judge-abc (world)"


def test_auto_is_live_once_that_was_said(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COURSE_JUDGE", "live")
    monkeypatch.setenv("COURSE_JUDGE_URL", server.url)
    monkeypatch.setenv("COURSE_JUDGE_MODEL", MODEL)
    backend = make_backend("auto")
    said = capsys.readouterr().out
    assert backend.title == f"judge: {MODEL} (live)"
    assert f"asks {server.url}" in said and "on this machine" in said and "no price known" in said
    assert PairJudge(backend).compare([PAIR])[0].winner == "A"
    assert server.keys == ["Bearer not-needed"] * 2  # a server without keys gets a dummy
    said = capsys.readouterr().out
    assert "2 calls to make, 0 in the transcript" in said and "cost unknown" in said


def test_sending_texts_away_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    backend = make_backend("live")
    said = capsys.readouterr().out
    assert backend.leaves_machine and "LEAVES THIS MACHINE" in said
    assert backend.model == catalogue().default and "check before use" in said
    assert KEY not in said + repr(backend)
    assert backend.transcript.path is not None
    assert backend.transcript.path.name == f"{catalogue().default}.jsonl"


def test_another_server_never_gets_openais_key(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    PairJudge(make_backend("live", model=MODEL, base_url=server.url)).compare([PAIR])
    assert set(server.keys) == {"Bearer not-needed"}
    monkeypatch.setenv("COURSE_JUDGE_KEY", "own")
    backend = make_backend("live", model=MODEL, base_url=server.url, transcript="x.jsonl")
    assert backend.api_key == "own"
    # Who sets OPENAI_BASE_URL means the key for it.
    monkeypatch.delenv("COURSE_JUDGE_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert make_backend("live", model=MODEL).api_key == KEY


def test_a_proxy_does_not_stand_before_this_machine(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    backend = make_backend("live", model=MODEL, base_url=server.url)
    assert PairJudge(backend).compare([PAIR])[0].winner == "A"


def test_live_without_a_key_is_said() -> None:
    with pytest.raises(CourseError, match="needs a key: set OPENAI_API_KEY"):
        make_backend("live")


@pytest.mark.parametrize(("old", "new"), [("gpt-3.5-turbo", "gpt-5.4-mini"), ("gpt-4", "gpt-5.4")])
def test_the_sources_models_are_mapped(old: str, new: str) -> None:
    with pytest.raises(CourseError, match=rf"{old}.* was shut down on 2026-10-23: use '{new}'"):
        make_backend("live", model=old, api_key=KEY)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "wordl"}, "Unknown judge backend 'wordl'"),
        ({"kind": "live", "base_url": "localhost:8000"}, "base URL 'localhost:8000' is none"),
        ({"kind": "replay"}, "needs transcript="),
        ({"kind": "live", "concurency": 3}, "Unknown limit 'concurency'"),
        ({"kind": "live", "api_key": KEY, "concurrency": 0}, "concurrency is 0: give a number"),
        ({"kind": "live", "api_key": KEY, "deadline": -1}, "deadline is -1: give a number"),
        ({"kind": "live", "api_key": "‘sk-1’"}, "characters that no key has"),
    ],
)
def test_what_cannot_be_chosen_is_said(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CourseError, match=sentence):
        make_backend(**arguments)


def test_blanks_around_a_key_are_no_part_of_it() -> None:
    assert make_backend("live", api_key=f" {KEY}\n").api_key == KEY


def test_an_unknown_name_in_the_environment_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_JUDGE", "openai")
    with pytest.raises(CourseError, match="Unknown COURSE_JUDGE 'openai'"):
        make_backend()


def test_a_missing_world_judge_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "course_utils.judge.world_model", None)
    with pytest.raises(CourseError, match="not part of this installation"):
        make_backend("world")


def test_a_budget_in_money_needs_a_price(server: JudgeServer) -> None:
    with pytest.raises(CourseError, match="No price is known"):
        make_backend("live", model=MODEL, base_url=server.url, budget=Budget(max_usd=1))


# --- replay ---------------------------------------------------------------------------------------


def test_a_replay_answers_as_recorded_and_never_asks(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text('{"transcript": 1, "source": "hand-written for a test"}\n')
    live = make_backend("live", model=MODEL, base_url=server.url, transcript=path)
    recorded = PairJudge(live).compare([PAIR])
    replay = make_backend("replay", transcript=path)
    assert replay.title == f"judge: {MODEL} (replay, hand-written for a test)"
    assert "asks nobody" in capsys.readouterr().out
    again = PairJudge(replay).compare([PAIR])
    assert again.items == recorded.items and again.usd == 0.0
    assert server.calls == 2
    with pytest.raises(CourseError, match="2 of 4 questions are not in the recorded transcript"):
        PairJudge(replay).compare([PAIR, ("another", "x", "y")])
    assert server.calls == 2


def test_a_replay_of_nothing_or_of_two_models_is_said(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    with pytest.raises(CourseError, match="holds no answers"):
        make_backend("replay", transcript=path)
    for name in ("one", "two"):
        live = make_backend("live", model=name, base_url=server.url, transcript=path)
        PairJudge(live).compare([PAIR])
    with pytest.raises(CourseError, match="answers of 2 models"):
        make_backend("replay", transcript=path)
    assert make_backend("replay", transcript=path, model="two").model == "two"


# --- a model in this process ----------------------------------------------------------------------


def ask(body: dict[str, Any], reply: LocalReply | None = None, path: str = "") -> Any:
    """(status, body) of the local API for one request; the list receives what the model saw."""
    seen: list[LocalRequest] = []

    async def answer(request: LocalRequest) -> LocalReply:
        seen.append(request)
        return reply or LocalReply("hello", prompt_tokens=3, completion_tokens=1)

    status, given = asyncio.run(
        respond(answer, path or "/v1/chat/completions", json.dumps(body).encode())
    )
    return status, given, seen


BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_the_local_api_answers_as_openai_does() -> None:
    from openai.types.chat import ChatCompletion

    top = {"yes": -0.1, "no": -math.inf}
    reply = LocalReply("yes", (TokenLogprob("yes", -0.1, top),), 5, 1, "length")
    status, body, seen = ask({**BODY, "max_completion_tokens": 7, "logprobs": True}, reply)
    parsed = ChatCompletion.model_validate(body)  # raises if a field is missing
    assert status == 200 and parsed.choices[0].finish_reason == "length"
    assert parsed.choices[0].logprobs is not None and parsed.choices[0].logprobs.content
    shown = parsed.choices[0].logprobs.content[0]
    assert [(t.token, t.logprob) for t in shown.top_logprobs] == [("yes", -0.1), ("no", -9999.0)]
    assert parsed.usage is not None and parsed.usage.total_tokens == 6
    assert seen == [LocalRequest(({"role": "user", "content": "hi"},), 1.0, 7, None, True)]


def test_the_local_api_keeps_temperature_zero_and_seed() -> None:
    _, _, seen = ask({**BODY, "temperature": 0, "seed": 4, "max_tokens": 2})
    assert (seen[0].temperature, seen[0].seed, seen[0].max_tokens) == (0.0, 4, 2)


def test_the_local_api_refuses_what_it_does_not_know() -> None:
    status, body, seen = ask({**BODY, "frequency_penalty": 1})
    assert status == 400 and body["error"]["param"] == "frequency_penalty" and not seen
    assert ask(BODY, path="/v1/embeddings")[0] == 404


def test_logprobs_are_given_only_when_asked_for() -> None:
    reply = LocalReply("yes", (TokenLogprob("yes", -0.1),))
    assert ask(BODY, reply)[1]["choices"][0]["logprobs"] is None


def test_a_local_model_goes_through_the_real_client_without_a_port() -> None:
    """Soft labels and dropped parameters arrive as from a server; no socket is opened."""
    calls: list[dict[str, Any]] = []

    def answer(messages: Any, parameters: dict[str, Any]) -> LocalReply:
        calls.append(parameters)
        start = '{"why": "", "winner": "'
        top = {"A": math.log(0.7), "B": math.log(0.3)}
        parts = (
            TokenLogprob(start, 0.0),
            TokenLogprob("A", top["A"], top),
            TokenLogprob('"}', 0.0),
        )
        return LocalReply(start + 'A"}', parts)

    found = PairJudge(local_backend(FunctionModel(answer))).compare([PAIR])
    assert found.changes == {"response_format dropped": 2}
    assert [r.p_a for r in found[0].rounds] == pytest.approx([0.7, 0.3], abs=1e-4)
    assert calls[0] == {"temperature": 0.0, "max_tokens": 300, "seed": None, "logprobs": True}
    assert found.usd == 0.0


def test_plain_texts_can_be_asked_for() -> None:
    """What critiques and revisions use: one reply a conversation, failures told apart."""

    def answer(messages: Any, parameters: dict[str, Any]) -> str:
        assert (parameters["temperature"], parameters["max_tokens"]) == (0.7, 9)
        return f"{messages[0]['content']}!" if messages[0]["content"] else " "

    asked = ask_texts(
        local_backend(FunctionModel(answer)),
        [[{"role": "user", "content": text}] for text in ("one", "", "two")],
        temperature=0.7,
        max_tokens=9,
    )
    first, failed, last = asked.outcomes
    assert (first, last) == ("one!", "two!")
    assert isinstance(failed, Failure) and failed.kind == "empty"


class Batcher:
    """Answers in batches, and knows how large they were and in which thread they came."""

    name = "batcher"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.at_once = 0

    def replies(self, requests: Sequence[LocalRequest]) -> list[LocalReply]:
        self.at_once += 1
        assert self.at_once == 1 and threading.current_thread() is not threading.main_thread()
        self.sizes.append(len(requests))
        made = [LocalReply(verdict("A", read_pair(r.messages)[0])) for r in requests]
        self.at_once -= 1
        return made


def test_waiting_requests_reach_a_local_model_as_batches() -> None:
    model = Batcher()
    pairs = [(f"q{i}", "x", "y") for i in range(80)]
    found = PairJudge(local_backend(model)).compare(pairs)
    assert [v.why for v in found] == [f"q{i}" for i in range(80)]  # nobody got another's reply
    assert sum(model.sizes) == 160 and max(model.sizes) <= BATCH and len(model.sizes) <= 20


def test_a_local_models_answers_stay_in_memory_unless_a_file_is_named(tmp_path: Path) -> None:
    count = 0

    def answer(messages: Any, parameters: Any) -> str:
        nonlocal count
        count += 1
        return verdict("A")

    backend = local_backend(FunctionModel(answer))
    for _ in range(2):
        PairJudge(backend).compare([PAIR])
    assert count == 2 and backend.transcript.path is None
    assert not list(tmp_path.rglob("*.jsonl"))
    for _ in range(2):
        named = local_backend(FunctionModel(answer), transcript=tmp_path / "t.jsonl")
        PairJudge(named).compare([PAIR])
    assert count == 4


# --- the specimen ---------------------------------------------------------------------------------


@pytest.mark.heavy
@pytest.mark.slow
def test_the_letter_judge_gives_the_models_own_log_probs(
    new_model: Callable[..., Any], tokenizer: Any
) -> None:
    """A batch of unlike lengths gives what each prompt gives alone, by a plain forward pass."""
    torch = pytest.importorskip("torch")
    from course_utils.judge.specimen import LetterJudge

    model = new_model()
    judge = LetterJudge(model, tokenizer, "toy", batch_size=3)
    texts = [
        ("Where?", "In the reeds.", "x"),
        ("Q", "a", "b"),
        ("When? " * 9, "At noon.", "Never."),
    ]
    requests = [
        LocalRequest(pair_messages(RUBRICS["general"], *three, True), 0.0, 9) for three in texts
    ]
    letters = [tokenizer(f"Better answer: {x}")["input_ids"][-1] for x in "AB"]
    for (question, a, b), reply in zip(texts, judge.replies(requests), strict=True):
        prompt = judge._prompt(pair_messages(RUBRICS["general"], question, a, b, True))
        assert all(text in prompt for text in (question, a, b))
        assert prompt.index(f"Answer A: {a}") < prompt.index(f"Answer B: {b}")
        with torch.no_grad():
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            expected = model(input_ids=ids).logits[0, -1].log_softmax(-1)[letters].tolist()
        assert reply.logprobs is not None
        assert list(reply.logprobs[1].top.values()) == pytest.approx(expected, abs=1e-4)
        winner = json.loads(reply.text)["winner"]
        assert winner == ("A" if expected[0] >= expected[1] else "B")
        assert "".join(part.token for part in reply.logprobs) == reply.text


@pytest.mark.heavy
def test_the_specimen_judges_through_the_client(
    new_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from course_utils import smollm

    monkeypatch.setattr(smollm, "load_smollm", lambda course: (new_model(), tokenizer))
    backend = make_backend("specimen", quiet=True)
    assert backend.title == "judge: SmolLM2-135M-Instruct (specimen, a specimen of position bias)"
    found = PairJudge(backend, ties=False).compare([PAIR, ("Where?", "In the reeds.", "At noon.")])
    assert not found.errors
    assert all(v.soft is not None and 0 < v.soft < 1 for v in found)


# --- models file and addresses --------------------------------------------------------------------


def test_the_models_file_is_whole() -> None:
    book = catalogue()
    assert date.fromisoformat(book.date) and book.default in book.models
    assert {"gpt-3.5-turbo", "gpt-4"} <= set(book.replaced)
    for present, _ in book.replaced.values():
        assert present in book.models
    for card in book.models.values():
        assert (card.input is None) == (card.output is None)
        assert card.shutdown is None or card.shutdown > book.date
    assert book.models[book.default].usd(1_000_000, 2_000_000) == pytest.approx(0.75 + 2 * 4.5)
    assert book.card("my-own").priced is False and book.card("my-own").usd(1, 1) is None


@pytest.mark.parametrize("content", [None, "{", "[]", '{"date": "2026-11-23", "models": {}}'])
def test_a_broken_models_file_is_said(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "judge_models.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CourseError, match=r"judge_models\.json cannot be read .*: restore it"):
        read_catalogue(path)


def test_the_models_file_holds_the_installed_clients_shutdown_dates() -> None:
    """The dates the file repeats stand in the client's own source."""
    names = pytest.importorskip("openai.types.shared.chat_model")
    text = " ".join(Path(names.__file__).read_text().split())
    raw = json.loads((data_dir() / "judge_models.json").read_text())
    dates = {name: entry["shutdown"] for name, entry in raw["models"].items() if entry["shutdown"]}
    dates |= {name: entry["shutdown"] for name, entry in raw["replaced"].items()}
    if "Announced shutdown date" not in text:
        pytest.skip("this openai does not list shutdown dates")
    lists = text.split("Deprecated values:")[1].split('- "')
    for name, day in dates.items():
        (entry,) = [part for part in lists if f'"{name}"' in f'"{part}']
        assert day in entry


def test_addresses() -> None:
    assert bare_url("https://me:pw@host:8/v1/?key=x#y") == "https://host:8/v1"
    loopback = ("http://localhost:1/v1", "http://127.3.2.1", "http://[::1]:8/v1")
    assert all(is_loopback(url) for url in loopback)
    foreign = ("https://api.openai.com/v1", "http://localhost.evil.com", "http://10.0.0.1", "x")
    assert not any(is_loopback(url) for url in foreign)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
