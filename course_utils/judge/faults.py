"""What can go wrong with a call, sorted by what must follow.

- fatal, a `CourseError`: every further call would fail too (key, quota, model name, no server).
  The run ends at once and the message names the remedy.
- `Pause`: the server asks to wait longer than a call may take. The run ends; the rest is listed.
- `SoftFault`: this one call gave nothing that can be used. It becomes an error in the result:
  never a tie, never cached, asked again in the next run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError

from .local import TokenLogprob
from .wire import retry_after

if TYPE_CHECKING:
    from .backend import Backend

SHOWN = 200  # characters of a server's message that are passed on


class SoftFault(Exception):
    """One call without a usable answer.

    Attributes:
        kind: a short name that runs are counted by, such as ``"timeout"``.
        usage: (prompt tokens, completion tokens) that the server charged, or None if unknown.
        maybe_charged: the server may have done the work although no answer came.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        usage: tuple[int, int] | None = None,
        maybe_charged: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.usage = usage
        self.maybe_charged = maybe_charged


class Pause(Exception):
    """The server asks to wait `seconds`, which is longer than a call may take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the server asks to wait {seconds:.0f} s")
        self.seconds = seconds


def longest_wait(backend: Backend) -> float:
    """A retry-after beyond this many seconds pauses the run. The client itself stops at 120."""
    return min(120.0, backend.deadline) if backend.deadline else 120.0


def sort_out(error: Exception, backend: Backend) -> Exception:
    """The `CourseError`, `Pause` or `SoftFault` that an exception of a call means.

    An exception of another origin, such as a mistake in a local model, comes back as it is.
    """
    import openai

    message = _safe(str(error), backend)
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        limit = f"{backend.deadline:g} s" if backend.deadline else "the time limit"
        text = f"no whole answer within {limit}"
        return SoftFault("timeout", text, maybe_charged=True)
    if isinstance(error, openai.APIStatusError):
        return _sort_status(error, message, backend)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        # Older clients take a local model's own mistake for a broken connection.
        if backend.local is not None and isinstance(cause, Exception):
            return cause
        if type(cause).__name__ == "ConnectError":
            return CourseError(
                f"No server answers at {backend.base_url} after {backend.max_retries + 1} tries: "
                "start it, or check the base URL and the connection."
            )
        return SoftFault("connection", f"the connection broke: {message}", maybe_charged=True)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return SoftFault("broken_json", "the answer is no whole JSON", maybe_charged=True)
    if isinstance(error, openai.OpenAIError):
        return SoftFault("client", message, maybe_charged=True)
    return error


def _sort_status(error: Any, message: str, backend: Backend) -> Exception:
    status, where = error.status_code, backend.base_url
    if status == 401 or status == 403:
        return CourseError(
            f"{where} refused the key (HTTP {status}): set OPENAI_API_KEY, or COURSE_JUDGE_KEY for "
            f"another server, to a key that may use {backend.model!r}."
        )
    if status == 404:
        return CourseError(
            f"{where} has no model {backend.model!r} or no chat completions (HTTP 404): name "
            "another with model=… or COURSE_JUDGE_MODEL, or check the base URL, which ends in /v1."
        )
    if 300 <= status < 400:
        return CourseError(
            f"{where} answers with a redirect: give the address it leads to as base URL."
        )
    if status == 429:
        if "insufficient_quota" in f"{error.code} {error.body}":
            return quota_exhausted(where)
        wait = retry_after(error.response.headers)
        if wait is not None and wait > longest_wait(backend):
            return Pause(wait)
        return SoftFault("rate_limited", message)
    if status == 400:
        filtered = error.code == "content_filter"
        return SoftFault("filtered" if filtered else "bad_request", message)
    return SoftFault("server_error" if status >= 500 else f"http_{status}", message)


def quota_exhausted(where: str) -> CourseError:
    return CourseError(
        f"The account's quota at {where} is used up: add credit or choose another backend; "
        "waiting does not help."
    )


def _safe(text: str, backend: Backend) -> str:
    """A server's message, shortened, without markup and without the key it may repeat."""
    if backend.api_key:
        text = text.replace(backend.api_key, "***")
    text = re.sub(r"<[^>]*>|\s+", " ", text)
    return re.sub(r" +", " ", text).strip()[:SHOWN]


def refused_parameter(error: Any, sent: Iterable[str]) -> str | None:
    """Which sent parameter a 400 is about: the error's `param`, else the one its text names.

    The longest name wins, because ``max_tokens`` also occurs in advice about its successor.
    """
    names = sorted(sent, key=len, reverse=True)
    if error.param is not None:
        parameter = str(error.param).partition(".")[0]
        return parameter if parameter in names else None
    text = str(error)
    if "context_length" in text or "context length" in text:
        return None  # the question is too long; its text may name max_tokens all the same
    quoted = [n for n in names if re.search(rf"['\"`]{re.escape(n)}['\"`]", text)]
    if quoted:  # the refused one is named first, the advice follows
        return min(quoted, key=text.index)
    return next((n for n in names if re.search(rf"\b{re.escape(n)}\b", text)), None)


class Answer:
    """The parts of a checked completion: text, model, usage, log-probs."""

    def __init__(self, completion: Any, where: str) -> None:
        """Check a completion as the client returns it, which may be anything that came with 200.

        Raises:
            SoftFault: there is no whole text in it.
            CourseError: it is an error page that says the quota is used up.
        """
        if isinstance(completion, str) or not hasattr(completion, "choices"):
            raise SoftFault("not_json", "the server sent a page instead of an answer")
        self.usage = _usage(getattr(completion, "usage", None))
        _no_error(getattr(completion, "error", None), where)
        choice = self._choice(completion.choices)
        self.text = self._text(choice)
        self.model = str(getattr(completion, "model", "") or "")
        self.logprobs = _logprobs(getattr(choice, "logprobs", None))

    def _fault(self, kind: str, message: str) -> SoftFault:
        return SoftFault(kind, message, usage=self.usage, maybe_charged=True)

    def _choice(self, choices: Any) -> Any:
        if not isinstance(choices, list) or not choices:
            raise self._fault("no_choices", "the answer holds no choice")
        return choices[0]

    def _text(self, choice: Any) -> str:
        message = getattr(choice, "message", None)
        refusal = getattr(message, "refusal", None)
        if refusal:
            raise self._fault("refusal", f"the model declined: {str(refusal)[:SHOWN]}")
        reason = getattr(choice, "finish_reason", None)
        if reason == "length":
            raise self._fault("length", "the reply was cut at its token limit: raise max_tokens")
        if reason == "content_filter":
            raise self._fault("filtered", "the server's filter held the reply back")
        text = getattr(message, "content", None)
        if not isinstance(text, str) or not text.strip():
            raise self._fault("empty", "the reply is empty")
        return text


def _no_error(error: Any, where: str) -> None:
    if not error:
        return
    if "insufficient_quota" in str(error):
        raise quota_exhausted(where)
    message = error.get("message") if isinstance(error, Mapping) else error
    raise SoftFault("error_in_200", f"the server reported: {str(message)[:SHOWN]}")


def _usage(usage: Any) -> tuple[int, int] | None:
    counts = (getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))
    if all(isinstance(c, int) and c >= 0 for c in counts):
        return counts  # type: ignore[return-value]
    return None


def _logprobs(given: Any) -> tuple[TokenLogprob, ...] | None:
    content = getattr(given, "content", None)
    if not content:
        return None
    try:
        return tuple(
            TokenLogprob(
                str(part.token),
                round(float(part.logprob), 4),
                {str(t.token): round(float(t.logprob), 4) for t in part.top_logprobs or ()},
            )
            for part in content
        )
    except (AttributeError, TypeError, ValueError):
        return None  # a server's own idea of log-probs: none that can be used
