"""Choosing who judges. The choice is printed, and nothing leaves the machine unless asked for.

| kind | who answers | when |
|---|---|---|
| live | an OpenAI-compatible server | `make_backend("live")`, or COURSE_JUDGE=live for "auto" |
| world | a small model trained to judge in the closed world | "auto" in the tiny profile |
| specimen | SmolLM2-135M asked for a letter: shows position bias, no good judge | "auto" else |
| replay | a recorded transcript; a question that is not in it is an error | by name |

Environment: COURSE_JUDGE (a kind), COURSE_JUDGE_MODEL, COURSE_JUDGE_URL and COURSE_JUDGE_KEY (an
OpenAI-compatible server and its key), OPENAI_BASE_URL and OPENAI_API_KEY.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError, unknown_name
from course_utils.paths import runs_dir

from .backend import Backend, Manners
from .budget import Budget
from .catalogue import ModelCard, catalogue
from .local import BATCH, LOCAL_URL, BatchModel, LocalModel
from .transcript import Transcript
from .wire import bare_url, is_loopback

if TYPE_CHECKING:
    from course_utils._setup import Course

KINDS = ("auto", "live", "world", "replay", "specimen")
LIMITS = ("concurrency", "timeout", "deadline", "max_retries")
OPENAI_URL = "https://api.openai.com/v1"
# What a model in this process does not know; sent, it would be answered with 400.
LOCAL_REFUSES = frozenset({"response_format", "reasoning_effort"})


def make_backend(
    kind: str = "auto",
    *,
    course: Course | None = None,
    model: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    transcript: str | Path | None = None,
    budget: Budget | None = None,
    quiet: bool = False,
    **limits: Any,
) -> Backend:
    """A backend for the judges, printed as it is made.

    Args:
        kind: see the module's table; ``"auto"`` follows COURSE_JUDGE, else the course's profile.
        course: what `setup()` returned; without it the tiny profile is meant.
        model, base_url, api_key: for ``"live"``. A server that is not OpenAI's never gets
            OPENAI_API_KEY; without a key of its own it gets a dummy.
        transcript: file of the record and cache. Default: for live one file per model under
            runs/judge, for local models none (they are free; answers are kept in memory).
            Required for ``"replay"``.
        budget: caps; needs a price for a cap in money.
        quiet: print nothing.
        limits: concurrency, timeout, deadline, max_retries: see `Backend`.

    Raises:
        CourseError: an unknown kind, no key, a model that was shut down or has no price, a missing
            or mixed transcript.
    """
    for name in limits:
        if name not in LIMITS:
            raise unknown_name("limit", name, LIMITS)
    chosen = _choose(kind, course, quiet)
    if chosen == "live":
        backend = _live(model, base_url, api_key, transcript, limits)
    elif chosen == "replay":
        backend = _replay(transcript, model)
    else:
        backend = local_backend(_load(chosen, course), kind=chosen, transcript=transcript, **limits)
    backend.quiet = quiet
    backend.budget = budget or Budget()
    if backend.kind == "live":
        backend.budget.require_price(backend.card)
    if not quiet:
        print(_described(backend))
    return backend


def local_backend(
    model: LocalModel | BatchModel,
    *,
    kind: str = "local",
    transcript: str | Path | None = None,
    **limits: Any,
) -> Backend:
    """A backend over a model in this process (see `local`), for tests and experiments of one's own.

    A function of (messages, parameters) becomes such a model with `local.FunctionModel`.
    """
    settings: dict[str, Any] = {"concurrency": BATCH, "deadline": None, "timeout": 600.0}
    return Backend(
        kind=kind,
        model=model.name,
        base_url=LOCAL_URL,
        note=str(getattr(model, "note", "")),
        local=model,
        transcript=Transcript.open(transcript),
        card=ModelCard(model.name, 0.0, 0.0),
        manners=Manners(refused=set(LOCAL_REFUSES)),
        **{**settings, **limits},
    )


def _choose(kind: str, course: Course | None, quiet: bool) -> str:
    if kind not in KINDS:
        raise unknown_name("judge backend", kind, KINDS)
    if kind != "auto":
        return kind
    wanted = os.environ.get("COURSE_JUDGE", "")
    if wanted and wanted not in KINDS:
        raise unknown_name("COURSE_JUDGE", wanted, KINDS)
    if wanted and wanted != "auto":
        return wanted
    if os.environ.get("OPENAI_API_KEY") and not quiet:
        print("An OpenAI key is set but not used: COURSE_JUDGE=live or make_backend('live') does.")
    return "world" if course is None or course.profile.name == "tiny" else "specimen"


def _live(
    model: str | None,
    base_url: str | None,
    api_key: str | None,
    transcript: str | Path | None,
    limits: dict[str, Any],
) -> Backend:
    own_url = base_url or os.environ.get("COURSE_JUDGE_URL")
    url = own_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    if not url.startswith(("http://", "https://")):
        raise CourseError(f"The base URL {url!r} is none: give one like http://127.0.0.1:8000/v1.")
    key = api_key or os.environ.get("COURSE_JUDGE_KEY")
    if not key and (own_url is None or bare_url(own_url) == OPENAI_URL):
        key = os.environ.get("OPENAI_API_KEY")
    if not key and bare_url(url) == OPENAI_URL:
        raise CourseError(
            "The live judge needs a key: set OPENAI_API_KEY, or give base_url=… of a server that "
            "needs none, or choose another backend."
        )
    key = (key or "not-needed").strip()
    if not key.isascii() or not key.isprintable():
        raise CourseError(
            "The key holds characters that no key has: copy it again, without quotes."
        )
    name = model or os.environ.get("COURSE_JUDGE_MODEL") or catalogue().default
    card = catalogue().card(name)
    path = transcript or runs_dir() / "judge" / f"{name.replace('/', '_')}.jsonl"
    return Backend(
        kind="live",
        model=name,
        base_url=url,
        api_key=key,
        transcript=Transcript.open(path),
        card=card,
        manners=Manners.of(card),
        **limits,
    )


def _replay(path: str | Path | None, model: str | None) -> Backend:
    if path is None:
        raise CourseError("Replay needs transcript=…: the JSONL file of a recorded run.")
    transcript = Transcript.open(path)
    asked = {(r.get("base_url"), r.get("model")) for r in transcript.records.values()}
    asked = {pair for pair in asked if model is None or pair[1] == model}
    if len(asked) != 1:
        what = "no answers" if not asked else f"answers of {len(asked)} models"
        raise CourseError(
            f"The transcript {path} holds {what}: give one file, and model=…, of one."
        )
    base_url, name = next(iter(asked))
    return Backend(
        kind="replay",
        model=str(name),
        base_url=str(base_url),
        note=transcript.source or "source not stated",
        transcript=transcript,
    )


def _load(kind: str, course: Course | None) -> LocalModel | BatchModel:
    """The local model of a kind; a module that is not there is said in a sentence."""
    if kind == "specimen":
        from .specimen import load_specimen

        return load_specimen(course)
    try:
        module = import_module("course_utils.judge.world_model")
    except ModuleNotFoundError as error:
        raise CourseError(
            "The world judge is not part of this installation (course_utils/judge/world_model.py): "
            "update the course, or choose another backend."
        ) from error
    return module.load(course or _tiny_course())


def _tiny_course() -> Course:
    from course_utils._setup import Course
    from course_utils.profiles import TINY

    return Course("judge", TINY)


def _described(backend: Backend) -> str:
    where = {
        "live": f"asks {bare_url(backend.base_url)}",
        "replay": f"reads {backend.transcript.path}, asks nobody",
    }.get(backend.kind, "answers in this process")
    parts = [backend.title, where]
    if backend.leaves_machine:
        parts.append("what is judged LEAVES THIS MACHINE")
    elif backend.kind == "live" and is_loopback(backend.base_url):
        parts.append("on this machine")
    if backend.kind == "live" and not backend.card.priced:
        parts.append("no price known")
    elif backend.kind == "live":
        parts.append(
            f"${backend.card.input:g} in, ${backend.card.output:g} out per million tokens as of "
            f"{catalogue().date} (check before use)"
        )
    if backend.card.shutdown:
        parts.append(f"this model ends on {backend.card.shutdown}")
    if backend.transcript.path is not None:
        parts.append(f"{len(backend.transcript.records)} answers in {backend.transcript.path.name}")
    if backend.transcript.torn:
        parts.append(f"{backend.transcript.torn} torn lines skipped")
    return "; ".join(parts)
