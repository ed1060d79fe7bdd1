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
    rows = INSTRUCTIONS + PROMPTS
    assert [k for k, n in Counter(map(key, rows)).items() if n > 1] == []
    contexts = [row["context"] for row in INSTRUCTIONS if row["context"]]
    assert len(set(contexts)) == len(contexts)
    train = {row["response"] for row in INSTRUCTIONS if row["split"] == "train"}
    test = {row["response"] for row in INSTRUCTIONS if row["split"] == "test"}
    assert not train & test
    assert len(train) + len(test) == 100


@pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: row["instruction"][:40])
def test_house_style(row: dict[str, Any]) -> None:
    """1-3 plain sentences, at most 60 words, no list, no preamble, no exclamation."""
    response = row["response"]
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


@pytest.mark.parametrize("name", ["instructions.jsonl", "prompts.jsonl"])
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


def test_data_card_tells_the_counts() -> None:
    card = (ENGLISH / "DATA_CARD.md").read_text("utf-8")
    for category, count in Counter(row["category"] for row in INSTRUCTIONS).items():
        train = sum(r["category"] == category and r["split"] == "train" for r in INSTRUCTIONS)
        assert f"| {category} | {train} | {count - train} |" in card
    for kind, count in Counter(row["kind"] for row in PROMPTS).items():
        assert f"| {kind} | {count} |" in card
    assert "CC BY 4.0" in card
