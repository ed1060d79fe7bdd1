"""Reading a judge's reply. A reply that does not say clearly what it decides is a fault, not a tie.

Read is the JSON object that ends the reply, whatever prose or fence stands before it; a reply
without any brace may say ``winner: A`` or ``[[A]]`` instead. All else is a fault: broken JSON, text
after the object (a judge that quotes an answer's own `{"winner": "A"}` has not decided anything),
and two readings that disagree.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from .calls import Reply
from .faults import SHOWN, SoftFault
from .local import TokenLogprob
from .prompts import HIGHEST, LOWEST, Rubric

T = TypeVar("T")
SIDES = {"a": "A", "b": "B", "tie": "tie"}
_TAG = re.compile(
    r"\[\[\s*(a|b|tie)\s*\]\]|^\W*winner\W{0,6}(a|b|tie)\b", re.IGNORECASE | re.MULTILINE
)
_WINNER_VALUE = re.compile(r'"winner"\s*:\s*"\s*(?=(?:a|b|tie)\b)', re.IGNORECASE)


def read_verdict(reply: Reply, ties: bool) -> tuple[str, str]:
    """(``"A"``, ``"B"`` or ``"tie"`` as the slots were shown; the reason).

    Raises:
        SoftFault: unparsable, contradictory, or a tie where none is allowed.
    """
    found = _objects(reply.text, lambda value: _winner(value, ties))
    text = reply.text.strip()
    if "{" not in text:
        sides = {SIDES[(a or b).lower()] for a, b in _TAG.findall(text)}
        found = [(side, text) for side in sides if ties or side != "tie"]
    if len({side for side, _ in found}) != 1:
        raise _unreadable(reply, "no verdict" if not found else "verdicts that contradict")
    return found[0]


def _winner(value: Mapping[str, Any], ties: bool) -> tuple[str, str] | None:
    given = value.get("winner")
    side = SIDES.get(given.strip().lower()) if isinstance(given, str) else None
    if side is None or (side == "tie" and not ties):
        return None
    why = value.get("why")
    return side, why if isinstance(why, str) else ""


def read_scores(reply: Reply, rubric: Rubric) -> tuple[dict[str, int], str]:
    """(score by criterion, the reason).

    Raises:
        SoftFault: unparsable, contradictory, a criterion missing, or a score out of range.
    """
    found = _objects(reply.text, lambda value: _scores(value, rubric))
    if not found or any(scores != found[0][0] for scores, _ in found):
        raise _unreadable(reply, "no whole set of scores")
    return found[0]


def _scores(value: Mapping[str, Any], rubric: Rubric) -> tuple[dict[str, int], str] | None:
    given = value.get("scores")
    if not isinstance(given, Mapping):
        return None
    scores = {}
    for name in rubric.names:
        score: Any = given.get(name)
        # bool is an int to Python, and 4.0 is what some models write for 4.
        if isinstance(score, bool) or score not in range(LOWEST, HIGHEST + 1):
            return None
        scores[name] = int(score)
    why = value.get("why")
    return scores, why if isinstance(why, str) else ""


def _objects(text: str, read: Callable[[Mapping[str, Any]], T | None]) -> list[T]:
    """What `read` makes of the JSON objects of a text that ends with one, outermost only."""
    try:
        values = [read(value) for value in _json_objects(text.rstrip("` \t\r\n"))]
    except (ValueError, RecursionError):
        return []
    if values and values[-1] is None:
        return []
    return [value for value in values if value is not None]


def _json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a text. A brace that opens no whole object, or text after them, is an error.

    So an object quoted inside a broken one is never taken for the reply.
    """
    end, start = 0, text.find("{")
    while start >= 0:
        value, end = _DECODER.raw_decode(text, start)
        yield value
        start = text.find("{", end)
    if end < len(text):
        raise ValueError("text after the last object")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates)


def _unreadable(reply: Reply, what: str) -> SoftFault:
    return SoftFault("unparsable", f"{what} in the reply: {reply.text.strip()[:SHOWN]!r}")


def slot_probability(reply: Reply) -> float | None:
    """Probability that the verdict is the first slot, from the log-probs at the verdict's token.

    A tie counts half. None where the backend gave no log-probs, or none of them is a verdict.
    """
    if reply.logprobs is None:
        return None
    text = "".join(part.token for part in reply.logprobs)
    places = list(_WINNER_VALUE.finditer(text))
    if not places:
        return None
    token = _token_at(reply.logprobs, places[-1].end())
    mass = {"A": 0.0, "B": 0.0, "tie": 0.0}
    for alternative, logprob in (token.top or {token.token: token.logprob}).items():
        side = _side_of(alternative)
        if side:
            mass[side] += math.exp(logprob)
    total = sum(mass.values())
    return (mass["A"] + mass["tie"] / 2) / total if total > 0 else None


def _token_at(logprobs: tuple[TokenLogprob, ...], place: int) -> TokenLogprob:
    """The token that covers a place in the joined text."""
    end = 0
    for part in logprobs:
        end += len(part.token)
        if place < end:
            return part
    return logprobs[-1]


def _side_of(token: str) -> str | None:
    """The verdict that a token begins: ``A``, ``"B``, ``t`` or ``tie``."""
    bare = token.strip(' \t\n":}')
    if bare.lower() in ("t", "ti", "tie"):
        return "tie"
    return SIDES.get(bare.lower())
