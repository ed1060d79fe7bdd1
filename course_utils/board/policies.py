"""Anything that answers prompts, as the board asks it: a batch of prompts and a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import models
from course_utils.errors import CourseError
from course_utils.generation import Generation, generate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course

Respond = Callable[[Sequence[str], int], list[Generation]]


@dataclass(frozen=True)
class Policy:
    """What the board measures.

    Attributes:
        respond: (prompts, seed) -> one answer each.
        model, tokenizer: where it is a language model, so that its KL can be measured.
        kl: nats from SFT where theory knows it and `model` does not.
    """

    respond: Respond
    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    kl: float | None = None


def as_policy(course: Course, given: Any, tokenizer: Any = None) -> Policy:
    """A `Policy` from a model with its tokenizer, a run's folder, or a function.

    Args:
        given: a `Policy`; a model (with `tokenizer`); (model, tokenizer); the folder of a trained
            run; or a function that takes a prompt, in the course's template, and returns a text.

    Raises:
        CourseError: none of these.
    """
    if isinstance(given, Policy):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return of_model(course, *given)
    if isinstance(given, str | Path):
        if not Path(given).is_dir():
            raise CourseError(f"There is no folder {given}: give the folder of a trained model.")
        return of_model(course, *models.load(given, course))
    if hasattr(given, "generate") and hasattr(given, "config"):
        if tokenizer is None:
            raise CourseError("A model needs its tokenizer: give both.")
        return of_model(course, given, tokenizer)
    if callable(given):
        return of_function(course, given)
    raise CourseError(
        f"A {type(given).__name__} is no policy: give a model with its tokenizer, a folder, or a "
        "function that takes a prompt and returns a text."
    )


def of_model(course: Course, model: Any, tokenizer: Any) -> Policy:
    """A language model, sampled at temperature 1 with the profile's budget of tokens."""
    profile = course.profile

    def respond(prompts: Sequence[str], seed: int) -> list[Generation]:
        return generate(
            model,
            tokenizer,
            prompts,
            seed=seed,
            max_new_tokens=profile.max_new_tokens,
            batch_size=profile.generation_batch_size,
            max_prompt_tokens=profile.max_length,
        )

    return Policy(respond, model, tokenizer)


def of_function(course: Course, function: Callable[[str], str]) -> Policy:
    """A function of one prompt. What it returns beyond the budget of tokens is cut."""
    tokenizer = models.load_tokenizer(models.base_path(course))
    budget = course.profile.max_new_tokens

    def respond(prompts: Sequence[str], seed: int) -> list[Generation]:
        return [as_answer(function(prompt), tokenizer, budget) for prompt in prompts]

    return Policy(respond)


def as_answer(text: Any, tokenizer: Any, budget: int) -> Generation:
    """A text as if a model with that budget of tokens had written it."""
    if not isinstance(text, str):
        raise CourseError(f"A policy returned a {type(text).__name__}: it must return a text.")
    ids = tokenizer(text)["input_ids"]
    if len(ids) < budget:
        return Generation(text.strip(), (*ids, tokenizer.eos_token_id), True)
    kept = ids[:budget]
    return Generation(tokenizer.decode(kept, skip_special_tokens=True).strip(), tuple(kept), False)


def best_of(
    policy: Policy, score: Callable[[Sequence[str], Sequence[str]], list[float]], count: int
) -> Policy:
    """The best of `count` answers by a reward model's `score`; see `best_of_n`."""
    from course_utils import best_of_n

    def respond(prompts: Sequence[str], seed: int) -> list[Generation]:
        many = list(prompts) * count
        answers = policy.respond(many, seed)
        table = best_of_n.as_table(score(many, [a.text for a in answers]), len(prompts))
        picked = table.argmax(1)
        return [answers[len(prompts) * which + i] for i, which in enumerate(picked)]

    return Policy(respond, kl=best_of_n.kl(count))
