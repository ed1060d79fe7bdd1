"""The source document's four functions (section 7), through a judge backend and a policy.

What is different, on purpose:

1. the model that answers and the one that criticises need not be the same: a small model cannot
   criticise itself (chapter 08);
2. the judged texts are marked and escaped, so that no response can pose as a principle or order
   the critic about;
3. a call that failed is an error, never a critique or a response;
4. critiques are asked for at temperature 0, so that they can be repeated (the source has 0.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from course_utils.errors import CourseError
from course_utils.judge.calls import Asked, Failure

from .batch import (
    INTERRUPTED,
    MAX_TOKENS,
    Asking,
    Revision,
    critique_request,
    revise_many,
    revision_request,
)
from .policies import Policy, backend_policy
from .principles import Given, as_constitution

if TYPE_CHECKING:
    from course_utils.judge import Backend


class FinalResponse(str):
    """The last response, as the source's pipeline returns it: a text.

    Attributes:
        revision: the whole course of it: first response, every critique and revision, error.
    """

    revision: Revision

    def __new__(cls, revision: Revision) -> FinalResponse:
        text = super().__new__(cls, revision.final)
        text.revision = revision
        return text

    def __getnewargs__(self) -> tuple[Revision]:  # type: ignore[override]
        return (self.revision,)


def generate_initial_response(prompt: str, policy: Policy) -> str:
    """The policy's response to one prompt. See `policies` for who can be one.

    Raises:
        CourseError: the prompt is empty, or the policy gave no text.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise CourseError(f"The prompt is {prompt!r}: give a question as text.")
    given = policy([prompt])
    if isinstance(given, str) or len(given) != 1 or not isinstance(given[0], str):
        raise CourseError(
            "A policy is given a list of prompts and returns a list of as many texts: see "
            "constitution.model_policy."
        )
    return given[0]


def critique_response(
    prompt: str,
    response: str,
    constitution: Given | None = None,
    *,
    backend: Backend,
    max_tokens: int = MAX_TOKENS,
) -> str:
    """In which way the response breaks the principles, in the judge's words.

    Raises:
        CourseError: an empty prompt, response or constitution, or no usable reply.
    """
    _require(prompt=prompt, response=response)
    asking = Asking(backend, max_tokens=max_tokens)
    request, _ = critique_request(asking, as_constitution(constitution), prompt, response)
    return _the_one(asking.ask([request]), "critique")


def revise_response(
    prompt: str,
    response: str,
    critique: str,
    constitution: Given | None = None,
    *,
    backend: Backend,
    max_tokens: int = MAX_TOKENS,
) -> str:
    """The response, changed so that the critique no longer applies.

    Raises:
        CourseError: an empty prompt, response, critique or constitution, or no usable reply.
    """
    _require(prompt=prompt, response=response, critique=critique)
    asking = Asking(backend, max_tokens=max_tokens)
    request, _ = revision_request(asking, as_constitution(constitution), prompt, response, critique)
    return _the_one(asking.ask([request]), "revision")


def _require(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise CourseError(f"The {name} is {text!r}: give a text that is not empty.")


def _the_one(asked: Asked[str], what: str) -> str:
    outcome = asked.outcomes[0]
    if isinstance(outcome, str):
        return outcome
    if asked.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    why = f"{outcome.kind}: {outcome.message}" if isinstance(outcome, Failure) else asked.stopped
    raise CourseError(f"There is no {what} ({why}): run it again, or choose another backend.")


def constitutional_ai_pipeline(
    prompt: str,
    constitution: Given | None = None,
    iterations: int = 2,
    *,
    backend: Backend,
    policy: Policy | None = None,
    random_principle: bool = False,
    seed: int = 0,
    verbose: bool = True,
) -> FinalResponse:
    """A first response, then `iterations` times a critique and a revision by it.

    Args:
        policy: gives the first response; None asks the backend, as the source does.
        random_principle, seed: see `revise_many`.
        verbose: print every text, as the source does.

    Returns:
        The last response; ``.revision`` holds every round. Where a call failed or the budget ended
        the run, it is the last response there was, and a warning (and ``.revision.error``) says so.

    Raises:
        CourseError: an empty prompt or constitution, or a fault that every call would meet.
    """
    response = generate_initial_response(prompt, policy or backend_policy(backend))
    run = revise_many(
        [prompt],
        [response],
        as_constitution(constitution),
        iterations,
        backend=backend,
        random_principle=random_principle,
        seed=seed,
        on_step=lambda done, total: None,
    )
    revision = (*run.items, *run.left)[0]
    if verbose:
        print(f"Initial response:\n{response}\n")
        for number, made in enumerate(revision.rounds, start=1):
            print(f"Critique {number}:\n{made.critique}\n")
            print(f"Revised response {number}:\n{made.response}\n")
    return FinalResponse(revision)
