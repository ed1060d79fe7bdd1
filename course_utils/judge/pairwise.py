"""Which of two answers is better: both orders asked, errors apart from ties, flips counted.

A judge that favours a slot is found out by asking twice with the answers exchanged, as MT-bench
does (Zheng et al. 2023, arXiv 2306.05685). Soft labels are the mean over both orders of the
probability that the verdict's token has (Lee et al. 2023, arXiv 2309.00267, section 3.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from course_utils.errors import CourseError

from .backend import Backend
from .budget import Estimate
from .calls import Asked, Failure, Reply, Request, ask_all, estimate
from .parse import read_verdict, slot_probability
from .prompts import MAX_CHARS, Rubric, pair_messages, pair_schema, rubric_of, shorten
from .results import JudgeRun, announce, of_run
from .threads import run_sync

MAX_TOKENS = 300  # of a reply: two sentences and a letter
TOP_LOGPROBS = 5


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt. `key` groups pairs of one prompt; default: the prompt itself."""

    prompt: str
    a: str
    b: str
    key: str = ""

    @property
    def group(self) -> str:
        """What intervals resample by."""
        return self.key or self.prompt


PairLike = Pair | Mapping[str, Any] | tuple[str, str, str]


@dataclass(frozen=True)
class Round:
    """One order's verdict.

    Attributes:
        winner: ``"A"``, ``"B"`` (the answers, not the slots) or ``"tie"``.
        first_slot: the winner stood in the first slot; None for a tie.
        why: the judge's reason, in its own words; it calls the answers by their slots.
        p_a: probability that A is better, from log-probs, or None.
    """

    winner: str
    first_slot: bool | None
    why: str
    p_a: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A pair judged in both orders.

    Attributes:
        pair: what was judged.
        rounds: the verdict with A shown first, then with B shown first; None where it failed.
        error: what went wrong, ``"kind: message"``, or an empty string.
        rule: decided without a call: ``"empty"`` (an answer without text loses) or ``"same"``
            (both answers are the same text: a tie); else an empty string.
        ruled: the winner by that rule.
    """

    pair: Pair
    rounds: tuple[Round | None, Round | None] = (None, None)
    error: str = ""
    rule: str = ""
    ruled: str = ""

    @property
    def score(self) -> float | None:
        """How much of the win A gets: 1, 0.5 for a tie, 0; the mean over both orders."""
        if self.rule:
            return {"A": 1.0, "tie": 0.5, "B": 0.0}[self.ruled]
        first, second = self.rounds
        if self.error or first is None or second is None:
            return None
        values = {"A": 1.0, "tie": 0.5, "B": 0.0}
        return (values[first.winner] + values[second.winner]) / 2

    @property
    def winner(self) -> str | None:
        """``"A"``, ``"B"`` or ``"tie"``; None for an error.

        One order's verdict beside the other's tie wins; two opposite verdicts are a tie, and the
        pair counts as flipped.
        """
        if self.score is None:
            return None
        return "A" if self.score > 0.5 else "B" if self.score < 0.5 else "tie"

    @property
    def flipped(self) -> bool | None:
        """The two orders named opposite winners; None where they were not both asked."""
        first, second = self.rounds
        if first is None or second is None:
            return None
        return {first.winner, second.winner} == {"A", "B"}

    @property
    def soft(self) -> float | None:
        """Probability that A is better, mean of both orders; None without log-probs."""
        values = [r.p_a for r in self.rounds if r is not None and r.p_a is not None]
        return sum(values) / 2 if len(values) == 2 else None

    @property
    def confidence(self) -> float | None:
        """From 0.5 to 1, for the winner: from the soft label if there is one, else the score."""
        p = self.score if self.soft is None else self.soft
        return None if p is None or self.error else max(p, 1 - p)

    @property
    def why(self) -> str:
        """The reason given with A shown first (there the slots have the answers' names)."""
        if self.rule:
            return {"empty": "An answer without text loses.", "same": "Both are the same text."}[
                self.rule
            ]
        return self.rounds[0].why if self.rounds[0] else ""

    def __str__(self) -> str:
        if self.error:
            return f"error: {self.error}"
        flip = " (flipped with the order)" if self.flipped else ""
        return f"{self.winner}{flip}: {self.why}"


@dataclass(frozen=True)
class Verdicts(JudgeRun[Verdict]):
    """What `PairJudge.compare` gives: a sequence of verdicts, and how the run went.

    Attributes:
        changes: parameters the server made us drop or rename -> in how many calls.
    """

    changes: Mapping[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """One line on how the run went."""
        parts = [f"{len(self.items)} pairs judged", f"{self.calls} calls, {self.cached} cached"]
        ruled = sum(bool(v.rule) for v in self.items)
        if ruled:
            parts.append(f"{ruled} decided without a call (empty or equal answers)")
        if self.usd is None or self.usd:
            parts.append("cost unknown" if self.usd is None else f"${self.usd:.4f}")
        if self.cut:
            parts.append(f"{self.cut} long texts cut")
        if self.unused:
            parts.append(f"{self.unused} records of the transcript not used")
        parts += [f"{change} in {count} calls" for change, count in self.changes.items()]
        parts += self._troubles("pairs")
        return "; ".join(parts)


@dataclass(frozen=True)
class PairJudge:
    """Compares answers through a backend.

    Attributes:
        backend: see `make_backend`.
        rubric: a `Rubric`, or the name of a shipped one.
        ties: whether the judge may say that neither is better.
        soft: ask for log-probs; where the backend has none, verdicts have no soft label.
        temperature: 0 asks for the likeliest verdict.
        max_tokens: of one reply.
        max_chars: of one judged text; longer ones lose their middle.
        salt: another salt asks anew instead of reading the transcript.
    """

    backend: Backend
    rubric: Rubric | str = "general"
    ties: bool = True
    soft: bool = True
    temperature: float = 0.0
    max_tokens: int = MAX_TOKENS
    max_chars: int = MAX_CHARS
    salt: str = ""

    def __post_init__(self) -> None:
        rubric_of(self.rubric)

    def compare(
        self, pairs: Iterable[PairLike], on_step: Callable[[int, int], None] | None = None
    ) -> Verdicts:
        """Judge pairs, each in both orders. Works in a notebook and in a script.

        Args:
            pairs: `Pair`s, (prompt, a, b), or mappings with these names.
            on_step: called with (questions answered, questions in all).

        Raises:
            CourseError: a fault that all calls would meet. Ctrl-C is passed on. In both cases the
                answers so far are in the transcript: running the same again asks only for the rest.
        """
        return run_sync(lambda: self.acompare(pairs, on_step))

    async def acompare(
        self, pairs: Iterable[PairLike], on_step: Callable[[int, int], None] | None = None
    ) -> Verdicts:
        """`compare` to be awaited."""
        given = [as_pair(number, pair) for number, pair in enumerate(pairs)]
        requests, cut = self._requests(given)
        announce(self.backend, requests)
        asked = await ask_all(self.backend, requests, self._read, on_step)
        verdicts = self._verdicts(given, asked, cut)
        self._report(verdicts)
        return verdicts

    def estimate(self, pairs: Iterable[PairLike]) -> Estimate:
        """What judging these pairs would take; nothing is sent."""
        given = [as_pair(number, pair) for number, pair in enumerate(pairs)]
        return estimate(self.backend, self._requests(given)[0])

    def _requests(self, pairs: Sequence[Pair]) -> tuple[list[Request], int]:
        """(two requests for every pair that needs a judge, number of texts that were cut)."""
        requests, cut = [], 0
        for pair in pairs:
            if _by_rule(pair):
                continue
            texts = [shorten(t, self.max_chars) for t in (pair.prompt, pair.a, pair.b)]
            cut += sum(was_cut for _, was_cut in texts)
            prompt, a, b = (text for text, _ in texts)
            requests += [self._request(prompt, a, b), self._request(prompt, b, a)]
        return requests, cut

    def _request(self, prompt: str, first: str, second: str) -> Request:
        parameters: dict[str, Any] = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "response_format": pair_schema(self.ties),
        }
        if self.soft:
            parameters |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        messages = pair_messages(rubric_of(self.rubric), prompt, first, second, self.ties)
        return Request(messages, parameters, self.salt)

    def _read(self, reply: Reply) -> tuple[str, str, float | None]:
        """(winning slot, reason, probability of the first slot)."""
        slot, why = read_verdict(reply, self.ties)
        return slot, why, slot_probability(reply)

    def _verdicts(self, pairs: Sequence[Pair], asked: Asked[Any], cut: int) -> Verdicts:
        outcomes = iter(asked.outcomes)
        items: list[Verdict] = []
        left: list[Pair] = []
        for pair in pairs:
            rule = _by_rule(pair)
            if rule:
                items.append(Verdict(pair, rule=rule[0], ruled=rule[1]))
                continue
            both: tuple[Any, Any] = next(outcomes), next(outcomes)
            failed = next((o for o in both if isinstance(o, Failure)), None)
            if failed is not None:
                items.append(Verdict(pair, error=f"{failed.kind}: {failed.message}"))
            elif None in both:
                left.append(pair)
            else:
                items.append(Verdict(pair, (_round(both[0], False), _round(both[1], True))))
        how = of_run(self.backend, asked, cut)
        return Verdicts(tuple(items), tuple(left), **how, changes=dict(asked.changes))

    def _report(self, verdicts: Verdicts) -> None:
        if verdicts.errors or verdicts.stopped:
            warnings.warn(verdicts.summary(), stacklevel=2)
        elif self.backend.kind == "live" and not self.backend.quiet:
            print(verdicts.summary())


def _round(outcome: tuple[str, str, float | None], swapped: bool) -> Round:
    """A slot's verdict as a verdict on the answers; `swapped` when B was shown first."""
    slot, why, p_first = outcome
    if slot == "tie":
        winner, first_slot = "tie", None
    else:
        winner, first_slot = ("A" if (slot == "A") != swapped else "B"), slot == "A"
    p_a = p_first if p_first is None or not swapped else 1 - p_first
    return Round(winner, first_slot, why, p_a)


def _by_rule(pair: Pair) -> tuple[str, str] | None:
    """(rule, winner) for a pair that needs no judge.

    An answer without text loses against one with text; two equal texts are a tie.
    """
    a, b = pair.a.strip(), pair.b.strip()
    if a == b:
        return "same", "tie"
    if not a:
        return "empty", "B"
    return ("empty", "A") if not b else None


def as_pair(number: int, given: PairLike) -> Pair:
    try:
        if isinstance(given, Mapping):
            given = Pair(given["prompt"], given["a"], given["b"], str(given.get("key", "")))
        if isinstance(given, tuple | list):
            given = Pair(*given)
        pair: Any = given
        if isinstance(pair, Pair) and all(
            isinstance(t, str) for t in (pair.prompt, pair.a, pair.b)
        ):
            return pair
    except (KeyError, TypeError):
        pass
    raise CourseError(
        f"pairs[{number}] is no pair: give Pair(prompt, a, b), a tuple of these three texts, or a "
        "mapping with the keys prompt, a and b."
    )


def get_ai_preference(
    prompt: str,
    response_a: str,
    response_b: str,
    backend: Backend | None = None,
    rubric: Rubric | str = "general",
    ties: bool = True,
) -> Verdict:
    """The source document's one call (section 8): which response is better, and why.

    Unlike the source's, it asks in both orders and returns a checked `Verdict`; ``str()`` of it is
    the letter and the reason. Without `backend`, the automatic one is made once and kept.

    Raises:
        CourseError: as `PairJudge.compare`, and when the run was stopped before an answer came.
    """
    judge = PairJudge(backend or _automatic(), rubric, ties)
    verdicts = judge.compare([Pair(prompt, response_a, response_b)])
    if not verdicts.items:
        raise CourseError(f"The pair was not judged: {verdicts.stopped}.")
    return verdicts.items[0]


@lru_cache(maxsize=1)
def _automatic() -> Backend:
    from .backends import make_backend

    return make_backend("auto")
