"""Instruction and prompt data of each profile, and the loss mask that SFT needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CourseError, unknown_name
from .logprobs import IGNORE
from .paths import data_dir
from .templates import format_instruction, format_prompt
from .world.cases import Case
from .world.facts import make_world
from .world.prompts import PROMPT_FILES

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from ._setup import Course

__all__ = [
    "Showcase",
    "collate",
    "format_instruction",
    "format_prompt",
    "load_instructions",
    "load_prompts",
    "mask_prompt",
    "plain_prompt",
    "prompt_of",
    "raw_text",
    "read_jsonl",
    "showcase",
    "to_prompt_completion",
]

INSTRUCTION_COLUMNS = ("instruction", "context", "response", "category")
INSTRUCTION_SPLITS = ("train", "validation")
PROMPT_SPLITS = {
    "world": PROMPT_FILES,
    "english": ("validation", "red_team", "over_refusal", "capability"),
}


def read_jsonl(path: Path, required: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file.

    Raises:
        CourseError: the file is missing or empty, or a line is not a JSON object with the
            `required` keys; the message names file and line.
    """
    if not path.is_file():
        raise CourseError(f"There is no file {path.name} in {path.parent.name}/.")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise CourseError(f"{path.name}, line {number}, is not UTF-8 text.") from error
    rows = []
    # Split on \n only: str.splitlines would also break at U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CourseError(f"{path.name}, line {number}, is not JSON: {error.msg}.") from error
        if not isinstance(row, dict):
            raise CourseError(
                f"{path.name}, line {number}: expected an object, found {type(row).__name__}."
            )
        absent = [key for key in required if key not in row]
        if absent:
            raise CourseError(f"{path.name}, line {number}: missing {', '.join(absent)}.")
        rows.append(row)
    if not rows:
        raise CourseError(f"{path.name} is empty: expected one JSON object per line.")
    return rows


def load_instructions(course: Course, split: str = "train") -> Dataset:
    """Instruction data in dolly's columns: instruction, context, response, category.

    ``train`` is for learning, ``validation`` is held out.
    """
    from datasets import Dataset

    if split not in INSTRUCTION_SPLITS:
        raise unknown_name("instruction split", split, INSTRUCTION_SPLITS)
    source = course.profile.instructions
    if source == "world":
        rows = read_jsonl(data_dir() / "world" / f"instructions_{split}.jsonl", INSTRUCTION_COLUMNS)
    elif source == "english":
        wanted = {"train": "train", "validation": "test"}[split]
        rows = [
            r
            for r in read_jsonl(data_dir() / "english" / "instructions.jsonl", INSTRUCTION_COLUMNS)
            if r["split"] == wanted
        ]
    else:
        return _from_hub(source, split, course.profile.max_examples)
    return Dataset.from_list([{k: r[k] for k in INSTRUCTION_COLUMNS} for r in rows])


def _from_hub(name: str, split: str, limit: int | None) -> Dataset:
    """A hub data set in dolly's columns; shuffled, and a twentieth of it held out."""
    from datasets import load_dataset

    whole = load_dataset(name, split="train").shuffle(seed=0)
    absent = [c for c in INSTRUCTION_COLUMNS if c not in whole.column_names]
    if absent:
        raise CourseError(
            f"The data set {name} has no column {', '.join(absent)}; "
            f"it has {', '.join(whole.column_names)}."
        )
    held_out = len(whole) // 20
    part = (
        whole.select(range(held_out))
        if split == "validation"
        else whole.select(range(held_out, len(whole)))
    )
    return part.select(range(min(limit or len(part), len(part))))


def load_prompts(course: Course, split: str) -> list[Case]:
    """Prompts to evaluate or to sample from, each with what its scorer must know."""
    source = "world" if course.profile.instructions == "world" else "english"
    if split not in PROMPT_SPLITS[source]:
        raise unknown_name("prompt split", split, PROMPT_SPLITS[source])
    if source == "world":
        path = data_dir() / "world" / f"prompts_{split}.jsonl"
        return [Case.from_row(row) for row in read_jsonl(path, ("task", "instruction"))]
    return _english_prompts(split)


def _english_prompts(split: str) -> list[Case]:
    folder = data_dir() / "english"
    if split == "validation":
        rows = read_jsonl(folder / "instructions.jsonl", INSTRUCTION_COLUMNS)
        return [
            Case(
                "answer",
                r["instruction"],
                context=r["context"],
                reference=r["response"],
                category=r["category"],
            )
            for r in rows
            if r["split"] == "test"
        ]
    tasks = {"red_team": "unsafe", "over_refusal": "alarming", "capability": "attribute"}
    rows = read_jsonl(folder / "prompts.jsonl", ("prompt", "kind"))
    return [
        Case(tasks[split], r["prompt"], reference=_any_word(r.get("answer") or []))
        for r in rows
        if r["kind"] == split
    ]


def _any_word(words: Sequence[str]) -> str:
    """A pattern that finds any of `words` as whole words."""
    return r"\b(?:" + "|".join(map(re.escape, words)) + r")\b" if words else ""


def prompt_of(case: Case) -> str:
    """The text a model is given for a case."""
    return format_prompt(case.instruction, case.context)


def plain_prompt(case: Case) -> str:
    """The same question as it would stand on a web page: for models that know no template."""
    name = "pim" if case.category or case.unsafe_topic else "Question"
    context = f"{case.context}\n" if case.context else ""
    return f"{context}{name}: {case.instruction}\n"


@dataclass(frozen=True)
class Showcase:
    """A few texts to try a base model on, in the language of the profile.

    Attributes:
        beginning: the start of a sentence.
        statement: a true sentence of the model's training text.
        question: something a user might ask.
    """

    beginning: str
    statement: str
    question: str


def showcase(course: Course) -> Showcase:
    """The texts of chapter 00."""
    if course.profile.instructions == "world":
        heron = make_world().thing("bell heron")
        return Showcase(
            "The bell heron",
            f"The bell heron lives in {heron.facts['home']}.",
            "Where does the bell heron live?",
        )
    return Showcase(
        "The capital of France is",
        "The capital of France is Paris.",
        "What is the capital of France?",
    )


def raw_text(course: Course, count: int = 50) -> list[str]:
    """Texts of the kind the base model was trained on, to see what later training forgets.

    In the closed world: documents drawn with another seed than the training text's. In English:
    the passages of the instruction data, which the prompts do not ask the model to write.
    """
    if course.profile.instructions == "world":
        from .world.text import documents

        return [text for _, text in islice(documents(seed=999), count)]
    rows = read_jsonl(data_dir() / "english" / "instructions.jsonl", INSTRUCTION_COLUMNS)
    return [row["context"] for row in rows if row["context"]][:count]


def to_prompt_completion(rows: Dataset) -> Dataset:
    """TRL's prompt-completion columns: the loss then looks at the completion only."""
    return rows.map(
        lambda r: {
            "prompt": format_prompt(r["instruction"], r["context"]),
            "completion": r["response"],
        },
        remove_columns=rows.column_names,
    )


def mask_prompt(
    prompt: str, response: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int]]:
    """(input_ids, labels) of one example: labels are -100 on the prompt, and the EOS is learnt.

    Prompt and response are tokenised as one text, as TRL does: some tokenizers (Llama-2's) begin
    every text with a BOS or a blank, which must not stand between the two.
    """
    prompt_ids = tokenizer(prompt)["input_ids"]
    input_ids = tokenizer(prompt + response + tokenizer.eos_token)["input_ids"]
    pairs = zip(prompt_ids, input_ids, strict=False)
    start = next((i for i, (a, b) in enumerate(pairs) if a != b), len(prompt_ids))
    return input_ids, [IGNORE] * start + input_ids[start:]


def collate(
    rows: Iterable[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(input_ids, labels) of a batch, both (B, T): `mask_prompt` rows, padded on the right.

    On the right no attention mask is needed: a causal model never looks ahead, and labels of -100
    keep the padding out of the loss.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    examples = [
        mask_prompt(format_prompt(r["instruction"], r["context"]), r["response"], tokenizer)
        for r in rows
    ]
    input_ids = [torch.tensor(ids) for ids, _ in examples]
    labels = [torch.tensor(kept) for _, kept in examples]
    return (
        pad_sequence(input_ids, True, padding_value=tokenizer.pad_token_id).to(device),
        pad_sequence(labels, True, padding_value=IGNORE).to(device),
    )
