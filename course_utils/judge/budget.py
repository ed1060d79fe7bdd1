"""What a run may cost: an estimate before it, and a cap that holds during it.

Before a call its largest possible cost is reserved; afterwards the server's own `usage` takes the
place of the reservation. So the cap holds with many calls under way, as far as the server counts
honestly. The client repeats a request after a timeout, and a server may charge the broken attempt
too: nobody here can see that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from course_utils.errors import CourseError

from .catalogue import FILE, ModelCard

CHARACTERS_PER_TOKEN = 4  # of English text, for the estimate
TOKENS_PER_MESSAGE = 8  # roles and separators, rounded up


def likely_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """About how many tokens a request holds: English has four characters to a token."""
    characters = sum(len(m["content"]) for m in messages)
    return characters // CHARACTERS_PER_TOKEN + TOKENS_PER_MESSAGE * len(messages)


def most_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """As many tokens as a request can hold: a byte-level tokenizer has at most one per byte."""
    size = sum(len(m["content"].encode("utf-8", "replace")) for m in messages)
    return size + TOKENS_PER_MESSAGE * len(messages)


@dataclass(frozen=True)
class Estimate:
    """What a run will ask for, reckoned before it.

    Attributes:
        calls: requests that will be sent.
        cached: requests that the transcript answers for nothing.
        prompt_tokens: about four characters to a token.
        completion_tokens: at most, with every reply as long as it may be.
        usd: about what it costs at most; None without a price, 0.0 for a local model.
    """

    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None

    def __str__(self) -> str:
        cost = "cost unknown (no price)" if self.usd is None else f"at most about ${self.usd:.4f}"
        return (
            f"{self.calls} calls to make, {self.cached} in the transcript; about "
            f"{self.prompt_tokens:,} tokens in, at most {self.completion_tokens:,} out; {cost}"
        )


@dataclass
class Budget:
    """Caps on what a session spends; None means no cap.

    Attributes:
        max_usd: dollars; needs a model with a price in data/judge_models.json.
        max_calls: calls that were or may have been charged (the client's own retries of one
            call count once, an error page of the server not at all).
        max_tokens: tokens in and out together.
        calls, tokens, usd: spent so far.
    """

    max_usd: float | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    _reserved: dict[int, tuple[int, float]] = field(default_factory=dict, repr=False)
    _next: int = 0

    def __post_init__(self) -> None:
        for name in ("max_usd", "max_calls", "max_tokens"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise CourseError(f"{name} is {value!r}: give a number from 0 up, or None.")

    def require_price(self, card: ModelCard) -> None:
        """Refuse a cap in money for a model without a price.

        Raises:
            CourseError: no price is known.
        """
        if self.max_usd is not None and not card.priced:
            raise CourseError(
                f"No price is known for {card.name!r}, so a cap in money cannot be kept: enter "
                f"its price in data/{FILE}, or give max_tokens or max_calls instead of max_usd."
            )

    def reserve(self, tokens: int, usd: float) -> int | None:
        """Set aside what one call may cost at most; None when it does not fit."""
        waiting_tokens = sum(t for t, _ in self._reserved.values())
        waiting_usd = sum(u for _, u in self._reserved.values())
        if (
            _over(self.calls + len(self._reserved) + 1, self.max_calls)
            or _over(self.tokens + waiting_tokens + tokens, self.max_tokens)
            or _over(self.usd + waiting_usd + usd, self.max_usd)
        ):
            return None
        self._next += 1
        self._reserved[self._next] = (tokens, usd)
        return self._next

    def settle(self, ticket: int, tokens: int | None = None, usd: float | None = None) -> None:
        """Replace a reservation by what was used; None: as much as was reserved."""
        reserved_tokens, reserved_usd = self._reserved.pop(ticket)
        self.calls += 1
        self.tokens += reserved_tokens if tokens is None else tokens
        self.usd += reserved_usd if usd is None else usd

    def release(self, ticket: int) -> None:
        """Give a reservation back: the call cost nothing."""
        del self._reserved[ticket]

    @property
    def under_way(self) -> int:
        """Calls whose cost is reserved and not yet known."""
        return len(self._reserved)


def _over(value: float, cap: float | None) -> bool:
    return cap is not None and value > cap


async def reserve_or_wait(
    budget: Budget, tokens: int, usd: float, settled: asyncio.Event
) -> int | None:
    """A reservation, waiting for calls under way to settle for less; None when it never fits."""
    while True:
        ticket = budget.reserve(tokens, usd)
        if ticket is not None or budget.under_way == 0:
            return ticket
        settled.clear()
        await settled.wait()
