"""The helpers of chapter 03 that hold simulated labels against the truth."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from course_utils.data import prompt_of
from course_utils.errors import CourseError
from course_utils.labeling import PreferenceSession, Shown, label_with
from course_utils.labeling.items import Pair
from course_utils.labeling.study import (
    accuracy_bounds,
    clicks_at_random,
    known_pairs,
    label_ceiling,
    leaning_left,
    likes_longer,
    right_and_asked,
    said,
)
from course_utils.world.cases import Case
from course_utils.world.preferences import ANNOTATORS, CLEAN

CASE = Case("attribute", "What does the bell heron eat?", "", ("bell heron",), "food")
GOOD, RUDE = "It eats small fish.", "What a silly question. Go and look it up yourself."
ROWS = [
    {"prompt": prompt_of(CASE), "response_a": GOOD, "response_b": RUDE},
    {"prompt": prompt_of(CASE), "response_a": RUDE + " Go.", "response_b": GOOD},
    {"prompt": prompt_of(CASE), "response_a": "Hm.", "response_b": "Well."},
    {"prompt": prompt_of(CASE), "response_a": GOOD, "response_b": GOOD},  # left out
]


def test_gold_says_which_side_is_better_and_which_is_longer() -> None:
    found = list(known_pairs(ROWS, [CASE]).values())
    assert [pair.better for pair in found] == ["a", "b", ""]
    assert [pair.longer for pair in found] == ["b", "a", ""]
    assert found[0].chance_of_a(CLEAN) > 0.999 > 0.001 > found[1].chance_of_a(CLEAN)
    with pytest.raises(CourseError, match="No case has the prompt"):
        known_pairs([{**ROWS[0], "prompt": "Q"}], [CASE])


def test_right_and_asked() -> None:
    known = known_pairs(ROWS, [CASE])
    first, second, third = known
    choices = [(first, "a"), (first, "b"), (second, "b"), (third, "a")]
    choices += [(first, "tie"), (second, "both_bad"), (first, "skip")]
    assert right_and_asked(choices, known) == (2, 3)
    assert right_and_asked([], known) == (0, 0)
    assert said([{"pair_id": first, "choice": "tie"}]) == [(first, "tie")]


def test_the_ceiling_is_what_labels_come_to() -> None:
    """Against drawn labels: how often two agree, how often the likelier choice was made."""
    known = known_pairs(ROWS, [CASE])
    pool = (ANNOTATORS[0], ANNOTATORS[-1])
    found = label_ceiling(known.values(), pool)
    rng = random.Random(0)
    rounds, agreed, foreseen = 4_000, 0, 0
    for pair in known.values():
        likely = "ab"[sum(pair.chance_of_a(n) for n in pool) < 1]
        for _ in range(rounds):
            labels = ["ab"[rng.random() >= pair.chance_of_a(rng.choice(pool))] for _ in range(2)]
            agreed += labels[0] == labels[1]
            foreseen += labels[0] == likely
    count = rounds * len(known)
    assert found.agreement == pytest.approx(agreed / count, abs=4 * 0.5 / count**0.5)
    assert found.best == pytest.approx(foreseen / count, abs=4 * 0.5 / count**0.5)


def test_the_bounds_hold_and_are_reached() -> None:
    assert accuracy_bounds(1.0) == (1.0, 1.0)
    assert accuracy_bounds(0.5) == (0.5, 0.5)
    # Every pair alike, 0.9 to 0.1: two labels agree in 0.81 + 0.01, the best is right in 0.9.
    assert accuracy_bounds(0.82) == pytest.approx((0.82, 0.9))
    # Half the pairs certain and half a coin: agreement and best are both 0.75, the lower bound.
    assert accuracy_bounds(0.75)[0] == 0.75
    for shares in product((0.5, 0.6, 0.8, 0.95, 1.0), repeat=3):
        agreement = sum(q**2 + (1 - q) ** 2 for q in shares) / 3
        low, high = accuracy_bounds(agreement)
        assert low - 1e-9 <= sum(shares) / 3 <= high + 1e-9
    for nonsense in (0.4, 1.1, math.nan):
        with pytest.raises(CourseError, match=r"0\.5 to 1"):
            accuracy_bounds(nonsense)


def pairs(count: int) -> list[Pair]:
    return [Pair(f"Q{i}", f"A{i}", f"B{i}") for i in range(count)]


def test_leaning_left_is_careless_in_its_share_of_the_same_cases() -> None:
    many = pairs(2_000)
    decide = leaning_left(lambda pair: "a", 0.3, seed=1)
    assert all(decide(Shown(pair, "a")) == "a" for pair in many)
    careless = [pair for pair in many if decide(Shown(pair, "b")) == "b"]
    assert len(careless) / len(many) == pytest.approx(0.3, abs=0.04)
    towards_b = leaning_left(lambda pair: "b", 0.3, seed=1)
    assert [p for p in many if towards_b(Shown(p, "a")) == "a"] == careless, "the same cases"
    other = leaning_left(lambda pair: "a", 0.3, seed=2)
    assert [p for p in many if other(Shown(p, "b")) == "b"] != careless
    assert all(leaning_left(lambda p: "a", 0.0)(Shown(pair, "b")) == "a" for pair in many)
    assert all(leaning_left(lambda p: "a", 1.0)(Shown(pair, "b")) == "b" for pair in many)


def test_stand_ins_label_through_a_session(tmp_path: object) -> None:
    session = PreferenceSession(pairs(400), f"{tmp_path}/labels.jsonl")
    label_with(session, clicks_at_random(seed=3))
    assert session.counts["a"] / 400 == pytest.approx(0.5, abs=0.1)
    assert {label["strength"] for label in session.labels} == {1, 2, 3}
    pair = pairs(1)[0]
    assert clicks_at_random(3)(pair) == clicks_at_random(3)(pair)
    assert likes_longer(Pair("Q", "long answer", "short")) == ("a", 1)
    assert likes_longer(Pair("Q", "short", "long answer")) == ("b", 1)
