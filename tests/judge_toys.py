"""A real OpenAI-like server on loopback for the judge's tests (see judge_fixtures)."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from pytest_httpserver import HTTPServer
from pytest_httpserver.httpserver import Request as HttpRequest
from pytest_httpserver.httpserver import Response as HttpResponse

from course_utils.judge.backend import Backend, Manners
from course_utils.judge.catalogue import ModelCard
from course_utils.judge.transcript import Transcript

KEY = "sk-test-0123456789-secret"
MODEL = "toy-judge"
PATH = "/v1/chat/completions"
PAIR = ("What is the capital of France?", "Paris.", "It is Lyon, I think.")

Body = dict[str, Any]
Handler = Callable[[Body], HttpResponse | Body]


def completion(text: Any = None, **changes: Any) -> Body:
    """A chat completion as OpenAI sends it; `changes` replace parts of the first choice."""
    message = {"role": "assistant", "content": text, "refusal": changes.pop("refusal", None)}
    usage = changes.pop("usage", {"prompt_tokens": 100, "completion_tokens": 20})
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None, **changes}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": f"{MODEL}-2026",
        "choices": [choice],
        "usage": usage,
    }


def verdict(winner: str, why: str = "because") -> str:
    return json.dumps({"why": why, "winner": winner})


def slots(body: Body) -> tuple[str, str]:
    """The two answers of a pairwise request as they were shown, still escaped."""
    user = body["messages"][-1]["content"]
    return tuple(  # type: ignore[return-value]
        re.findall(rf"<answer_{side}>\n(.*?)\n</answer_{side}>", user, re.DOTALL)[0]
        for side in "ab"
    )


def prefers(good: str) -> Handler:
    """A judge without bias: the answer that contains `good` wins."""

    def handler(body: Body) -> Body:
        return completion(verdict("A" if good in slots(body)[0] else "B"))

    return handler


def error(status: int, message: str = "no", **headers: str) -> Handler:
    """An OpenAI error page; ``code`` and ``param`` go into the body, the rest into the header."""
    fields = {"code": headers.pop("code", None), "param": headers.pop("param", None)}
    text = json.dumps({"error": {"message": message, "type": "x", **fields}})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda body: HttpResponse(text, status, named, content_type="application/json")


class JudgeServer:
    """Counts what it is asked and answers by `handler`, or by `script` first, one entry a call."""

    def __init__(self, httpserver: HTTPServer) -> None:
        self.url = httpserver.url_for("/v1")
        self.handler: Handler = prefers("Paris")
        self.script: list[Handler] = []
        self.delay = 0.0
        self.bodies: list[Body] = []
        self.keys: list[str | None] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        httpserver.expect_request(PATH, method="POST").respond_with_handler(self._respond)

    @property
    def calls(self) -> int:
        return len(self.bodies)

    def _respond(self, request: HttpRequest) -> HttpResponse:
        body = json.loads(request.get_data())
        with self.lock:
            self.bodies.append(body)
            self.keys.append(request.headers.get("Authorization"))
            handler = self.script.pop(0) if self.script else self.handler
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(self.delay)
            answer = handler(body)
        finally:
            with self.lock:
                self.now -= 1
        if isinstance(answer, HttpResponse):
            return answer
        return HttpResponse(json.dumps(answer), content_type="application/json")

    def backend(self, **changes: Any) -> Backend:
        """A live backend over this server, with short limits."""
        card = changes.pop("card", ModelCard(MODEL, 1.0, 10.0))
        settings: dict[str, Any] = {
            "kind": "live",
            "model": MODEL,
            "base_url": self.url,
            "api_key": KEY,
            "card": card,
            "manners": Manners.of(card),
            "transcript": Transcript(),
            "timeout": 2.0,
            "deadline": 10.0,
            "quiet": True,
        }
        return Backend(**{**settings, **changes})
