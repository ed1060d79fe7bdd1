"""A local model behind the real `openai` client, in this process and without a port.

The client builds the same HTTP request as for a server; `transport` hands it to a Python object
instead of a socket and answers as a server would: a completion, or 400 for a parameter that the
model does not know. So a chapter's calls are the same lines whether a server or a small model of
the course answers.

Requests that wait at the same time reach a model with `replies` as one batch.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

LOCAL_URL = "http://in-process.invalid/v1"  # .invalid never resolves: it cannot leave the machine
SUPPORTED = frozenset(
    {
        "model",
        "messages",
        "temperature",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "logprobs",
        "top_logprobs",
    }
)
BATCH = 64
GATHER_SECONDS = 0.005  # how long the first request of a batch waits for others
DEFAULT_MAX_TOKENS = 256

Message = dict[str, str]


@dataclass(frozen=True)
class TokenLogprob:
    """One token of a reply, its log-probability, and the likeliest tokens in its place."""

    token: str
    logprob: float
    top: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalReply:
    """What a local model answers.

    Attributes:
        text: the reply.
        logprobs: per token, when they were asked for and the model has them, else None. The tokens
            joined must give `text`.
        prompt_tokens, completion_tokens: for `usage`; 0 when the model does not count.
        finish_reason: ``"stop"``, or ``"length"`` when `max_tokens` cut the reply.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"


@dataclass(frozen=True)
class LocalRequest:
    """One call as the model sees it; the fields are `LocalModel.reply`'s arguments."""

    messages: tuple[Message, ...]
    temperature: float = 1.0
    max_tokens: int = DEFAULT_MAX_TOKENS
    seed: int | None = None
    logprobs: bool = False


class LocalModel(Protocol):
    """A model that can answer chat messages; `course_utils.judge.world_model.load` returns one.

    It may also have `note`, a few words for the backend's title, and `replies` (see `BatchModel`).

    A judge's request holds the question and the answers as marked, escaped texts;
    `prompts.read_pair(messages)` and `prompts.read_single(messages)` give them back, for a model
    that has its own short template. The reply is the JSON that `prompts` asks for.
    """

    @property
    def name(self) -> str:
        """Identifies the weights too, for example ``"world-judge-3fa9c1"``.

        Replies are cached under it, so a model trained anew must have a new name.
        """
        ...

    def reply(
        self,
        messages: Sequence[Message],
        *,
        temperature: float,
        max_tokens: int,
        seed: int | None,
        logprobs: bool,
    ) -> LocalReply:
        """The answer to one conversation. Called outside the event loop, one call at a time."""
        ...


@runtime_checkable
class BatchModel(Protocol):
    """A local model that answers several requests at once, which is many times faster."""

    @property
    def name(self) -> str:
        """As in `LocalModel`."""
        ...

    def replies(self, requests: Sequence[LocalRequest]) -> Sequence[LocalReply]:
        """One reply per request, in order; at most `BATCH` requests at a time."""
        ...


Answer = Callable[[list[Message], dict[str, Any]], "LocalReply | str"]


@dataclass(frozen=True)
class FunctionModel:
    """Any Python function `answer(messages, parameters)` as a `LocalModel`.

    It may return plain text instead of a `LocalReply`.
    """

    answer: Answer
    name: str = "function"

    def reply(
        self,
        messages: Sequence[Message],
        *,
        temperature: float,
        max_tokens: int,
        seed: int | None,
        logprobs: bool,
    ) -> LocalReply:
        parameters = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
            "logprobs": logprobs,
        }
        given = self.answer(list(messages), parameters)
        return LocalReply(given) if isinstance(given, str) else given


def answer_all(model: Any, requests: Sequence[LocalRequest]) -> list[LocalReply]:
    """The replies of `model`, in one batch where it can."""
    if isinstance(model, BatchModel):
        return list(model.replies(requests))
    return [
        model.reply(
            r.messages,
            temperature=r.temperature,
            max_tokens=r.max_tokens,
            seed=r.seed,
            logprobs=r.logprobs,
        )
        for r in requests
    ]


class _Gatherer:
    """Collects requests for a moment and answers them together in another thread."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.waiting: list[tuple[LocalRequest, asyncio.Future[LocalReply]]] = []
        self.worker: asyncio.Task[None] | None = None

    async def ask(self, request: LocalRequest) -> LocalReply:
        future: asyncio.Future[LocalReply] = asyncio.get_running_loop().create_future()
        self.waiting.append((request, future))
        # A task of its own: one caller that gives up must not take its batch with it.
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        while self.waiting:
            batch, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
            wanted = [(request, future) for request, future in batch if not future.done()]
            try:
                replies = await asyncio.to_thread(answer_all, self.model, [r for r, _ in wanted])
                for (_, future), reply in zip(wanted, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)
            except Exception as error:
                for _, future in wanted:
                    if not future.done():
                        future.set_exception(error)


def transport(model: Any) -> Any:
    """An asynchronous HTTP transport for the installed `openai` that asks `model`.

    Make it inside the event loop that uses it.
    """
    from .wire import http_library

    http = http_library()
    gatherer = _Gatherer(model)

    class InProcess(http.AsyncBaseTransport):  # type: ignore[name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            status, body = await respond(gatherer.ask, request.url.path, await request.aread())
            return http.Response(status, json=body, request=request)

    return InProcess()


async def respond(ask: Any, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body) for a request, as an OpenAI-compatible server would answer it."""
    if not path.endswith("/chat/completions"):
        return 404, _error(f"There is no {path} here, only chat completions.")
    asked = json.loads(content)
    for name in asked:
        if name not in SUPPORTED:
            return 400, _error(f"Unsupported parameter: {name!r}.", name, "unsupported_parameter")
    reply = await ask(_read(asked))
    return 200, _completion(asked, reply)


def _read(asked: dict[str, Any]) -> LocalRequest:
    budget = asked.get("max_completion_tokens") or asked.get("max_tokens") or DEFAULT_MAX_TOKENS
    temperature = asked.get("temperature")
    return LocalRequest(
        messages=tuple(asked["messages"]),
        temperature=1.0 if temperature is None else float(temperature),
        max_tokens=int(budget),
        seed=asked.get("seed"),
        logprobs=bool(asked.get("logprobs")),
    )


def _error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }


def _completion(asked: dict[str, Any], reply: LocalReply) -> dict[str, Any]:
    content = None
    if asked.get("logprobs") and reply.logprobs is not None:
        content = {"content": [_token(part) for part in reply.logprobs]}
    return {
        "id": "in-process",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text},
                "finish_reason": reply.finish_reason,
                "logprobs": content,
            }
        ],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


def _token(part: TokenLogprob) -> dict[str, Any]:
    alternatives = part.top or {part.token: part.logprob}
    return {
        "token": part.token,
        "logprob": _finite(part.logprob),
        "bytes": None,
        "top_logprobs": [
            {"token": token, "logprob": _finite(value), "bytes": None}
            for token, value in alternatives.items()
        ],
    }


def _finite(logprob: float) -> float:
    """JSON has no -inf; OpenAI writes -9999 for a token that is as good as impossible."""
    return logprob if math.isfinite(logprob) else -9999.0
