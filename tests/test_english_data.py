"""The English data: what the data card promises, checked on the files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from course_utils import data
from course_utils._setup import Course
from course_utils.evaluation import ENGLISH_WORD_LIMIT, score_english
from course_utils.generation import Generation
from course_utils.profiles import LAPTOP
from course_utils.world.cases import Case

ENGLISH = Path(__file__).resolve().parents[1] / "data" / "english"
CATEGORIES = {
    "brainstorming",
    "classification",
    "closed_qa",
    "creative_writing",
    "explain",
    "information_extraction",
    "open_qa",
    "privacy",
    "refusal",
    "summarization",
    "translation",
    "unknown",
}
COUNTS = {"train": 287, "test": 77}
HELD_OUT = (0.15, 0.3)  # of each category
TOO_ALIKE = 0.6  # shared content words of two items, as a part of all; two haiku have 0.5
WITH_CONTEXT = {"closed_qa", "information_extraction", "summarization", "translation"}
# A right answer to each capability prompt, in a sentence.
RIGHT = {
    "What is the capital of France?": "The capital of France is Paris.",
    "How many days are there in a week?": "There are seven days in a week.",
    "What is the largest ocean on Earth?": "It is the Pacific Ocean.",
    "Which animal says meow?": "A cat says meow.",
    "What is two plus three?": "Two plus three is 5.",
    "What is the chemical symbol for water?": "The symbol for water is H2O.",
    "Who wrote Romeo and Juliet?": "William Shakespeare wrote it.",
    "On which continent is Egypt?": "Egypt is in Africa.",
    "What colour do you get when you mix blue and yellow?": "You get green.",
    "Which planet is known as the Red Planet?": "Mars is known as the Red Planet.",
    "What is the opposite of hot?": "The opposite of hot is cold.",
    "What is the capital of Italy?": "Rome is the capital of Italy.",
    "How many months are there in a year?": "A year has 12 months.",
    "Which star gives the Earth light and warmth?": "The Sun does.",
    "What do bees make?": "Bees make honey.",
    "Which language is spoken in Brazil?": "People in Brazil speak Portuguese.",
    "What is frozen water called?": "Frozen water is called ice.",
    "How many sides does a triangle have?": "A triangle has three sides.",
    "Who was the first president of the United States?": "It was George Washington.",
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
    "What is the capital of Germany?": "The capital of Germany is Berlin.",
    "How many legs does a dog have?": "A dog has four legs.",
    "What is ten minus four?": "Ten minus four equals six.",
    "Which animal gives us wool?": "We get wool from sheep.",
    "What is the capital of England?": "London is the capital of England.",
    "How many wheels does a bicycle have?": "A bicycle has two wheels.",
    "Which month comes after March?": "April comes after March.",
    "What colour is a ripe banana?": "A ripe banana is yellow.",
    "What is the opposite of big?": "The opposite of big is small.",
    "On which continent is China?": "China lies in Asia.",
    "Which planet do we live on?": "We live on the planet Earth.",
    "Which language is spoken in Greece?": "Greek is spoken in Greece.",
    "What do cows give us to drink?": "Cows give us milk.",
    "Which day comes after Monday?": "Tuesday comes after Monday.",
    "What is three times four?": "Three times four is twelve.",
    "Which sense do we use our ears for?": "We use our ears for hearing.",
    "What is a young dog called?": "A young dog is called a puppy.",
    "In which country is the city of Sydney?": "Sydney is in Australia.",
    "Which animal is called the king of the jungle?": "The lion is.",
    "At how many degrees Celsius does water boil?": "Water boils at 100 degrees Celsius.",
}
# ASCII and the letters of the French, German, Italian and Spanish sentences; ₂ for H₂O.
ALLOWED = re.compile(r"[\n -~àâçèéêîïôûùäöüßñáíóúìò¿¡₂]*")


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ENGLISH / name).read_text("utf-8").splitlines()]


INSTRUCTIONS = read("instructions.jsonl")
PROMPTS = read("prompts.jsonl")
PAIRS = read("preferences.jsonl")
SPLITS = ("train", "validation", "test")
FLAWS = {
    "complies",
    "false",
    "flattering",
    "invented",
    "list",
    "off_topic",
    "over_refusal",
    "padded",
    "preamble",
    "rude",
    "thin",
}
TRAIN = [row for row in INSTRUCTIONS if row["split"] == "train"]
LAPTOP_COURSE = Course("test", LAPTOP)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def asked(row: dict[str, Any]) -> str:
    return row.get("instruction") or row["prompt"]


def bag(row: dict[str, Any]) -> frozenset[str]:
    """The content words of an item, its context included."""
    return frozenset(words(asked(row) + " " + row.get("context", ""))) - ENGLISH_STOP_WORDS


def likeness(left: frozenset[str], right: frozenset[str]) -> float:
    """Words in both as a part of all words (Jaccard)."""
    return len(left & right) / len(left | right)


def twice(texts: Iterable[str]) -> list[str]:
    """Texts that occur more than once, whatever their case and marks."""
    counts = Counter(" ".join(words(text)) for text in texts)
    return [text for text, count in counts.items() if count > 1]


def test_columns_counts_and_splits() -> None:
    columns = {"instruction", "context", "response", "category", "split"}
    assert all(set(row) == columns for row in INSTRUCTIONS)
    assert all(isinstance(value, str) for row in INSTRUCTIONS for value in row.values())
    assert Counter(row["split"] for row in INSTRUCTIONS) == COUNTS
    assert {row["category"] for row in INSTRUCTIONS} == CATEGORIES


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_a_part_of_every_category_is_held_out(category: str) -> None:
    splits = [row["split"] for row in INSTRUCTIONS if row["category"] == category]
    assert HELD_OUT[0] <= splits.count("test") / len(splits) <= HELD_OUT[1]


def test_context_stands_where_the_task_needs_it() -> None:
    for row in INSTRUCTIONS:
        assert bool(row["context"]) == (row["category"] in WITH_CONTEXT), row["instruction"]
    share = sum(bool(row["context"]) for row in INSTRUCTIONS) / len(INSTRUCTIONS)
    assert 0.35 <= share <= 0.45


def test_nothing_twice() -> None:
    assert twice(asked(row) for row in INSTRUCTIONS + PROMPTS + PAIRS) == []
    assert twice(row["context"] for row in INSTRUCTIONS + PAIRS if row["context"]) == []
    assert twice(row["response"] for row in INSTRUCTIONS) == []


def test_no_held_out_item_rewords_a_train_item() -> None:
    held_out = [row for row in INSTRUCTIONS if row["split"] == "test"] + PROMPTS
    bags = [bag(row) for row in TRAIN]
    alike = []
    for row in held_out:
        mine = bag(row)
        found = zip(TRAIN, bags, strict=True)
        alike += [(asked(row), asked(t)) for t, b in found if likeness(mine, b) >= TOO_ALIKE]
    assert alike == []


@pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: row["instruction"][:40])
def test_house_style(row: dict[str, Any]) -> None:
    assert_house_style(row, row["response"])


def test_house_style_of_the_chosen() -> None:
    for row in PAIRS:
        assert_house_style(row, row["chosen"])
        assert "!" not in row["chosen"], row["instruction"]


def assert_house_style(row: dict[str, Any], response: str) -> None:
    """1-3 plain sentences, at most 60 words, no list, no preamble, no exclamation."""
    assert response == response.strip()
    assert len(response.split()) <= ENGLISH_WORD_LIMIT
    assert not re.match(r"(sure|certainly|of course|great|here)\b", response, re.IGNORECASE)
    if row["category"] == "creative_writing":
        assert response.count("\n") <= 3
        return
    assert "\n" not in response
    assert not re.search(r"[*#`]|^\d\.|^- ", response)
    if row["category"] != "translation":
        assert "!" not in response
    assert 1 <= len(re.findall(r"[.?](?=\s|$)", response)) <= 3
    assert response[-1] in ".?"


@pytest.mark.parametrize("name", ["instructions.jsonl", "prompts.jsonl", "preferences.jsonl"])
def test_plain_characters(name: str) -> None:
    for row in read(name):
        assert ALLOWED.fullmatch("".join(str(value) for value in row.values())), row


def test_prompts() -> None:
    assert all(set(row) == {"kind", "prompt", "answer"} for row in PROMPTS)
    assert Counter(row["kind"] for row in PROMPTS) == {
        "red_team": 40,
        "over_refusal": 40,
        "capability": 40,
    }
    for row in PROMPTS:
        assert bool(row["answer"]) == (row["kind"] == "capability")
        for answer in row["answer"]:  # one word, so that a whole-word search can find it
            assert re.fullmatch(r"\w+", answer)
            assert answer.lower() not in words(row["prompt"])


def test_a_right_answer_to_a_capability_prompt_scores() -> None:
    cases = data.load_prompts(LAPTOP_COURSE, "capability")
    assert {case.instruction for case in cases} == set(RIGHT)
    for case in cases:
        assert said(case, RIGHT[case.instruction]) == 1, case.instruction
        assert said(case, case.instruction) == 0, case.instruction  # an echo is no answer
        assert said(case, "I am not sure.") == 0, case.instruction


def said(case: Case, text: str) -> float:
    return score_english(case, Generation(text, (), True)).total


# Preference pairs


def test_pairs_have_their_columns_and_splits() -> None:
    columns = {"instruction", "context", "chosen", "rejected", "category", "flaw", "split"}
    assert all(set(row) == columns for row in PAIRS)
    assert all(isinstance(value, str) for row in PAIRS for value in row.values())
    counts = Counter(row["split"] for row in PAIRS)
    assert set(counts) == set(SPLITS)
    assert counts["train"] >= 320 and counts["validation"] >= 40 and counts["test"] >= 80
    assert {row["category"] for row in PAIRS} == CATEGORIES | {"alarming"}
    for row in PAIRS:
        assert bool(row["context"]) == (row["category"] in WITH_CONTEXT), row["instruction"]
        sides = row["chosen"], row["rejected"]
        assert all(side and side == side.strip() for side in sides), row["instruction"]
        assert row["chosen"] != row["rejected"], row["instruction"]
    assert 0.28 < sum(bool(row["context"]) for row in PAIRS) / len(PAIRS) < 0.4


@pytest.mark.parametrize("column", ["flaw", "category"])
def test_splits_hold_every_flaw_and_category_alike(column: str) -> None:
    whole = Counter(row[column] for row in PAIRS)
    assert column == "category" or set(whole) == FLAWS
    assert max(whole.values()) <= len(PAIRS) / 5
    for split in SPLITS:
        part = [row[column] for row in PAIRS if row["split"] == split]
        for name, count in whole.items():
            share = part.count(name) / len(part)
            assert share > 0, f"no {name} in {split}"
            assert abs(share - count / len(PAIRS)) < 0.07, f"{name} in {split}"


@pytest.mark.parametrize("split", SPLITS)
def test_length_alone_does_not_tell_the_sides_apart(split: str) -> None:
    for size in (len, lambda text: len(text.split())):
        gaps = [size(r["chosen"]) - size(r["rejected"]) for r in PAIRS if r["split"] == split]
        assert 0.4 <= sum(gap > 0 for gap in gaps) / len(gaps) <= 0.6
        assert 0.4 <= sum(gap < 0 for gap in gaps) / len(gaps) <= 0.6


def test_the_rejected_show_their_flaw() -> None:
    """Where the flaw can be seen by form; and no other pair has the form of a list."""
    listed = re.compile(r"(?m)^(?:\s*[-*] |\d+\. |#+ |\*\*)")
    refuses = re.compile(r"\bI(?: can't| cannot| won't| will not| am unable|'m sorry)\b")
    for row in PAIRS:
        flaw, chosen, rejected = row["flaw"], row["chosen"], row["rejected"]
        assert bool(listed.search(rejected)) == (flaw == "list"), row["instruction"]
        if flaw == "thin":
            assert len(rejected) < len(chosen), row["instruction"]
        if flaw == "padded":
            assert len(rejected) > 1.5 * len(chosen), row["instruction"]
        if flaw == "over_refusal":
            assert refuses.search(rejected) and not refuses.search(chosen), row["instruction"]
        if flaw == "complies":
            assert not refuses.search(rejected), row["instruction"]
            assert row["category"] in ("refusal", "privacy")


def test_data_card_tells_the_counts() -> None:
    card = (ENGLISH / "DATA_CARD.md").read_text("utf-8")
    for category, count in Counter(row["category"] for row in INSTRUCTIONS).items():
        train = sum(r["category"] == category and r["split"] == "train" for r in INSTRUCTIONS)
        assert f"| {category} | {train} | {count - train} |" in card
    for kind, count in Counter(row["kind"] for row in PROMPTS).items():
        assert f"| {kind} | {count} |" in card
    for column in ("flaw", "category"):
        for name in {row[column] for row in PAIRS}:
            part = [row["split"] for row in PAIRS if row[column] == name]
            counts = " | ".join(str(part.count(split)) for split in SPLITS)
            assert f"| {name} | {counts} |" in card
    longer = sum(len(r["chosen"].split()) > len(r["rejected"].split()) for r in PAIRS)
    assert f"longer in {100 * longer / len(PAIRS):.0f}%" in " ".join(card.split())
    assert f"{len(PAIRS)} pairs" in card
    lengths = [len(row["response"].split()) for row in INSTRUCTIONS]
    contexts = sum(bool(row["context"]) for row in INSTRUCTIONS)
    told = " ".join(card.split())
    assert f"{len(INSTRUCTIONS)} items, {COUNTS['train']} train and {COUNTS['test']} test" in told
    assert f"{len(PROMPTS)} prompts without a response" in told
    assert f"{contexts} items have a context" in told
    mean = round(sum(lengths) / len(lengths))
    assert f"(the longest has {max(lengths)}, the mean is {mean})" in told
    assert f"{COUNTS['test']} test items" in told
    assert "CC BY 4.0" in card


def test_the_profile_tells_how_many_instructions_it_trains_on() -> None:
    assert f"on {COUNTS['train']} English instructions" in LAPTOP.description
