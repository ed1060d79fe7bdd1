"""Questions to the served model through the official `openai` client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError

if TYPE_CHECKING:
    from openai import OpenAI

    from .serving import Server

TIMEOUT = 60.0  # seconds; the server answers one request at a time
MAX_TOKENS = 64


@dataclass(frozen=True)
class Reply:
    """What the server answered.

    Attributes:
        text: the answer.
        finished: the model ended by itself, before its budget ran out.
        prompt_tokens, tokens: how many the server counted.
    """

    text: str
    finished: bool
    prompt_tokens: int
    tokens: int


def messages(instruction: str, context: str = "") -> list[dict[str, str]]:
    """A question as chat messages, in the order of the course's template: context comes second."""
    said = [{"role": "user", "content": instruction}]
    return [*said, {"role": "system", "content": context}] if context else said


def client(server: Server) -> OpenAI:
    """The official client for a server of ours. It uses no proxy, no key, and does not ask twice.

    Asking again would not help: the server still works at the request that was given up.
    """
    from openai import DefaultHttpxClient, OpenAI

    return OpenAI(
        base_url=server.url,
        api_key="none needed",
        max_retries=0,
        timeout=TIMEOUT,
        http_client=DefaultHttpxClient(trust_env=False),
    )


def ask(
    server: Server,
    instruction: str,
    context: str = "",
    *,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 1.0,
    seed: int | None = None,
) -> Reply:
    """One question, one answer.

    Raises:
        CourseError: the server has died (with the end of its log), does not answer in time, or
            refuses the request.
    """
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    options: dict[str, Any] = {} if seed is None else {"seed": seed}
    server.require_alive()
    try:
        with client(server) as speaker:
            reply = speaker.chat.completions.create(
                model=server.model,
                messages=messages(instruction, context),  # type: ignore[arg-type]
                max_tokens=max_tokens,
                temperature=temperature,
                **options,
            )
    except APITimeoutError as error:
        raise CourseError(
            f"The server has not answered within {TIMEOUT:.0f} s: it may still be busy with "
            "another request; wait, or start it anew."
        ) from error
    except APIConnectionError as error:
        server.wait_for_end()
        server.require_alive()
        raise CourseError(f"The connection to {server.url} broke off: ask again.") from error
    except APIStatusError as error:
        raise CourseError(
            f"The server refuses the request (status {error.status_code}): {error.response.text}"
        ) from error
    choice, usage = reply.choices[0], reply.usage
    return Reply(
        (choice.message.content or "").strip(),
        choice.finish_reason == "stop",
        usage.prompt_tokens if usage else 0,
        usage.completion_tokens if usage else 0,
    )
