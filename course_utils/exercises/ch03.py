"""Exercises of chapter 03: balanced sides, Cohen's kappa, labels as training pairs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close
from course_utils.exercises._judge import judge, told_apart
from course_utils.labeling.session import balanced_sides

# --- balanced_sides


def _sides_shuffled(count: int, rng: random.Random) -> list[str]:
    sides = []
    for _ in range(0, count, 4):
        block = ["a", "b", "a", "b"]
        rng.shuffle(block)
        sides.extend(block)
    return sides[:count]


def _sides_drawn(count: int, rng: random.Random) -> list[str]:
    """Without replacement: what is left of a block decides the odds of the next item."""
    sides: list[str] = []
    for place in range(count):
        if place % 4 == 0:
            left = ["a", "a", "b", "b"]
        sides.append(left.pop(rng.randrange(len(left))))
    return sides


def _sides_listed(count: int, rng: random.Random) -> list[str]:
    blocks = ("aabb", "abab", "abba", "baab", "baba", "bbaa")
    return list("".join(rng.choice(blocks) for _ in range(count // 4 + 1))[:count])


def _one_block(count: int, rng: random.Random) -> list[str]:
    return (rng.sample("aabb", 4) * count)[:count]


def _shuffled_whole(count: int, rng: random.Random) -> list[str]:
    sides = (["a", "b"] * count)[:count]
    rng.shuffle(sides)
    return sides


def _blocks_of_two(count: int, rng: random.Random) -> list[str]:
    return [side for _ in range(count) for side in rng.sample("ab", 2)][:count]


SIDES_WRONG = {
    "a coin": Wrong(
        lambda n, rng: [rng.choice("ab") for _ in range(n)],
        "a coin is balanced in the long run only",
    ),
    "in turn": Wrong(lambda n, rng: list("ab" * n)[:n], "the same whatever rng says"),
    "one block": Wrong(_one_block, "shuffle each block anew"),
    "whole list": Wrong(_shuffled_whole, "balanced over all items, but not in every block"),
    "blocks of two": Wrong(_blocks_of_two, "blocks of four, not of two"),
    "always a": Wrong(lambda n, rng: ["a"] * n, "both answers must come to stand on the left"),
    "whole blocks": Wrong(
        lambda n, rng: balanced_sides(-(-n // 4) * 4, rng), "cut the last block off"
    ),
    "rest by coin": Wrong(
        lambda n, rng: balanced_sides(n - n % 4, rng) + [rng.choice("ab") for _ in range(n % 4)],
        "the rest is the beginning of a balanced block, in which no three sides are alike",
    ),
    "left and right": Wrong(
        lambda n, rng: [{"a": "left", "b": "right"}[s] for s in balanced_sides(n, rng)],
        "name the answer that stands on the left, 'a' or 'b'",
    ),
    "own dice": Wrong(
        lambda n, rng: balanced_sides(n, random.Random()), "draw from the rng you are given"
    ),
}


def _blocks(sides: Sequence[str]) -> list[str]:
    """The whole blocks of four, each as a string."""
    return ["".join(sides[i : i + 4]) for i in range(0, len(sides) - 3, 4)]


def _unbalanced(draws: Sequence[Sequence[str]]) -> str:
    """What is wrong with the balance of several draws; empty when nothing is."""
    if any(len(set(sides)) < 2 for sides in draws):
        return SIDES_WRONG["always a"].says
    if any(Counter(b) != {"a": 2, "b": 2} for sides in draws for b in _blocks(sides)):
        evenly = all(sides.count("a") == sides.count("b") for sides in draws)
        return SIDES_WRONG["whole list" if evenly else "a coin"].says
    if all(sides == draws[0] for sides in draws):
        return f"{SIDES_WRONG['in turn'].says}: an annotator can foresee the sides"
    return ""


def _predictable(blocks: Sequence[str]) -> str:
    """What is wrong with the order inside the blocks; empty when nothing is."""
    if not {"aabb", "bbaa"} & set(blocks):
        return f"{SIDES_WRONG['blocks of two'].says}: two neighbours may be alike"
    missing = sorted({"aabb", "abab", "abba", "baab", "baba", "bbaa"} - set(blocks))
    return (
        f"a block never comes out as {missing[0]}: all six orders are possible" if missing else ""
    )


def _check_sides(answer: Any, rng: random.Random) -> Iterator[Part]:
    odd, seed = 4 * rng.randint(2, 5) + rng.randint(1, 3), rng.random()
    short = list(answer(odd, random.Random(seed)))
    if not set(short) <= {"a", "b"}:
        yield Part(3, False, SIDES_WRONG["left and right"].says)
        return
    says = SIDES_WRONG["whole blocks"].says
    yield Part(1, len(short) == odd, f"{len(short)} sides for {odd} items: {says}")
    draws = [list(answer(80, random.Random(seed + i))) for i in range(8)]
    rests = {"".join(answer(7, random.Random(seed + i)))[-3:] for i in range(40)}
    problem = _unbalanced(draws)
    if not problem and rests & {"aaa", "bbb"}:
        problem = SIDES_WRONG["rest by coin"].says
    yield Part(1, not problem, problem)
    if any(len(set(_blocks(sides))) == 1 for sides in draws):
        problem = SIDES_WRONG["one block"].says
    else:
        problem = _predictable([block for sides in draws for block in _blocks(sides)])
    if not problem and draws[0] != list(answer(80, random.Random(seed))):
        problem = SIDES_WRONG["own dice"].says
    yield Part(1, not problem, problem)


# --- cohen_kappa


def _shares(choices: Sequence[str]) -> dict[str, float]:
    return {choice: count / len(choices) for choice, count in Counter(choices).items()}


def _observed(first: Sequence[str], second: Sequence[str]) -> float:
    return sum(x == y for x, y in zip(first, second, strict=True)) / len(first)


def _by_chance(first: Sequence[str], second: Sequence[str]) -> float:
    ours, theirs = _shares(first), _shares(second)
    return sum(share * theirs.get(choice, 0.0) for choice, share in ours.items())


def _beyond(agreed: float, chance: float) -> float:
    return (agreed - chance) / (1 - chance)


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Agreement of two annotators beyond chance (Cohen 1960). Their choices, item by item."""
    agreed = sum(x == y for x, y in zip(first, second, strict=True)) / len(first)
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[choice] * theirs[choice] for choice in ours) / len(first) ** 2
    return (agreed - chance) / (1 - chance)


def _kappa_matrix(first: Sequence[str], second: Sequence[str]) -> float:
    import numpy as np

    names = sorted({*first, *second})
    table = np.zeros((len(names), len(names)))
    for x, y in zip(first, second, strict=True):
        table[names.index(x), names.index(y)] += 1 / len(first)
    chance = table.sum(0) @ table.sum(1)
    return float((table.trace() - chance) / (1 - chance))


def _kappa_enumerated(first: Sequence[str], second: Sequence[str]) -> float:
    """Chance agreement as the share of equal choices among all combinations of items."""
    mixed = [x == y for x in first for y in second]
    return _beyond(_observed(first, second), sum(mixed) / len(mixed))


def _kappa_sklearn(first: Sequence[str], second: Sequence[str]) -> float:
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(list(first), list(second)))


def _kappa_even(first: Sequence[str], second: Sequence[str]) -> float:
    return _beyond(_observed(first, second), 1 / len({*first, *second}))


def _kappa_pooled(first: Sequence[str], second: Sequence[str]) -> float:
    shares = _shares([*first, *second])
    return _beyond(_observed(first, second), sum(share**2 for share in shares.values()))


def _kappa_without_ties(first: Sequence[str], second: Sequence[str]) -> float:
    kept = [(x, y) for x, y in zip(first, second, strict=True) if "tie" not in (x, y)]
    return cohen_kappa(*zip(*kept, strict=True))


def _kappa_only_a(first: Sequence[str], second: Sequence[str]) -> float:
    chance = _shares(first)["a"] * _shares(second)["a"]
    return _beyond(_observed(first, second), chance)


KAPPA_WRONG = {
    "agreement": Wrong(_observed, "that is the agreement itself: take off what chance gives"),
    "even chances": Wrong(
        _kappa_even, "chance is not one in three: annotators do not choose evenly"
    ),
    "pooled": Wrong(
        _kappa_pooled, "each annotator has shares of its own (pooled, it is Scott's pi)"
    ),
    "not divided": Wrong(
        lambda x, y: _observed(x, y) - _by_chance(x, y), "divide by 1 - chance, what was to be won"
    ),
    "divided by chance": Wrong(
        lambda x, y: (_observed(x, y) - _by_chance(x, y)) / _by_chance(x, y),
        "divide by what chance leaves open, not by chance itself",
    ),
    "chance alone": Wrong(_by_chance, "that is the agreement by chance: now compare"),
    "without ties": Wrong(_kappa_without_ties, "a tie is a choice, too: every item counts"),
    "only a": Wrong(_kappa_only_a, "sum over all choices: by chance they agree on b and tie, too"),
}


def _choices(rng: random.Random) -> tuple[list[str], list[str]]:
    """Two annotators' choices, with ties, and with unlike shares."""
    first = ["a"] * rng.randint(9, 12) + ["b"] * rng.randint(5, 7) + ["tie"] * 4
    second = [x if rng.random() < 0.6 else rng.choice(("b", "tie")) for x in first]
    second[:3], second[-1], second[-2] = ["b", "tie", "a"], "a", "tie"
    order = rng.sample(range(len(first)), len(first))
    return [first[i] for i in order], [second[i] for i in order]


def _check_kappa(answer: Any, rng: random.Random) -> Iterator[Part]:
    for _ in range(2):
        given = told_apart(lambda: _choices(rng), KAPPA_WRONG)
        want = _kappa_enumerated(*given)
        yield judge(1, answer(*given), want, KAPPA_WRONG, given, "compare with the formula")
    names = ["a", "b"] * rng.randint(3, 5)
    opposite = [{"a": "b", "b": "a"}[name] for name in names]
    says = "always disagreeing, with even shares, gives -1: do not cut it off at 0"
    yield Part(1, close(answer(names, opposite), -1.0), says)


# --- to_pairs

Label = dict[str, Any]


def to_pairs(labels: Sequence[Label]) -> list[dict[str, str]]:
    """Training rows of the labels that prefer an answer; attention checks are left out."""
    other = {"a": "b", "b": "a"}
    return [
        {
            "prompt": label["prompt"],
            "chosen": label[f"response_{label['choice']}"],
            "rejected": label[f"response_{other[label['choice']]}"],
        }
        for label in labels
        if label["choice"] in other and label["gold"] is None
    ]


def _row(label: Label, chosen: str) -> dict[str, str]:
    answers = {name: label[f"response_{name}"] for name in "ab"}
    picked = answers.pop(chosen)
    (left_over,) = answers.values()
    return {"prompt": label["prompt"], "chosen": picked, "rejected": left_over}


def _pairs_looped(labels: Sequence[Label]) -> list[dict[str, str]]:
    rows = []
    for label in labels:
        if label["gold"] is not None or label["choice"] in ("tie", "both_bad", "skip"):
            continue
        rows.append(_row(label, label["choice"]))
    return rows


def _pairs_filtered(labels: Sequence[Label]) -> list[dict[str, str]]:
    kept = (e for e in labels if not e["gold"] and e["choice"] in {"a", "b"})
    return [
        dict(
            zip(
                ("prompt", "chosen", "rejected"),
                (e["prompt"], *(e[f"response_{s}"] for s in sorted("ab", key=e["choice"].__ne__))),
                strict=True,
            )
        )
        for e in kept
    ]


def _pairs_by_side(labels: Sequence[Label]) -> list[dict[str, str]]:
    """Takes a for the answer on the left, whatever stood there."""
    kept = [e for e in labels if e["choice"] in ("a", "b") and e["gold"] is None]
    return [_row(e, e["left"] if e["choice"] == "a" else {"a": "b", "b": "a"}[e["left"]])
            for e in kept]  # fmt: skip


def _also(*choices: str) -> Any:
    """Takes labels with these choices for a preference of b."""

    def rows(labels: Sequence[Label]) -> list[dict[str, str]]:
        kept = [e for e in labels if e["choice"] in ("a", "b", *choices) and e["gold"] is None]
        return [_row(e, "a" if e["choice"] == "a" else "b") for e in kept]

    return rows


def _both_ways(labels: Sequence[Label]) -> list[dict[str, str]]:
    rows = []
    for label in labels:
        if label["gold"] is None and label["choice"] in ("a", "b", "tie"):
            rows += [_row(label, c) for c in ("a", "b") if label["choice"] in (c, "tie")]
    return rows


def _plain(labels: Sequence[Label]) -> list[Label]:
    return [e for e in labels if e["choice"] in ("a", "b") and e["gold"] is None]


PAIRS_WRONG = {
    "by side": Wrong(
        _pairs_by_side, "a choice names the answer, not the side: `left` does not enter"
    ),
    "ties": Wrong(_also("tie"), "a tie prefers neither answer: leave it out"),
    "both bad": Wrong(_also("both_bad"), "both bad prefers neither answer: leave it out"),
    "skips": Wrong(_also("skip"), "a skipped pair was not labelled: leave it out"),
    "everything": Wrong(
        _also("tie", "both_bad", "skip"), "keep the labels that prefer an answer, and only those"
    ),
    "tie both ways": Wrong(
        _both_ways, "a tie does not become two pairs that contradict each other"
    ),
    "swapped": Wrong(
        lambda labels: [_row(e, {"a": "b", "b": "a"}[e["choice"]]) for e in _plain(labels)],
        "the sides are swapped: the answer that was chosen is `chosen`",
    ),
    "always a": Wrong(
        lambda labels: [_row(e, "a") for e in _plain(labels)], "look at the choice: it may be b"
    ),
    "attention checks": Wrong(
        lambda labels: _pairs_looped([{**e, "gold": None} for e in labels]),
        "an attention check tests the annotator: it is not training data",
    ),
    "more columns": Wrong(
        lambda labels: [{**_row(e, e["choice"]), "left": e["left"]} for e in _plain(labels)],
        "three columns and no more: prompt, chosen, rejected",
    ),
}
KINDS = (
    ("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"), ("a", "b"), ("b", "a"),
    ("tie", "a"), ("both_bad", "b"), ("skip", "a"),
)  # fmt: skip


def _labels(rng: random.Random) -> list[Label]:
    """Labels of every kind, and two attention checks, in random order."""
    checks = (("a", "b", "a"), ("b", "a", "a"))
    kinds = [*((choice, left, None) for choice, left in KINDS), *checks]
    rng.shuffle(kinds)
    return [
        {
            "prompt": f"question {i}",
            "response_a": f"answer {rng.randint(100, 999)}",
            "response_b": f"reply {rng.randint(100, 999)}",
            "choice": choice,
            "left": left,
            "gold": gold,
        }
        for i, (choice, left, gold) in enumerate(kinds)
    ]


def _check_pairs(answer: Any, rng: random.Random) -> Iterator[Part]:
    labels = _labels(rng)
    for points, given in ((2, labels), (1, [e for e in labels if e["choice"] == "tie"])):
        got, want = [dict(row) for row in answer(given)], _pairs_looped(given)
        named = (w.says for w in PAIRS_WRONG.values() if w.answer(given) == got)
        otherwise = "expected one row per label that prefers an answer, in their order"
        yield Part(points, got == want, "" if got == want else next(named, otherwise))


EXERCISES = [
    Exercise(
        name="balanced_sides",
        chapter="03_preferences",
        title="Balanced sides",
        points=3,
        difficulty=2,
        minutes=8,
        hint="rng.sample(['a', 'a', 'b', 'b'], 4) is one shuffled block; add blocks, then cut",
        check=_check_sides,
        solution=balanced_sides,
        other_right=[_sides_shuffled, _sides_drawn, _sides_listed],
        wrong=SIDES_WRONG,
    ),
    Exercise(
        name="to_pairs",
        chapter="03_preferences",
        title="From labels to training pairs",
        points=3,
        difficulty=2,
        minutes=8,
        hint='label["response_" + label["choice"]] is the chosen text where the choice is a or b',
        check=_check_pairs,
        solution=to_pairs,
        other_right=[_pairs_looped, _pairs_filtered],
        wrong=PAIRS_WRONG,
    ),
    Exercise(
        name="cohen_kappa",
        chapter="03_preferences",
        title="Agreement beyond chance",
        points=3,
        difficulty=2,
        minutes=10,
        hint="observed: share of equal choices; by chance: for each choice the product of the "
        "two annotators' shares, summed",
        check=_check_kappa,
        solution=cohen_kappa,
        other_right=[_kappa_matrix, _kappa_enumerated, _kappa_sklearn],
        wrong=KAPPA_WRONG,
    ),
]
