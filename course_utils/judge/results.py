"""What a run of a judge gives: a sequence of results, and how the run went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .backend import Backend
from .calls import Asked, Request, estimate


class Result(Protocol):
    """One verdict or score; `error` is ``"kind: message"``, or an empty string."""

    @property
    def error(self) -> str: ...


T = TypeVar("T", bound=Result)


@dataclass(frozen=True)
class JudgeRun(Sequence[T]):
    """Results in the order given, and how the run went.

    Attributes:
        items: the results, errors included.
        left: what was not judged because the run stopped.
        stopped: why it stopped early, or an empty string.
        title: the backend's, for figures.
        calls, cached, usd: of this run (usd None without a price).
        cut: judged texts that were too long and lost their middle.
        unused: records in the transcript that nothing asked for, such as another rubric's.
    """

    items: tuple[T, ...]
    left: tuple[Any, ...] = ()
    stopped: str = ""
    title: str = ""
    calls: int = 0
    cached: int = 0
    usd: float | None = 0.0
    cut: int = 0
    unused: int = 0

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @property
    def errors(self) -> Counter[str]:
        """How many results are errors, by kind."""
        return Counter(item.error.partition(":")[0] for item in self.items if item.error)

    def _troubles(self, things: str) -> list[str]:
        """What the summary says of errors and of `things` that were left."""
        parts = []
        if self.errors:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.errors.most_common())
            parts.append(f"errors: {kinds}")
        if self.stopped:
            parts.append(f"STOPPED, {len(self.left)} {things} left: {self.stopped}")
        return parts


def of_run(backend: Backend, asked: Asked[Any], cut: int) -> dict[str, Any]:
    """The fields of a `JudgeRun` that say how the run went."""
    return {
        "stopped": asked.stopped,
        "title": backend.title,
        "calls": asked.calls,
        "cached": asked.cached,
        "usd": asked.usd,
        "cut": cut,
        "unused": backend.transcript.unused,
    }


def announce(backend: Backend, requests: Sequence[Request]) -> None:
    """Say what a live run will take, before it does."""
    if backend.kind == "live" and not backend.quiet:
        print(f"{backend.title}: {estimate(backend, requests)}")
