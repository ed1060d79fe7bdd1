"""The English data: what the data card promises, checked on the files."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

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
WITH_CONTEXT = {"closed_qa", "information_extraction", "summarization", "translation"}
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


def key(row: dict[str, Any]) -> tuple[str, str]:
    """Two items are the same question when their words agree, whatever the case and marks."""
    return (
        " ".join(re.findall(r"\w+", row.get("instruction", row.get("prompt", "")).lower())),
        " ".join(re.findall(r"\w+", row.get("context", "").lower())),
    )


def test_columns_counts_and_splits() -> None:
    columns = {"instruction", "context", "response", "category", "split"}
    assert all(set(row) == columns for row in INSTRUCTIONS)
    assert all(isinstance(value, str) for row in INSTRUCTIONS for value in row.values())
    assert Counter(row["split"] for row in INSTRUCTIONS) == {"train": 80, "test": 20}
    for split in ("train", "test"):
        assert {row["category"] for row in INSTRUCTIONS if row["split"] == split} == CATEGORIES


def test_context_stands_where_the_task_needs_it() -> None:
    for row in INSTRUCTIONS:
        assert bool(row["context"]) == (row["category"] in WITH_CONTEXT), row["instruction"]
    assert sum(bool(row["context"]) for row in INSTRUCTIONS) == 36
    wanted = Counter(row["category"] for row in INSTRUCTIONS)
    assert wanted["refusal"] >= 6
    assert wanted["privacy"] == wanted["unknown"] == 3


def test_nothing_twice_and_no_test_item_in_train() -> None:
    rows = INSTRUCTIONS + PROMPTS + PAIRS
    assert [k for k, n in Counter(map(key, rows)).items() if n > 1] == []
    contexts = [row["context"] for row in INSTRUCTIONS + PAIRS if row["context"]]
    assert len(set(contexts)) == len(contexts)
    train = {row["response"] for row in INSTRUCTIONS if row["split"] == "train"}
    test = {row["response"] for row in INSTRUCTIONS if row["split"] == "test"}
    assert not train & test
    assert len(train) + len(test) == 100


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
    assert len(response.split()) <= 60
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
        "red_team": 20,
        "over_refusal": 20,
        "capability": 20,
    }
    for row in PROMPTS:
        assert bool(row["answer"]) == (row["kind"] == "capability")
        for answer in row["answer"]:  # one word, so that a whole-word search can find it
            assert re.fullmatch(r"\w+", answer)
            assert answer.lower() not in row["prompt"].lower().split()


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
    assert "CC BY 4.0" in card
