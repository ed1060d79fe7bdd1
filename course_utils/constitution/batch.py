"""Many responses criticised and revised, round by round, through one judge backend.

A round asks for a critique of every response, then for a revision by that critique. What is
answered goes into the backend's transcript at once, so a run that stopped (budget, Ctrl-C, a server
that asks to wait) goes on where it was when the same is run again: nothing is asked twice.

A call that fails leaves its response where it is, with the error beside it. No error text, and no
sentence in which a model says that it cannot, is ever taken for a critique or a revision.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError
from course_utils.judge.calls import Asked, Failure, Reply, Request, ask_all, key_of
from course_utils.judge.faults import SoftFault
from course_utils.judge.prompts import shorten
from course_utils.judge.results import JudgeRun, announce
from course_utils.judge.threads import run_sync
from course_utils.judge.world_model import LOST, UNREADABLE
from course_utils.world_judge.prompts import critique_messages, revision_messages
from course_utils.world_judge.template import question_text

from .principles import Constitution, Given, as_constitution

if TYPE_CHECKING:
    from course_utils.judge import Backend

MAX_TOKENS = 400  # of a critique or a revision
NO_ANSWER = "no_answer: the policy gave no response, so there is nothing to criticise"
INTERRUPTED = "interrupted"
Progress = Callable[[int, int], None]
OnCall = Callable[[int], None]


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        principles: names of those that the critique was asked by.
        critique: the judge's.
        response: the revision, or the response before it where nothing was to be changed.
    """

    principles: tuple[str, ...]
    critique: str
    response: str


@dataclass(frozen=True)
class Revision:
    """What became of one response.

    Attributes:
        number: place of the prompt among those given, from 0.
        prompt: as it was given.
        initial: the first response.
        rounds: those that were completed.
        error: ``"kind: message"`` where the next round failed, else empty.
    """

    number: int
    prompt: str
    initial: str
    rounds: tuple[Round, ...] = ()
    error: str = ""

    @property
    def responses(self) -> tuple[str, ...]:
        """The first response, and the one after each completed round."""
        return (self.initial, *(r.response for r in self.rounds))

    @property
    def final(self) -> str:
        """The last of `responses`."""
        return self.responses[-1]

    @property
    def changed(self) -> bool:
        return self.final.strip() != self.initial.strip()

    def row(self) -> dict[str, Any]:
        """For a JSON-lines file; `of_row` reads it."""
        rounds = [[list(r.principles), r.critique, r.response] for r in self.rounds]
        fields = {"number": self.number, "prompt": self.prompt, "initial": self.initial}
        return {**fields, "rounds": rounds, "error": self.error}


def of_row(row: dict[str, Any]) -> Revision:
    """Inverse of `Revision.row`."""
    rounds = tuple(Round(tuple(names), c, r) for names, c, r in row["rounds"])
    return Revision(row["number"], row["prompt"], row["initial"], rounds, row["error"])


@dataclass(frozen=True)
class Revisions(JudgeRun[Revision]):
    """What `revise_many` gives: finished items in the order of the prompts, and how the run went.

    Attributes:
        items: those with every round, and those with an error.
        left: those that were not finished because the run stopped, with the rounds they have.
        changes: parameters the server made us drop or rename -> in how many calls.
    """

    changes: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> tuple[Revision, ...]:
        """Those with every round and no error: what may be learnt from."""
        return tuple(item for item in self.items if not item.error)

    def summary(self) -> str:
        """One line on how the run went."""
        changed = sum(item.changed for item in self.done)
        parts = [f"{len(self.done)} responses through every round, {changed} of them changed"]
        parts.append(f"{self.calls} calls, {self.cached} cached")
        if self.usd is None or self.usd:
            parts.append("cost unknown" if self.usd is None else f"${self.usd:.4f}")
        if self.cut:
            parts.append(f"{self.cut} long texts cut")
        parts += [f"{change} in {count} calls" for change, count in self.changes.items()]
        return "; ".join([*parts, *self._troubles("prompts")])


@dataclass(frozen=True)
class Asking:
    """How calls are made.

    Attributes:
        backend: who criticises and revises.
        temperature: 0 asks for the likeliest text, so that a second run says the same; the source
            document has 0.3.
        max_tokens: of one reply; a longer one is an error, never cut.
        seed: of replies at other temperatures, where the server takes one.
        salt: another salt asks anew instead of reading the transcript.
    """

    backend: Backend
    temperature: float = 0.0
    max_tokens: int = MAX_TOKENS
    seed: int = 0
    salt: str = ""

    def request(self, messages: tuple[dict[str, str], ...], number: int = 0) -> Request:
        """A request of round `number`."""
        parameters: dict[str, Any] = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        salt = self.salt
        if self.temperature > 0:  # the second critique of an unchanged response is a new draw
            parameters["seed"] = self.seed
            salt = f"{salt}round {number}"
        return Request(messages, parameters, salt)

    def ask(self, requests: Sequence[Request], on_step: Progress | None = None) -> Asked[str]:
        """Every reply's text, or why there is none. Ctrl-C ends it and keeps what was answered."""
        announce(self.backend, requests)
        try:
            return run_sync(lambda: ask_all(self.backend, requests, read_text, on_step))
        except KeyboardInterrupt:
            return self._so_far(requests)

    def _so_far(self, requests: Sequence[Request]) -> Asked[str]:
        records = self.backend.transcript.records
        found = [records.get(key_of(self.backend, request)) for request in requests]
        texts: list[str | Failure | None] = [r["text"].strip() if r else None for r in found]
        return Asked(texts, stopped=INTERRUPTED)


def read_text(reply: Reply) -> str:
    """The reply without blanks around it.

    Raises:
        SoftFault: a sentence in which the world judge says that it has no answer.
    """
    text = reply.text.strip()
    if text in (LOST, UNREADABLE):
        raise SoftFault("no_words", f"the judge replied: {text}")
    return text


def critique_request(
    asking: Asking, constitution: Constitution, prompt: str, response: str, number: int = 0
) -> tuple[Request, int]:
    """(request, how many of its texts lost their middle)."""
    (question, a), (answer, b) = shorten(question_text(prompt)), shorten(response)
    return asking.request(critique_messages(constitution.text, question, answer), number), a + b


def revision_request(
    asking: Asking,
    constitution: Constitution,
    prompt: str,
    response: str,
    critique: str,
    number: int = 0,
) -> tuple[Request, int]:
    """(request, how many of its texts lost their middle)."""
    texts = [shorten(text) for text in (question_text(prompt), response, critique)]
    question, answer, said = (text for text, _ in texts)
    messages = revision_messages(constitution.text, question, answer, said)
    return asking.request(messages, number), sum(cut for _, cut in texts)


def revise_many(
    prompts: Sequence[str],
    responses: Sequence[str],
    constitution: Given | None = None,
    iterations: int = 2,
    *,
    backend: Backend,
    random_principle: bool = False,
    seed: int = 0,
    temperature: float = 0.0,
    max_tokens: int = MAX_TOKENS,
    salt: str = "",
    on_step: Progress | None = None,
) -> Revisions:
    """Critique and revision of every response, `iterations` times.

    Args:
        prompts: plain questions, or prompts in the course's template.
        responses: the first response to each. An empty one is an error of its own and is not sent.
        constitution: None takes the shipped one; a list of sentences will do.
        random_principle: one principle, drawn anew for each response and round, in place of all
            (Bai et al. 2022, arXiv 2212.08073, section 3.1).
        seed: of those draws, and of replies at a temperature above 0.
        temperature, max_tokens, salt: see `Asking`.
        on_step: called with (calls done, calls in all); None shows a bar unless the backend is
            quiet.

    Returns:
        `Revisions`. Where the budget does not cover another call, or on Ctrl-C, ``stopped`` says
        so, and ``left`` lists the unfinished ones with the rounds they have. Texts beyond
        `judge.prompts.MAX_CHARS` are shown without their middle, and counted.

    Raises:
        CourseError: lists of different lengths, an empty prompt, a bad constitution, or a fault
            that every call would meet (a wrong key, say); answers so far are in the transcript.
    """
    constitution = as_constitution(constitution)
    states = _start(prompts, responses)
    rounds = _checked(iterations)
    run = _Run(Asking(backend, temperature, max_tokens, seed, salt), constitution, random_principle)
    with _bar(backend, on_step, 2 * rounds * len(states)) as on_call:
        for number in range(rounds):
            states = run.round(states, number, on_call)
    result = run.result(states, rounds)
    if result.errors or result.stopped:
        warnings.warn(result.summary(), stacklevel=2)
    elif backend.kind == "live" and not backend.quiet:
        print(result.summary())
    return result


def _start(prompts: Sequence[str], responses: Sequence[str]) -> list[Revision]:
    if len(prompts) != len(responses):
        raise CourseError(
            f"There are {len(prompts)} prompts and {len(responses)} responses: give one response "
            "per prompt, '' where there is none."
        )
    states = []
    for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if not isinstance(prompt, str) or not question_text(prompt).strip():
            raise CourseError(f"prompts[{number}] is {prompt!r}: give a question as text.")
        text = response if isinstance(response, str) else ""
        states.append(Revision(number, prompt, text, error="" if text.strip() else NO_ANSWER))
    return states


def _checked(iterations: int) -> int:
    if not isinstance(iterations, int) or iterations < 0:
        raise CourseError(f"iterations is {iterations!r}: give a whole number from 0 up.")
    return iterations


class _Run:
    """What is counted while rounds go by."""

    def __init__(self, asking: Asking, constitution: Constitution, one: bool) -> None:
        self.asking = asking
        self.constitution = constitution
        self.one = one
        self.total: Asked[str] = Asked([])
        self.cut = 0
        self.passed = 0  # calls of the batches that are over, for the progress

    def round(self, states: list[Revision], number: int, on_call: OnCall) -> list[Revision]:
        """Every state that can go on, one round further."""
        going = {s.number: s for s in states if not s.error and len(s.rounds) == number}
        principles = {n: self._principles(s, number) for n, s in going.items()}
        critiques = self._ask(
            {
                n: critique_request(self.asking, principles[n], s.prompt, s.final, number)
                for n, s in going.items()
            },
            len(states),
            on_call,
        )
        revisions = self._ask(
            {
                n: revision_request(
                    self.asking, principles[n], going[n].prompt, going[n].final, said, number
                )
                for n, said in critiques.items()
                if isinstance(said, str)
            },
            len(states),
            on_call,
        )
        return [
            _moved(s, principles[s.number].names, critiques[s.number], revisions.get(s.number))
            if s.number in going
            else s
            for s in states
        ]

    def _principles(self, state: Revision, number: int) -> Constitution:
        """Those of a round: all, or one that depends on seed, round and prompt alone."""
        if not self.one:
            return self.constitution
        return self.constitution.drawn(f"{self.asking.seed}-{number}-{state.prompt}")

    def _ask(
        self, requests: dict[int, tuple[Request, int]], width: int, on_call: OnCall
    ) -> dict[int, str | Failure | None]:
        """Outcome by number; nothing more is asked once a batch was stopped."""
        if self.total.stopped:
            return dict.fromkeys(requests)
        self.cut += sum(cut for _, cut in requests.values())
        # What dropped out before counts as passed, so that the count ends where it should.
        passed = self.passed + width - len(requests)
        asked = self.asking.ask(
            [request for request, _ in requests.values()], lambda done, _: on_call(passed + done)
        )
        self.passed += width
        self._count(asked)
        return dict(zip(requests, asked.outcomes, strict=True))

    def _count(self, asked: Asked[str]) -> None:
        self.total.calls += asked.calls
        self.total.cached += asked.cached
        self.total.changes += asked.changes
        self.total.stopped = asked.stopped
        known = self.total.usd is not None and asked.usd is not None
        self.total.usd = (self.total.usd or 0.0) + (asked.usd or 0.0) if known else None

    def result(self, states: Sequence[Revision], rounds: int) -> Revisions:
        items = tuple(s for s in states if s.error or len(s.rounds) == rounds)
        finished = {item.number for item in items}
        return Revisions(
            items=items,
            left=tuple(s for s in states if s.number not in finished),
            stopped=self.total.stopped,
            title=self.asking.backend.title,
            calls=self.total.calls,
            cached=self.total.cached,
            usd=self.total.usd,
            cut=self.cut,
            unused=self.asking.backend.transcript.unused,
            changes=dict(self.total.changes),
        )


def _moved(
    state: Revision,
    principles: tuple[str, ...],
    critique: str | Failure | None,
    revision: str | Failure | None,
) -> Revision:
    """The state after a round's two outcomes; None is a call that was not made."""
    for step, outcome in (("critique", critique), ("revision", revision)):
        if isinstance(outcome, Failure):
            return replace(state, error=f"{outcome.kind}: {step}: {outcome.message}")
    if critique is None or revision is None:
        return state
    assert isinstance(critique, str) and isinstance(revision, str)
    return replace(state, rounds=(*state.rounds, Round(principles, critique, revision)))


@contextmanager
def _bar(backend: Backend, on_step: Progress | None, total: int) -> Iterator[OnCall]:
    """What is told how many calls are done: the caller's function, or a bar of our own."""
    if on_step is not None:
        yield lambda done: on_step(done, total)
    elif backend.quiet:
        yield lambda done: None
    else:
        from tqdm.auto import tqdm

        with tqdm(total=total, desc="critique and revision", unit="call", leave=False) as bar:

            def update(done: int) -> None:
                bar.update(done - bar.n)

            yield update
