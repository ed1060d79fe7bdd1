"""Whom a judge asks, with which limits, and what of a request that one does not accept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from course_utils.errors import CourseError

from .budget import Budget
from .catalogue import ModelCard
from .transcript import Transcript

# Either may be the one a server knows; the other is tried when the first is refused.
_TWINS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


@dataclass
class Manners:
    """Which parameters a server takes: known beforehand, and learnt from its refusals.

    Attributes:
        refused: parameters that are left out.
        renames: parameters that are sent under another name.
        adds: parameters that are added to every request.
    """

    refused: set[str] = field(default_factory=set)
    renames: dict[str, str] = field(default_factory=dict)
    adds: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, card: ModelCard) -> Manners:
        """What the models file says."""
        return cls(set(card.refuses), dict(card.renames), dict(card.adds))

    def fit(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """(parameters to send, what was changed), for example ``("temperature dropped",)``."""
        sent: dict[str, Any] = {}
        changes = []
        for name, value in {**parameters, **self.adds}.items():
            new = self.renames.get(name, name)
            if name in self.refused or new in self.refused:
                changes.append(f"{name} dropped")
                continue
            sent[new] = value
            if new != name:
                changes.append(f"{name} sent as {new}")
        if "logprobs" not in sent and sent.pop("top_logprobs", None) is not None:
            changes.append("top_logprobs dropped")
        return sent, tuple(changes)

    def learn(self, refused: str, sent: Mapping[str, Any]) -> bool:
        """Note that a server refused a parameter; False when nothing can be done about it.

        The limit on a reply's length goes by its other name, and is never dropped: it bounds the
        cost.
        """
        if refused not in sent:
            return False
        if refused not in _TWINS:
            self.refused.add(refused)
            return True
        if refused in self.renames.values():  # both names were refused
            return False
        self.renames[refused] = _TWINS[refused]
        return True


@dataclass
class Backend:
    """A named answerer of judge's questions. Made by `make_backend`.

    Attributes:
        kind: ``"live"``, ``"world"``, ``"replay"``, ``"specimen"`` or ``"local"``.
        model: as the server calls it.
        base_url: of the API; `local.LOCAL_URL` for a model in this process.
        note: what a reader must know about this backend, for the title.
        local: the in-process model, or None where a server is asked.
        transcript: record and cache of the calls.
        budget: caps; shared by all who use this backend.
        card: price and peculiarities.
        manners: what of a request is sent.
        concurrency: calls under way at once.
        timeout: seconds a server may stay silent, per read.
        deadline: seconds one call may take in all, retries and waits included; None for no limit.
        max_retries: of the client, for one call.
        quiet: print nothing about runs.
    """

    kind: str
    model: str
    base_url: str
    note: str = ""
    api_key: str = field(default="not-needed", repr=False)
    local: Any = None
    transcript: Transcript = field(default_factory=Transcript)
    budget: Budget = field(default_factory=Budget)
    card: ModelCard = field(default_factory=lambda: ModelCard("unknown"))
    manners: Manners = field(default_factory=Manners)
    concurrency: int = 32
    timeout: float = 60.0
    deadline: float | None = 180.0
    max_retries: int = 5
    quiet: bool = False

    def __post_init__(self) -> None:
        at_least = {"concurrency": 1, "timeout": 0.001, "deadline": 0.001, "max_retries": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise CourseError(f"{name} is {value!r}: give a number from {least} up.")

    @property
    def title(self) -> str:
        """For figure titles: which backend judged."""
        return f"judge: {self.model} ({self.kind}{', ' + self.note if self.note else ''})"

    @property
    def leaves_machine(self) -> bool:
        """Whether what is judged is sent to another machine."""
        from .wire import is_loopback

        return self.kind == "live" and not is_loopback(self.base_url)

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """The price of so many tokens; a local model or a replay costs nothing."""
        if self.kind != "live":
            return 0.0
        return self.card.usd(prompt_tokens, completion_tokens)
