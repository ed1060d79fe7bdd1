"""Exercises of chapter 12: the gate's decision, thumbs as training rows, KTO's weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close
from course_utils.exercises._judge import judge

Z = 1.96

# --- gate_decision


def gate_decision(
    in_service: list[int], candidate: list[int], margin: float
) -> tuple[float, float, bool]:
    """(low, high, passes) from one answer per prompt, 1 where a model gave in.

    Agresti & Min 2005 (Statist. Med. 24): half an answer is added for each way a pair can go.
    """
    worse = sum(new > old for old, new in zip(in_service, candidate, strict=True))
    better = sum(new < old for old, new in zip(in_service, candidate, strict=True))
    total = len(in_service) + 2
    middle = (worse - better) / total
    variance = (worse + better + 1) / total - middle**2
    reach = Z * (variance / total) ** 0.5
    return middle - reach, middle + reach, middle + reach < margin


def _gate_numpy(in_service: Any, candidate: Any, margin: float) -> Any:
    import numpy as np

    gaps = np.array(candidate) - np.array(in_service)
    gaps = np.append(gaps, [0.5**0.5, -(0.5**0.5)])  # half a pair each: squares add up to 1
    reach = Z * gaps.std() / len(gaps) ** 0.5
    low, high = gaps.mean() - reach, gaps.mean() + reach
    return float(low), float(high), bool(high < margin)


def _gate_counted(in_service: Any, candidate: Any, margin: float) -> Any:
    pairs = list(zip(in_service, candidate, strict=True))
    c, b, n = pairs.count((0, 1)) + 0.5, pairs.count((1, 0)) + 0.5, len(pairs) + 2
    half = Z * ((c + b) - (c - b) ** 2 / n) ** 0.5 / n
    return (c - b) / n - half, (c - b) / n + half, margin > (c - b) / n + half


def _gate(
    old: Any,
    new: Any,
    margin: float,
    *,
    added: int = 2,
    z: float = Z,
    square: bool = True,
    of_mean: bool = True,
    decide: Callable[[float, float, float], bool] | None = None,
) -> tuple[float, float, bool]:
    """The decision with chosen mistakes."""
    worse = sum(b > a for a, b in zip(old, new, strict=True))
    better = sum(b < a for a, b in zip(old, new, strict=True))
    total = len(old) + added
    middle = (worse - better) / total
    variance = (worse + better + added / 2) / total - (middle**2 if square else 0)
    reach = z * (variance / (total if of_mean else 1)) ** 0.5
    low, high = middle - reach, middle + reach
    return low, high, decide(low, middle, high) if decide else high < margin


def _gate_unpaired(old: Any, new: Any, margin: float) -> tuple[float, float, bool]:
    shares = [(sum(side) + 1) / (len(side) + 2) for side in (old, new)]
    reach = Z * sum(p * (1 - p) / (len(old) + 2) for p in shares) ** 0.5
    middle = shares[1] - shares[0]
    return middle - reach, middle + reach, middle + reach < margin


GATE_WRONG = {
    "sides swapped": Wrong(
        lambda a, b, m: _gate(b, a, m),
        "the direction: count the prompts where the candidate gave in and the other did not",
    ),
    "nothing added": Wrong(
        lambda a, b, m: _gate(a, b, m, added=0),
        "the half answers are missing: n + 2 pairs, and one more that differs",
    ),
    "unpaired": Wrong(
        _gate_unpaired, "these are pairs: only prompts on which the two differ say anything"
    ),
    "no root of n": Wrong(
        lambda a, b, m: _gate(a, b, m, of_mean=False),
        "the standard error of a mean: divide the variance by n + 2 before the root",
    ),
    "no square": Wrong(
        lambda a, b, m: _gate(a, b, m, square=False),
        "the square of the mean is to be taken off the variance",
    ),
    "one-sided": Wrong(
        lambda a, b, m: _gate(a, b, m, z=1.645), "95% two-sided: 1.96 standard errors each way"
    ),
    "mean decides": Wrong(
        lambda a, b, m: _gate(a, b, m, decide=lambda low, mid, high: mid < m),
        "the mean alone does not decide: the whole interval has to lie below the margin",
    ),
    "low decides": Wrong(
        lambda a, b, m: _gate(a, b, m, decide=lambda low, mid, high: low < m),
        "you let through what might be within the margin; it has to be shown",
    ),
    "no margin": Wrong(
        lambda a, b, m: _gate(a, b, m, decide=lambda low, mid, high: high < 0),
        "the upper end is compared with the margin, not with 0",
    ),
    "both sides": Wrong(
        lambda a, b, m: _gate(a, b, m, decide=lambda low, mid, high: -m < low and high < m),
        "a candidate that is better by more than the margin passes, too",
    ),
}


def _pairs(rng: random.Random, worse: int, better: int) -> tuple[list[int], list[int]]:
    pairs = [(0, 1)] * worse + [(1, 0)] * better
    pairs += [(1, 1)] * rng.randint(3, 8) + [(0, 0)] * rng.randint(30, 60)
    rng.shuffle(pairs)
    return [old for old, _ in pairs], [new for _, new in pairs]


def _check_gate(answer: Any, rng: random.Random) -> Iterator[Part]:
    for worse, better, at in (
        (rng.randint(1, 3), rng.randint(20, 25), "far above"),
        (rng.randint(4, 6), rng.randint(6, 8), "above"),
        (rng.randint(20, 25), rng.randint(1, 3), "above low"),
        (rng.randint(8, 10), rng.randint(3, 5), "above mean"),
    ):
        old, new = _pairs(rng, worse, better)
        low, high, _ = gate_decision(old, new, 1.0)
        middle = (low + high) / 2
        margin = {
            "far above": 0.05,
            "above": high + 0.02,
            "above low": (low + middle) / 2,
            "above mean": (middle + high) / 2,
        }[at]
        given = old, new, margin
        yield judge(
            0.75,
            answer(*given),
            gate_decision(*given),
            GATE_WRONG,
            given,
            "a tuple of low, high and passes; compare with the formula, term by term",
        )


# --- thumbs_to_rows

Thumb = dict[str, Any]


def thumbs_to_rows(log: list[Thumb]) -> list[dict[str, Any]]:
    """KTO's rows from a log of thumbs: each user's last one counts, one row per answer.

    Answers on which users disagree are left out, as are thumbs that were taken back.
    """
    last: dict[tuple[str, str, str], str | None] = {}
    for event in log:
        last[event["prompt"], event["response"], event["user"]] = event["thumb"]
    thumbs: dict[tuple[str, str], set[str | None]] = {}
    for (prompt, response, _), thumb in last.items():
        found = thumbs.setdefault((prompt, response), set())
        if thumb is not None:
            found.add(thumb)
    return [
        {"prompt": prompt, "completion": response, "label": said == {"up"}}
        for (prompt, response), said in thumbs.items()
        if len(said) == 1
    ]


def _rows_searched(log: list[Thumb]) -> list[dict[str, Any]]:
    """Answer by answer, looking through the whole log each time."""
    rows: list[dict[str, Any]] = []
    seen = []
    for event in log:
        answer = event["prompt"], event["response"]
        if answer in seen:
            continue
        seen.append(answer)
        about = [e for e in log if (e["prompt"], e["response"]) == answer]
        users = {e["user"]: e["thumb"] for e in about}  # a later one replaces an earlier one
        said = [thumb for thumb in users.values() if thumb]
        if said and len(set(said)) == 1:
            rows.append(dict(prompt=answer[0], completion=answer[1], label=said[0] == "up"))
    return rows


def _rows_backwards(log: list[Thumb]) -> list[dict[str, Any]]:
    """From the end: the first one met is the last one given."""
    met = set()
    votes: dict[tuple[str, str], list[str]] = {(e["prompt"], e["response"]): [] for e in log}
    for event in reversed(log):
        key = event["user"], event["prompt"], event["response"]
        if key not in met and event["thumb"] is not None:
            votes[key[1:]].append(event["thumb"])
        met.add(key)
    return [
        {"label": all(v == "up" for v in said), "prompt": p, "completion": c}
        for (p, c), said in votes.items()
        if said and (said.count("up") in (0, len(said)))
    ]


def _rows(
    log: list[Thumb],
    *,
    key: Callable[[Thumb], Any] = lambda e: (e["prompt"], e["response"], e["user"]),
    answer: Callable[[Thumb], Any] = lambda e: (e["prompt"], e["response"]),
    first: bool = False,
    none_is: str | None = None,
    agree: Callable[[list[str]], bool | None] = lambda said: (
        said[0] == "up" if len(set(said)) == 1 else None
    ),
) -> list[dict[str, Any]]:
    """Rows with chosen mistakes."""
    last: dict[Any, Thumb] = {}
    for event in log:
        if not first or key(event) not in last:
            last[key(event)] = event
    groups: dict[Any, list[Thumb]] = {}
    for event in last.values():
        groups.setdefault(answer(event), []).append(event)
    rows = []
    for events in groups.values():
        said = [thumb for e in events if (thumb := e["thumb"] or none_is)]
        label = agree(said) if said else None
        if label is not None:
            e = events[0]
            rows.append({"prompt": e["prompt"], "completion": e["response"], "label": label})
    return rows


ROWS_WRONG = {
    "first thumb counts": Wrong(
        lambda log: _rows(log, first=True), "the last thumb of a user counts, not the first"
    ),
    "taken back is down": Wrong(
        lambda log: _rows(log, none_is="down"),
        "None means taken back: no thumb at all, not a thumb down",
    ),
    "taken back is skipped over": Wrong(
        lambda log: _rows([e for e in log if e["thumb"] is not None]),
        "a thumb that was taken back does not count: do not drop None before looking for the last",
    ),
    "users mixed up": Wrong(
        lambda log: _rows(log, key=lambda e: (e["prompt"], e["response"])),
        "one user's last thumb does not replace another user's",
    ),
    "one row per prompt": Wrong(
        lambda log: _rows(
            log, key=lambda e: (e["prompt"], e["user"]), answer=lambda e: e["prompt"]
        ),
        "a prompt may have several answers, each with its own thumbs",
    ),
    "one row per user": Wrong(
        lambda log: _rows(log, answer=lambda e: (e["prompt"], e["response"], e["user"])),
        "one row per answer, however many users liked it",
    ),
    "one up is enough": Wrong(
        lambda log: _rows(log, agree=lambda said: "up" in said),
        "leave out an answer that one user likes and another does not",
    ),
    "label as text": Wrong(
        lambda log: [
            {**row, "label": "up" if row["label"] else "down"} for row in thumbs_to_rows(log)
        ],
        "label is True or False, not the thumb's name",
    ),
    "every event": Wrong(
        lambda log: [
            {"prompt": e["prompt"], "completion": e["response"], "label": e["thumb"] == "up"}
            for e in log
        ],
        "not every event is a row: thumbs are changed, taken back and repeated",
    ),
}


def _draw_log(rng: random.Random) -> list[Thumb]:
    """Every case occurs once; other thumbs stand between."""

    def event(user: str, prompt: str, response: str, thumb: str | None) -> Thumb:
        return {"user": user, "prompt": prompt, "response": response, "thumb": thumb}

    a, b, c = rng.sample(["ana", "bo", "cy", "dee"], 3)
    stories: list[list[tuple[str, str | None]]] = [
        [(a, "up")],
        [(b, "down")],
        [(a, "down"), (a, "up")],  # a changed mind
        [(b, "up"), (b, "down")],
        [(a, "up"), (a, None)],  # taken back
        [(a, "up"), (b, "up")],  # two agree
        [(c, "up"), (b, "down")],  # two do not
        [(a, "down"), (c, "up"), (a, "up")],  # they do in the end
        [(a, "up"), (b, "down"), (b, None)],  # one takes it back
        [(b, "down"), (b, None), (c, "down")],
    ]
    rng.shuffle(stories)
    queues = []
    for number, story in enumerate(stories):
        prompt = f"question {number // 2}?"  # two answers to each prompt
        queues.append([event(user, prompt, f"answer {number}", t) for user, t in story])
    log = []
    while any(queues):
        queue = rng.choice([q for q in queues if q])
        log.append(queue.pop(0))
    return log


def _check_rows(answer: Any, rng: random.Random) -> Iterator[Part]:
    log = _draw_log(rng)
    got, want = answer([dict(e) for e in log]), thumbs_to_rows(log)
    if _same_rows(got, want):
        yield Part(3, True)
        return
    named = (w.says for w in ROWS_WRONG.values() if _same_rows(got, w.answer(log)))
    yield Part(3, False, next(named, "a list of {'prompt', 'completion', 'label'}, one per answer"))


def _same_rows(got: Any, want: list[dict[str, Any]]) -> bool:
    """In any order."""
    try:
        return sorted(map(_ordered, got)) == sorted(map(_ordered, want))
    except (TypeError, AttributeError, ValueError):
        return False


def _ordered(row: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((name, repr(value)) for name, value in row.items())


# --- kto_weights


def kto_weights(ups: int, downs: int) -> tuple[float, float]:
    """(desirable, undesirable) weights that bring weighted ups to downs between 1:1 and 4:3.

    Ethayarajh et al. 2024 (arXiv 2402.01306). The scarcer kind is raised, no more than needed.
    """
    if ups < downs:
        return downs / ups, 1.0
    if ups > 4 / 3 * downs:
        return 1.0, 3 * ups / (4 * downs)
    return 1.0, 1.0


def _weights_clamped(ups: int, downs: int) -> Any:
    ratio = ups / downs
    wanted = min(max(ratio, 1.0), 4 / 3)
    return max(1.0, wanted / ratio), max(1.0, ratio / wanted)


def _weights_listed(ups: int, downs: int) -> Any:
    import numpy as np

    weights = np.ones(2)
    if not 1 <= ups / downs <= 4 / 3:
        target = 1.0 if ups < downs else 4 / 3
        weights[0 if ups < downs else 1] = (
            target * downs / ups if ups < downs else ups / downs / target
        )
    return weights


WEIGHTS_WRONG = {
    "swapped": Wrong(
        lambda u, d: kto_weights(u, d)[::-1],
        "desirable comes first; the scarcer kind gets the larger weight",
    ),
    "always 1 to 1": Wrong(
        lambda u, d: (max(1.0, d / u), max(1.0, u / d)),
        "no more than needed: with many ups, 4 to 3 will do, and from 1:1 to 4:3 nothing changes",
    ),
    "always 4 to 3": Wrong(
        lambda u, d: (max(1.0, 4 * d / (3 * u)), max(1.0, 3 * u / (4 * d))),
        "no more than needed: with many downs the ups have to weigh as much, not 4/3 as much",
    ),
    "frequent kind lowered": Wrong(
        lambda u, d: (min(1.0, 4 * d / (3 * u)), min(1.0, u / d)),
        "raise the scarcer kind instead of lowering the other: no weight is below 1",
    ),
    "3 to 4": Wrong(
        lambda u, d: (
            (3 * d / (4 * u), 1.0) if u < 0.75 * d else (1.0, max(1.0, u / d)) if u > d else (1, 1)
        ),
        "the range is 1:1 to 4:3 of ups to downs, not 3:4 to 1:1",
    ),
    "shares": Wrong(
        lambda u, d: (2 * d / (u + d), 2 * u / (u + d)),
        "one of the two weights is 1",
    ),
    "nothing": Wrong(lambda u, d: (1.0, 1.0), "these counts are unequal: one weight has to change"),
}


def _check_weights(answer: Any, rng: random.Random) -> Iterator[Part]:
    downs = 12 * rng.randint(5, 20)
    few, inside, many = (
        round(downs * rng.uniform(*share)) for share in ((0.15, 0.35), (1.1, 1.25), (3.0, 6.0))
    )
    for counts in ((few, downs), (inside, downs), (many, downs)):
        got, want = answer(*counts), kto_weights(*counts)
        if close(got, want):
            yield Part(1, True)
            continue
        wrong = (w.says for w in WEIGHTS_WRONG.values() if close(got, w.answer(*counts), 1e-6))
        yield Part(1, False, next(wrong, f"wrong for {counts[0]} ups and {counts[1]} downs"))


EXERCISES = [
    Exercise(
        name="gate_decision",
        chapter="12_deploy",
        title="The gate's decision",
        points=3,
        difficulty=3,
        minutes=12,
        hint="count the prompts where only the candidate gave in, and where only the other did",
        check=_check_gate,
        solution=gate_decision,
        other_right=[_gate_numpy, _gate_counted],
        wrong=GATE_WRONG,
    ),
    Exercise(
        name="thumbs_to_rows",
        chapter="12_deploy",
        title="From thumbs to training rows",
        points=3,
        difficulty=2,
        minutes=10,
        hint="first a dictionary with a key for user, prompt and response: the last thumb replaces "
        "earlier ones; then group by prompt and response",
        check=_check_rows,
        solution=thumbs_to_rows,
        other_right=[_rows_searched, _rows_backwards],
        wrong=ROWS_WRONG,
    ),
    Exercise(
        name="kto_weights",
        chapter="12_deploy",
        title="KTO's weights",
        points=3,
        difficulty=2,
        minutes=6,
        hint="three cases: fewer ups than downs, more than 4/3 as many, and in between",
        check=_check_weights,
        solution=kto_weights,
        other_right=[_weights_clamped, _weights_listed],
        wrong=WEIGHTS_WRONG,
    ),
]
