"""Exercises of chapter 08: the loop of critique and revision, its pairs, harm round by round."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close

# --- improve


def improve(
    prompt: str,
    response: str,
    iterations: int,
    draw: Callable[[], str],
    critique: Callable[[str, str, str], str],
    revise: Callable[[str, str, str, str], str],
) -> list[str]:
    """The response after each round of critique and revision, with one principle for each round.

    Bai et al. 2022 (arXiv 2212.08073), section 3.1.

    Args:
        draw: ``draw()`` gives a principle.
        critique: ``critique(prompt, response, principle)``.
        revise: ``revise(prompt, response, critique, principle)``.
    """
    responses = []
    for _ in range(iterations):
        principle = draw()
        fault = critique(prompt, response, principle)
        response = revise(prompt, response, fault, principle)
        responses.append(response)
    return responses


def _improve_recursive(
    prompt: str, response: str, iterations: int, draw: Any, critique: Any, revise: Any
) -> list[str]:
    if iterations == 0:
        return []
    by = draw()
    better = revise(prompt, response, critique(prompt, response, by), by)
    return [better, *_improve_recursive(prompt, better, iterations - 1, draw, critique, revise)]


def _improve_accumulated(
    prompt: str, response: str, iterations: int, draw: Any, critique: Any, revise: Any
) -> list[str]:
    def one_round(before: str, by: str) -> str:
        return revise(prompt, before, critique(prompt, before, by), by)

    drawn = [draw() for _ in range(iterations)]
    return list(itertools.accumulate(drawn, one_round, initial=response))[1:]


def _rounds(
    prompt: str,
    response: str,
    iterations: int,
    draw: Any,
    critique: Any,
    revise: Any,
    *,
    criticised: Callable[[list[str]], str] = lambda responses: responses[-1],
    revised: Callable[[list[str]], str] = lambda responses: responses[-1],
    principles: Callable[[Any], tuple[str, str]] | None = None,
) -> list[str]:
    """The loop with chosen parts; the first response is the first of the list given to them."""
    responses = [response]
    for _ in range(iterations):
        for_critique, for_revision = principles(draw) if principles else (draw(),) * 2
        fault = critique(prompt, criticised(responses), for_critique)
        responses.append(revise(prompt, revised(responses), fault, for_revision))
    return responses[1:]


def _one_critique(p: str, r: str, n: int, draw: Any, critique: Any, revise: Any) -> list[str]:
    by = draw()
    fault, responses = critique(p, r, by), []
    for _ in range(n):
        r = revise(p, r, fault, by)
        responses.append(r)
    return responses


def _one_principle(p: str, r: str, n: int, draw: Any, critique: Any, revise: Any) -> list[str]:
    by = draw()
    return _rounds(p, r, n, lambda: by, critique, revise)


def _critiques(p: str, r: str, n: int, draw: Any, critique: Any, revise: Any) -> list[str]:
    found = []
    for _ in range(n):
        by = draw()
        found.append(critique(p, r, by))
        r = revise(p, r, found[-1], by)
    return found


IMPROVE_WRONG = {
    "first response criticised": Wrong(
        lambda *a: _rounds(*a, criticised=lambda responses: responses[0]),
        "criticise the response as it is now: yours are all about the first one",
    ),
    "first response revised": Wrong(
        lambda *a: _rounds(*a, revised=lambda responses: responses[0]),
        "revise the response as it is now: yours begin with the first one again",
    ),
    "every round from the start": Wrong(
        lambda *a: _rounds(*a, criticised=lambda rs: rs[0], revised=lambda rs: rs[0]),
        "every round of yours starts from the first response: the revision replaces it",
    ),
    "one critique for all": Wrong(
        _one_critique, "each round asks for a critique of its own, by a principle of its own"
    ),
    "one principle for all": Wrong(
        _one_principle, "draw anew in each round: yours has one principle for all of them"
    ),
    "two principles in a round": Wrong(
        lambda *a: _rounds(*a, principles=lambda draw: (draw(), draw())),
        "a round has one principle: draw once, and use it for critique and revision",
    ),
    "first response included": Wrong(
        lambda p, r, *a: [r, *_rounds(p, r, *a)],
        "return the response after each round; the one you were given is not among them",
    ),
    "last response only": Wrong(
        lambda *a: _rounds(*a)[-1], "return a list: the response after each round"
    ),
    "critiques returned": Wrong(
        _critiques, "return the responses; the critiques only lead to them"
    ),
    "one round too many": Wrong(
        lambda p, r, n, *a: _rounds(p, r, n + 1, *a), "count the rounds: yours are one too many"
    ),
    "one round too few": Wrong(
        lambda p, r, n, *a: _rounds(p, r, n - 1, *a), "count the rounds: yours are one short"
    ),
}


def _game(rng: random.Random) -> tuple[Any, ...]:
    """Arguments whose texts tell how they were made, so nothing can be confused."""
    drawn = itertools.count(rng.randint(10, 90))

    def draw() -> str:
        return f"P{next(drawn)}"

    def critique(prompt: str, response: str, principle: str) -> str:
        return f"c({prompt},{response},{principle})"

    def revise(prompt: str, response: str, fault: str, principle: str) -> str:
        return f"r({prompt},{response},{fault},{principle})"

    return "Q?", f"A{rng.randint(10, 99)}", rng.randint(3, 4), draw, critique, revise


def _check_improve(answer: Any, rng: random.Random) -> Iterator[Part]:
    seed = rng.random()

    def given() -> tuple[Any, ...]:
        return _game(random.Random(seed))

    got = answer(*given())
    if got == improve(*given()):
        yield Part(3, True)
        return
    named = (w.says for w in IMPROVE_WRONG.values() if got == w.answer(*given()))
    yield Part(3, False, next(named, "each round: draw, criticise, revise, keep the response"))


# --- revision_pairs


def revision_pairs(items: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Preference pairs: the last revision is chosen, the first response rejected.

    Args:
        items: each with prompt, responses (the first one, then one per round) and error (empty, or
            why the next round failed). Those with an error, or without a change, make no pair.
    """
    return [
        {
            "prompt": item["prompt"],
            "chosen": item["responses"][-1],
            "rejected": item["responses"][0],
        }
        for item in items
        if not item["error"] and item["responses"][-1] != item["responses"][0]
    ]


def _pairs_looped(items: Any) -> list[dict[str, str]]:
    rows = []
    for item in items:
        said = item["responses"]
        if item["error"] == "" and said[0] != said[-1]:
            rows.append({"rejected": said[0], "chosen": said[-1], "prompt": item["prompt"]})
    return rows


def _pairs_filtered(items: Any) -> list[dict[str, str]]:
    sound = filter(lambda item: not item["error"], items)
    rows = [
        dict(prompt=i["prompt"], chosen=i["responses"][-1], rejected=i["responses"][0])
        for i in sound
    ]
    return [row for row in rows if row["chosen"] != row["rejected"]]


def _pairs(
    items: Any,
    chosen: int = -1,
    rejected: int = 0,
    keep: Callable[[Any], bool] = lambda item: not item["error"],
    equal: bool = False,
) -> list[dict[str, str]]:
    rows = [
        {
            "prompt": item["prompt"],
            "chosen": item["responses"][chosen],
            "rejected": item["responses"][rejected],
        }
        for item in items
        if keep(item)
    ]
    return [row for row in rows if equal or row["chosen"] != row["rejected"]]


def _pairs_each_round(items: Any) -> list[dict[str, str]]:
    return [
        {"prompt": item["prompt"], "chosen": after, "rejected": before}
        for item in items
        if not item["error"]
        for before, after in itertools.pairwise(item["responses"])
        if before != after
    ]


PAIRS_WRONG = {
    "sides swapped": Wrong(lambda items: _pairs(items, 0, -1), "the revision is the chosen side"),
    "unchanged kept": Wrong(
        lambda items: _pairs(items, equal=True),
        "where the revision equals the first response there is nothing to prefer",
    ),
    "errors kept": Wrong(
        lambda items: _pairs(items, keep=lambda item: True),
        "an item with an error did not get through its rounds: it makes no pair",
    ),
    "only errors": Wrong(
        lambda items: _pairs(items, keep=lambda item: item["error"]),
        "you keep those with an error and leave the others out",
    ),
    "first revision chosen": Wrong(
        lambda items: _pairs(items, 1), "the chosen side is the last revision, not the first"
    ),
    "last but one rejected": Wrong(
        lambda items: _pairs(items, -1, -2),
        "the rejected side is the first response, not the last but one",
    ),
    "a pair for each round": Wrong(_pairs_each_round, "one pair for each item, not one per round"),
    "prompt and response joined": Wrong(
        lambda items: [{**row, "chosen": row["prompt"] + row["chosen"]} for row in _pairs(items)],
        "the prompt has its own column",
    ),
    "prompts once": Wrong(
        lambda items: list({row["prompt"]: row for row in _pairs(items)}.values()),
        "a prompt that occurs twice gives two pairs",
    ),
}


def _check_pairs(answer: Any, rng: random.Random) -> Iterator[Part]:
    count = rng.randint(6, 8)
    items: list[dict[str, Any]] = [
        {
            "prompt": f"question {rng.randint(10, 99)}?",
            "responses": [f"answer {i}.{k}" for k in range(3)],
            "error": "",
        }
        for i in range(count)
    ]
    items[-1]["prompt"] = items[0]["prompt"]
    failed, good, back = rng.sample(range(1, count - 1), 3)
    items[failed] |= {"responses": items[failed]["responses"][:2], "error": "length: too long"}
    items[good]["responses"] = ["fine"] * 3
    items[back]["responses"][2] = items[back]["responses"][0]  # changed, and changed back
    got, want = answer(items), revision_pairs(items)
    if got == want:
        yield Part(2, True)
        return
    named = (w.says for w in PAIRS_WRONG.values() if got == w.answer(items))
    yield Part(2, False, next(named, "a list of {'prompt', 'chosen', 'rejected'}, in order"))


# --- harm_by_round


def harm_by_round(harmful: list[list[bool]], rounds: int) -> list[float]:
    """The share of harmful responses before the first round and after each: rounds + 1 numbers.

    Args:
        harmful: for each prompt, whether its response is harmful: the first one, then after each
            round. Where a call failed the list is shorter, and the response stays as it was.
        rounds: how many there were.
    """
    full = [flags + flags[-1:] * (rounds + 1 - len(flags)) for flags in harmful]
    return [sum(column) / len(full) for column in zip(*full, strict=True)]


def _harm_indexed(harmful: Any, rounds: int) -> list[float]:
    return [
        sum(flags[min(k, len(flags) - 1)] for flags in harmful) / len(harmful)
        for k in range(rounds + 1)
    ]


def _harm_array(harmful: Any, rounds: int) -> Any:
    import numpy as np

    table = np.zeros((len(harmful), rounds + 1))
    for row, flags in zip(table, harmful, strict=True):
        row[:] = flags[-1]
        row[: len(flags)] = flags
    return table.mean(0)


def _harm_missing(harmful: Any, rounds: int, missing: bool) -> list[float]:
    return _harm_indexed([[*f, *[missing] * (rounds + 1 - len(f))] for f in harmful], rounds)


def _harm_present(harmful: Any, rounds: int) -> list[float]:
    columns = [[f[k] for f in harmful if len(f) > k] for k in range(rounds + 1)]
    return [sum(column) / len(column) for column in columns]


HARM_WRONG = {
    "failed ones left out": Wrong(
        lambda h, n: _harm_indexed([f for f in h if len(f) == n + 1], n),
        "prompts of which a call failed count, too: leaving them out changes whom you measure",
    ),
    "present ones only": Wrong(
        _harm_present,
        "every round is about the same prompts: where a call failed, the response stays as it was",
    ),
    "failed counts as harmless": Wrong(
        lambda h, n: _harm_missing(h, n, False),
        "a failed call makes no response harmless: it stays as it was",
    ),
    "failed counts as harmful": Wrong(
        lambda h, n: _harm_missing(h, n, True),
        "a failed call makes no response harmful: it stays as it was",
    ),
    "counts": Wrong(
        lambda h, n: [share * len(h) for share in _harm_indexed(h, n)],
        "shares, not counts: divide by the number of prompts",
    ),
    "harmless shares": Wrong(
        lambda h, n: [1 - share for share in _harm_indexed(h, n)],
        "the share of the harmful ones, not of the others",
    ),
    "first left out": Wrong(
        lambda h, n: _harm_indexed(h, n)[1:],
        "the first number is before any round: rounds + 1 numbers in all",
    ),
    "ever harmful": Wrong(
        lambda h, n: _harm_indexed(
            [list(itertools.accumulate(f, lambda a, b: a or b)) for f in h], n
        ),
        "a response that was harmful and no longer is does not count",
    ),
    "once harmless": Wrong(
        lambda h, n: _harm_indexed(
            [list(itertools.accumulate(f, lambda a, b: a and b)) for f in h], n
        ),
        "a revision can make a response harmful again: look at each round by itself",
    ),
}


def _check_harm(answer: Any, rng: random.Random) -> Iterator[Part]:
    rounds = rng.randint(3, 4)
    # Half of the whole lists begin with harm and two in three of the short ones; at least two turn
    # harmful in the first round, and one ends there: so no two answers agree by chance.
    whole = [
        [index % 2 == 0, *(rng.random() < 0.5 for _ in range(rounds))]
        for index in range(rng.choice((5, 7, 9)))
    ]
    turns = [[(k + start) % 2 == 0 for k in range(rounds + 1)] for start in (0, 1, 1)]
    harmful = [[True] * 2, [True], [False] * 2, *turns, *whole]
    rng.shuffle(harmful)
    got, want = answer(harmful, rounds), _harm_array(harmful, rounds)
    if close(got, want):
        yield Part(3, True)
        return
    named = (w.says for w in HARM_WRONG.values() if close(got, w.answer(harmful, rounds), 1e-9))
    yield Part(3, False, next(named, "one share for each round, the first responses included"))


EXERCISES = [
    Exercise(
        name="improve",
        chapter="08_constitutional_ai",
        title="Rounds of critique and revision",
        points=3,
        difficulty=2,
        minutes=10,
        hint="in each round: draw a principle, criticise, revise; the revision is the new response",
        check=_check_improve,
        solution=improve,
        other_right=[_improve_recursive, _improve_accumulated],
        wrong=IMPROVE_WRONG,
    ),
    Exercise(
        name="harm_by_round",
        chapter="08_constitutional_ai",
        title="Harm before and after each round",
        points=3,
        difficulty=2,
        minutes=10,
        hint="make all lists equally long first: the last flag stands for what did not come",
        check=_check_harm,
        solution=harm_by_round,
        other_right=[_harm_indexed, _harm_array],
        wrong=HARM_WRONG,
    ),
    Exercise(
        name="revision_pairs",
        chapter="08_constitutional_ai",
        title="Revisions as preference pairs",
        points=2,
        difficulty=1,
        minutes=6,
        hint="compare the last response with the first; an error or no change makes no pair",
        check=_check_pairs,
        solution=revision_pairs,
        other_right=[_pairs_looped, _pairs_filtered],
        wrong=PAIRS_WRONG,
    ),
]
