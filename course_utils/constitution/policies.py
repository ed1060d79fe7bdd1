"""Who gives the first response: a trained model of the course, or a chat model behind a backend.

A policy is any function from a list of prompts to a list of responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from course_utils.data import format_prompt
from course_utils.errors import CourseError
from course_utils.judge.calls import Failure
from course_utils.templates import RESPONSE_HEADER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course
    from course_utils.judge import Backend

Policy = Callable[[Sequence[str]], Sequence[str]]
TEMPERATURE = 0.7  # of the source document's first response


def in_template(prompt: str) -> str:
    """The prompt in the course's template; one that is in it already stays as it is."""
    return prompt if prompt.endswith(RESPONSE_HEADER) else format_prompt(prompt.strip())


def model_policy(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Policy:
    """A model of the course as a policy. The same seed gives the same responses."""
    from course_utils.generation import generate

    profile = course.profile

    def answer(prompts: Sequence[str]) -> list[str]:
        generations = generate(
            model,
            tokenizer,
            [in_template(prompt) for prompt in prompts],
            temperature=temperature,
            seed=seed,
            max_new_tokens=profile.max_new_tokens,
            batch_size=profile.generation_batch_size,
            max_prompt_tokens=profile.max_length,
        )
        return [generation.text for generation in generations]

    return answer


def backend_policy(
    backend: Backend, *, temperature: float = TEMPERATURE, max_tokens: int = 400
) -> Policy:
    """A chat model as a policy, as in the source document.

    Raises (the policy, when called):
        CourseError: a response that did not come; the answered ones are in the transcript.
    """
    from .batch import Asking

    def answer(prompts: Sequence[str]) -> list[str]:
        asking = Asking(backend, temperature, max_tokens)
        asked = asking.ask(
            [asking.request(({"role": "user", "content": prompt},)) for prompt in prompts]
        )
        texts = []
        for number, outcome in enumerate(asked.outcomes):
            if not isinstance(outcome, str):
                raise CourseError(_no_response(number, outcome, asked.stopped))
            texts.append(outcome)
        return texts

    return answer


def _no_response(number: int, outcome: Failure | None, stopped: str) -> str:
    why = f"{outcome.kind}: {outcome.message}" if outcome else stopped
    return (
        f"The backend gave no response to prompt {number} ({why}): run it again, or give policy=… "
        "a model that answers prompts, such as model_policy(course, model, tokenizer)."
    )
