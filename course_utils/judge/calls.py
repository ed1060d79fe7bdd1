"""Many questions to one backend: from the transcript where possible, the rest concurrently.

A fixed number of workers takes questions from a queue. Retries are the client's own (`max_retries`,
exponential waits, retry-after); around them stands one deadline per call, because the client's
timeout counts anew with every byte that arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from course_utils.errors import CourseError

from .backend import Backend
from .budget import Estimate, likely_tokens, most_tokens, reserve_or_wait
from .faults import Answer, Pause, SoftFault, longest_wait, refused_parameter, sort_out
from .local import TokenLogprob
from .threads import run_sync
from .transcript import request_key
from .wire import bare_url, http_library, is_loopback, no_vain_retries

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
Message = dict[str, str]


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        messages: role and content of each.
        parameters: as OpenAI calls them, ``max_tokens`` among them.
        salt: tells repetitions of one question apart.
    """

    messages: tuple[Message, ...]
    parameters: Mapping[str, Any]
    salt: str = ""


@dataclass(frozen=True)
class Reply:
    """A usable answer.

    Attributes:
        text: what the model wrote.
        model: what the server says answered.
        usage: (prompt tokens, completion tokens), or None where the server does not count.
        logprobs: per token of the text, or None.
        changes: what of the request was dropped or renamed.
        seconds: from the first attempt to the answer.
    """

    text: str
    model: str = ""
    usage: tuple[int, int] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    changes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A call that gave nothing usable: see `faults.SoftFault`."""

    kind: str
    message: str


@dataclass
class Asked(Generic[T]):
    """What became of a list of requests.

    Attributes:
        outcomes: one per request, in order: the value read, a `Failure`, or None when the run
            stopped before it was asked.
        calls: calls answered by the backend; cached: requests answered by the transcript.
        prompt_tokens, completion_tokens, usd: spent in this run (usd None without a price).
        changes: what servers made us drop or rename -> in how many calls.
        stopped: why the run ended early, or an empty string.
    """

    outcomes: list[T | Failure | None]
    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    changes: Counter[str] = field(default_factory=Counter)
    stopped: str = ""


def key_of(backend: Backend, request: Request) -> str:
    """The transcript's key of a request to this backend."""
    return request_key(
        backend.base_url, backend.model, request.messages, request.parameters, request.salt
    )


def estimate(backend: Backend, requests: Sequence[Request]) -> Estimate:
    """What asking these would take. Nothing is sent."""
    unique = {key_of(backend, r): r for r in requests}
    new = [r for key, r in unique.items() if key not in backend.transcript.records]
    tokens_in = sum(likely_tokens(r.messages) for r in new)
    tokens_out = sum(int(r.parameters.get("max_tokens", 0)) for r in new)
    return Estimate(
        len(new),
        len(requests) - len(new),
        tokens_in,
        tokens_out,
        backend.usd(tokens_in, tokens_out),
    )


async def ask_all(
    backend: Backend,
    requests: Sequence[Request],
    read: Callable[[Reply], T],
    on_step: Callable[[int, int], None] | None = None,
) -> Asked[T]:
    """Answer every request, from the transcript or by a call.

    Args:
        read: turns a reply into a value; raises `SoftFault` for one that cannot be used.
        on_step: called with (requests done, requests in all).

    Raises:
        CourseError: a fault that every further call would meet. Answers that came before it are
            in the transcript.
    """
    return await _Run(backend, requests, read, on_step).go()


def ask_texts(
    backend: Backend,
    conversations: Sequence[Sequence[Message]],
    *,
    temperature: float = 1.0,
    max_tokens: int = 300,
    seed: int | None = None,
    salt: str = "",
    on_step: Callable[[int, int], None] | None = None,
) -> Asked[str]:
    """The plain text of the reply to each conversation, for what is no judging. Synchronous.

    Raises:
        CourseError: as `ask_all`.
    """
    parameters: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    if seed is not None:
        parameters["seed"] = seed
    requests = [Request(tuple(c), parameters, salt) for c in conversations]
    return run_sync(lambda: ask_all(backend, requests, lambda reply: reply.text, on_step))


class _Run(Generic[T]):
    """The state of one `ask_all`."""

    def __init__(
        self,
        backend: Backend,
        requests: Sequence[Request],
        read: Callable[[Reply], T],
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        self.backend = backend
        self.read = read
        self.on_step = on_step
        self.keys = [key_of(backend, r) for r in requests]
        self.unique = dict(zip(self.keys, requests, strict=True))
        self.found: dict[str, T | Failure] = {}
        self.asked: Asked[T] = Asked([])
        self.settled = asyncio.Event()

    async def go(self) -> Asked[T]:
        queue = deque(key for key in self.unique if not self._from_transcript(key))
        self.asked.cached = sum(key in self.found for key in self.keys)
        self._step()
        if queue:
            if self.backend.kind == "replay":
                raise self._not_recorded(len(queue))
            self.backend.budget.require_price(self.backend.card)
            await self._ask(queue)
        self.asked.outcomes = [self.found.get(key) for key in self.keys]
        return self.asked

    def _step(self) -> None:
        if self.on_step is not None:
            self.on_step(sum(key in self.found for key in self.keys), len(self.keys))

    def _from_transcript(self, key: str) -> bool:
        record = self.backend.transcript.get(key)
        if record is None:
            return False
        try:
            self.found[key] = self.read(_from_record(record))
        except SoftFault:
            return False  # written by hand or by another version: ask again
        return True

    def _not_recorded(self, count: int) -> CourseError:
        return CourseError(
            f"{count} of {len(self.unique)} questions are not in the recorded transcript "
            f"{self.backend.transcript.path}: replay only what was recorded (same texts, rubric "
            "and settings), or choose another backend."
        )

    async def _ask(self, queue: deque[str]) -> None:
        count = min(self.backend.concurrency, len(queue))
        async with _client(self.backend) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(count):
                        group.create_task(self._work(client, queue))
            except BaseExceptionGroup as failed:
                raise self._first(failed) from failed

    def _first(self, failed: BaseExceptionGroup[BaseException]) -> BaseException:
        error = next((e for e in failed.exceptions if isinstance(e, CourseError)), None)
        if error is None:
            return failed.exceptions[0]
        kept = f" {self.asked.calls} answers of this run are kept: running it again asks the rest."
        return CourseError(f"{error}{kept if self.asked.calls else ''}")

    async def _work(self, client: AsyncOpenAI, queue: deque[str]) -> None:
        while queue and not self.asked.stopped:
            key = queue.popleft()
            request = self.unique[key]
            tokens = most_tokens(request.messages) + int(request.parameters.get("max_tokens", 0))
            ticket = await reserve_or_wait(
                self.backend.budget, tokens, self._most_usd(request), self.settled
            )
            if ticket is None:
                self.asked.stopped = self.asked.stopped or "the budget does not cover another call"
            elif self.asked.stopped:
                self._release(ticket)
            else:
                await self._one(client, key, ticket)
                self._step()

    def _most_usd(self, request: Request) -> float:
        out = int(request.parameters.get("max_tokens", 0))
        return self.backend.usd(most_tokens(request.messages), out) or 0.0

    async def _one(self, client: AsyncOpenAI, key: str, ticket: int) -> None:
        """Ask one question; its outcome goes to `found`, its cost to the budget."""
        request = self.unique[key]
        try:
            reply = await _call(client, self.backend, request)
            value = self._usable(reply)
        except SoftFault as fault:
            self.found[key] = Failure(fault.kind, str(fault))
            if fault.usage or fault.maybe_charged:
                self._settle(ticket, fault.usage)
            else:
                self._release(ticket)
        except Pause as pause:
            self._release(ticket)
            when = datetime.now() + timedelta(seconds=pause.seconds)
            self.asked.stopped = f"{pause}: run this again after {when:%H:%M:%S}"
        except asyncio.CancelledError:
            self._settle(ticket, None)  # it may have been charged
            raise
        except BaseException:
            self._release(ticket)
            raise
        else:
            self._settle(ticket, reply.usage)
            self.asked.calls += 1
            self.asked.changes.update(reply.changes)
            self.backend.transcript.add(_to_record(self.backend, key, request, reply))
            self.found[key] = value

    def _usable(self, reply: Reply) -> T:
        try:
            return self.read(reply)
        except SoftFault as fault:
            raise SoftFault(fault.kind, str(fault), usage=reply.usage, maybe_charged=True) from None

    def _settle(self, ticket: int, usage: tuple[int, int] | None) -> None:
        if usage is None:
            self.backend.budget.settle(ticket)
        else:
            usd = self.backend.usd(*usage)
            self.backend.budget.settle(ticket, sum(usage), usd or 0.0)
            self.asked.prompt_tokens += usage[0]
            self.asked.completion_tokens += usage[1]
            if usd is None or self.asked.usd is None:
                self.asked.usd = None
            else:
                self.asked.usd += usd
        self.settled.set()

    def _release(self, ticket: int) -> None:
        self.backend.budget.release(ticket)
        self.settled.set()


@contextlib.asynccontextmanager
async def _client(backend: Backend) -> Any:
    """A client for this run alone: one that outlives its event loop cannot be used again."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    http = http_library()
    options: dict[str, Any] = {
        "timeout": http.Timeout(backend.timeout, connect=min(5.0, backend.timeout)),
        "event_hooks": {"response": [no_vain_retries(longest_wait(backend))]},
        "follow_redirects": False,  # nothing is sent to a host that was not chosen
    }
    if is_loopback(backend.base_url) or backend.local is not None:
        options["trust_env"] = False  # no proxy stands between this machine and itself
    if backend.local is not None:
        from .local import transport

        options["transport"] = transport(backend.local)
    if not backend.base_url.startswith("https:"):
        options["verify"] = False  # there is no TLS, and reading the certificates takes a while
    client = AsyncOpenAI(
        api_key=backend.api_key,
        base_url=backend.base_url,
        max_retries=backend.max_retries,
        timeout=options["timeout"],
        http_client=DefaultAsyncHttpxClient(**options),
    )
    async with client:
        yield client


async def _call(client: AsyncOpenAI, backend: Backend, request: Request) -> Reply:
    """One checked answer.

    Raises:
        CourseError, Pause, SoftFault: see `faults`.
    """
    began = time.perf_counter()
    try:
        async with asyncio.timeout(backend.deadline):
            completion, changes = await _create(client, backend, request)
    except Exception as error:
        sorted_out = sort_out(error, backend)
        if sorted_out is error:
            raise
        raise sorted_out from error
    answer = Answer(completion, backend.base_url)
    seconds = round(time.perf_counter() - began, 3)
    return Reply(answer.text, answer.model, answer.usage, answer.logprobs, changes, seconds)


async def _create(
    client: AsyncOpenAI, backend: Backend, request: Request
) -> tuple[Any, tuple[str, ...]]:
    """The completion as it came, and what of the request was changed for it."""
    from openai import BadRequestError

    create: Any = client.chat.completions.create
    while True:  # ends: each round drops or renames a parameter, or raises
        sent, changes = backend.manners.fit(request.parameters)
        try:
            completion = await create(model=backend.model, messages=list(request.messages), **sent)
            return completion, changes
        except BadRequestError as error:
            refused = refused_parameter(error, sent)
            if refused is None or not _learn(backend, refused, sent):
                raise


def _learn(backend: Backend, refused: str, sent: Mapping[str, Any]) -> bool:
    """Note a refusal, unless a call beside this one has done so since this one was sent."""
    current, _ = backend.manners.fit(sent)
    if refused not in current:
        return True
    return backend.manners.learn(refused, sent)


def _to_record(backend: Backend, key: str, request: Request, reply: Reply) -> dict[str, Any]:
    logprobs = reply.logprobs
    return {
        "key": key,
        "base_url": bare_url(backend.base_url),
        "model": backend.model,
        "messages": list(request.messages),
        "parameters": dict(request.parameters),
        "salt": request.salt,
        "changes": list(reply.changes),
        "text": reply.text,
        "model_returned": reply.model,
        "usage": list(reply.usage) if reply.usage else None,
        "logprobs": [[p.token, p.logprob, p.top] for p in logprobs] if logprobs else None,
        "seconds": reply.seconds,
    }


def _from_record(record: Mapping[str, Any]) -> Reply:
    """The reply of a record; one that does not fit is a `SoftFault`."""
    try:
        logprobs = record.get("logprobs")
        usage = record.get("usage")
        return Reply(
            record["text"],
            record.get("model_returned") or "",
            (usage[0], usage[1]) if usage else None,
            tuple(TokenLogprob(t, p, top) for t, p, top in logprobs) if logprobs else None,
            tuple(record.get("changes") or ()),
            float(record.get("seconds") or 0.0),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SoftFault("bad_record", f"a record that cannot be read: {error}") from error
