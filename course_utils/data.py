"""Instructions, prompts and preference pairs of each profile, and the loss mask that SFT needs."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import CourseError, unknown_name
from .formats import INSTRUCTION_FORMATS, PREFERENCE_FORMATS, Format, short_name, understand
from .logprobs import IGNORE
from .paths import data_dir
from .readers import numbered_rows, open_source
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
    "load_preferences",
    "load_prompts",
    "mask_prompt",
    "plain_prompt",
    "practice_prompts",
    "prompt_of",
    "raw_text",
    "read_jsonl",
    "showcase",
    "to_prompt_completion",
]

T = TypeVar("T")
INSTRUCTION_COLUMNS = ("instruction", "context", "response", "category")
INSTRUCTION_SPLITS = ("train", "validation")
PREFERENCE_SPLITS = ("train", "validation", "test")
PREFERENCE_KEYS = (
    "case_id",
    "instruction",
    "context",
    "chosen",
    "rejected",
    "votes",
    "gold_chosen",
    "gold_rejected",
)
ENGLISH_PAIR_COLUMNS = (
    "instruction",
    "context",
    "chosen",
    "rejected",
    "category",
    "flaw",
    "split",
)
PREFERENCE_LABELS = ("votes", "clean")
GOLD_TIE = 0.5  # what differs by less counts as equally good
GOLD_CLEAR = 3.0  # a gold difference from which the clean margin is as large as it gets
PROMPT_SPLITS = {
    "world": PROMPT_FILES,
    "english": ("rl", "validation", "test", "red_team", "over_refusal", "capability"),
}


def read_jsonl(path: Path, required: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file.

    Raises:
        CourseError: the file is missing or empty, or a line is not a JSON object with the
            `required` keys; the message names file and line.
    """
    rows = numbered_rows(path)
    for where, row in rows:
        absent = [key for key in required if key not in row]
        if absent:
            raise CourseError(f"{path.name}, {where}: missing {', '.join(absent)}.")
    return [row for _, row in rows]


def load_instructions(course: Course | str | Path, split: str = "train") -> Dataset:
    """Instruction data in dolly's columns: instruction, context, response, category.

    Args:
        course: its profile says where the data come from. Or the source itself: the path of a
            file (dolly's JSON lines, Alpaca's JSON, prompts and completions; gzip or not) or of a
            folder, or a hub id. What was understood is printed.
        split: ``train`` is for learning, ``validation`` is held out.

    Raises:
        CourseError: an unknown split, or data that cannot be read; the message names file and
            line, or the columns found and the formats known.
    """
    from datasets import Dataset

    if split not in INSTRUCTION_SPLITS:
        raise unknown_name("instruction split", split, INSTRUCTION_SPLITS)
    source, limit = _source(course, "instructions")
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
        rows = _published(source, split, limit, INSTRUCTION_FORMATS, ("validation",))
    return Dataset.from_list([{k: r[k] for k in INSTRUCTION_COLUMNS} for r in rows])


def _source(course: Course | str | Path, kind: str) -> tuple[str | Path, int | None]:
    """(where data of this kind come from, how many rows to take of them)."""
    if isinstance(course, str | Path):
        return course, None
    return getattr(course.profile, kind), course.profile.max_examples


def _published(
    source: str | Path,
    split: str,
    limit: int | None,
    formats: Sequence[Format],
    held_out: Sequence[str],
) -> list[dict[str, Any]]:
    """The rows of a split of a file, folder or hub data set, shuffled; says what it understood.

    A twentieth of the training part makes each split in `held_out`, except for ``test`` where the
    data have a test part of their own. Rows that begin with the same question stay together, so
    that no held-out question is learnt.
    """
    parts = open_source(source)
    tested_apart = "test" in parts
    wanted = "test" if split == "test" and tested_apart else "train"
    found = understand(parts[wanted](), short_name(source), formats)
    print(found)
    groups: dict[str, list[dict[str, Any]]] = {}
    for opening, row in zip(found.openings, found.rows, strict=True):
        groups.setdefault(opening, []).append(row)
    questions = list(groups.values())
    random.Random(0).shuffle(questions)
    if wanted == "train":
        apart = [name for name in held_out if name != "test" or not tested_apart]
        questions = _part(questions, split, apart)
    if not questions:
        raise CourseError(
            f"{found.name} has {len(groups)} different questions, too few for a part {split}: "
            "add some."
        )
    return [row for question in questions for row in question][:limit]


def _part(questions: list[T], split: str, apart: Sequence[str]) -> list[T]:
    """Those of a split: a twentieth, at least one, for each of `apart`, the rest for ``train``."""
    size = max(1, len(questions) // 20)
    if split not in apart:
        return questions[len(apart) * size :]
    return questions[apart.index(split) * size :][:size]


def load_preferences(
    course: Course | str | Path, split: str = "train", labels: str = "votes"
) -> Dataset:
    """Preference pairs: prompt, chosen, rejected, margin, and what measuring needs.

    Args:
        course: its profile says where the pairs come from. Or the source itself: the path of a
            file (hh-rlhf's dialogues, Alpaca's JSON, TRL's columns as text or as chats; gzip or
            not) or of a folder, or a hub id. What was understood is printed. In dialogues all
            turns before the last answer are the prompt, see `templates.format_dialogue`.
        split: ``train`` is for learning, the others are held out.
        labels: ``votes`` takes the annotators' majority as it is. ``clean`` swaps sides where gold
            says so, and leaves out pairs whose gold differs by less than `GOLD_TIE` (the lengths
            of the two data sets say how many).

    Returns:
        Columns: ``prompt`` (the course's template); ``chosen``, ``rejected``; ``margin``, how
        clearly the one was preferred, from 0 to 1: the share of votes for `chosen` less the share
        against (1 for three of three, 1/3 for two of three: the small margins of Llama 2, Touvron
        et al. 2023, arXiv 2307.09288, table 27), and for clean labels the gold difference over
        `GOLD_CLEAR`, at most 1; ``votes``, the share of votes for `chosen`; ``case_id``; and, for
        measuring and never for training, ``gold_chosen`` and ``gold_rejected``. English pairs and
        those of files and from the hub have one vote each and no gold; only the English ones have
        a ``case_id``.

    Raises:
        CourseError: unknown split or labels, clean labels where nobody knows gold, or data that
            cannot be read; the message names file and line, or the columns and the formats known.
    """
    from datasets import Dataset

    if split not in PREFERENCE_SPLITS:
        raise unknown_name("preference split", split, PREFERENCE_SPLITS)
    if labels not in PREFERENCE_LABELS:
        raise unknown_name("preference labels", labels, PREFERENCE_LABELS)
    source, limit = _source(course, "preferences")
    if source == "world":
        rows = read_jsonl(data_dir() / "world" / f"preferences_{split}.jsonl", PREFERENCE_KEYS)
        pairs = [_voted_pair(row) for row in rows]
        if labels == "clean":
            pairs = [_clean_pair(pair) for pair in pairs if gold_gap(pair) >= GOLD_TIE]
        return Dataset.from_list(pairs)
    if labels == "clean":
        pairs_of = "the English pairs" if source == "english" else short_name(source)
        raise CourseError(
            f"Nobody knows gold for {pairs_of}: use labels='votes', or the profile 'tiny'."
        )
    if source == "english":
        return Dataset.from_list([_written_pair(row) for row in _english_pairs(split)])
    held_out = ("validation", "test")
    return Dataset.from_list(_published(source, split, limit, PREFERENCE_FORMATS, held_out))


def gold_gap(pair: Mapping[str, Any]) -> float:
    """How far apart the two sides are in gold; never negative."""
    return abs(pair["gold_chosen"] - pair["gold_rejected"])


def _voted_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    """A shipped row in the columns of `load_preferences`."""
    votes = sum(row["votes"].values()) / len(row["votes"])
    return {
        "prompt": format_prompt(row["instruction"], row["context"]),
        "chosen": row["chosen"],
        "rejected": row["rejected"],
        "margin": 2 * votes - 1,
        "votes": votes,
        "gold_chosen": row["gold_chosen"],
        "gold_rejected": row["gold_rejected"],
        "case_id": row["case_id"],
    }


def _english_pairs(split: str) -> list[dict[str, Any]]:
    path = data_dir() / "english" / "preferences.jsonl"
    return [row for row in read_jsonl(path, ENGLISH_PAIR_COLUMNS) if row["split"] == split]


def _written_pair(row: Mapping[str, str]) -> dict[str, Any]:
    """A pair that one author wrote, who is its only vote, in the columns of `load_preferences`."""
    return {
        "prompt": format_prompt(row["instruction"], row["context"]),
        "chosen": row["chosen"],
        "rejected": row["rejected"],
        "margin": 1.0,
        "votes": 1.0,
        "gold_chosen": None,
        "gold_rejected": None,
        "case_id": Case("answer", row["instruction"], context=row["context"]).case_id,
    }


def _clean_pair(pair: dict[str, Any]) -> dict[str, Any]:
    """The same pair with the side that gold prefers as `chosen`."""
    margin = min(1.0, gold_gap(pair) / GOLD_CLEAR)
    if pair["gold_chosen"] >= pair["gold_rejected"]:
        return {**pair, "margin": margin}
    return {
        **pair,
        "chosen": pair["rejected"],
        "rejected": pair["chosen"],
        "margin": margin,
        "votes": 1 - pair["votes"],
        "gold_chosen": pair["gold_rejected"],
        "gold_rejected": pair["gold_chosen"],
    }


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
    pairs = {"rl": "train", "test": "test"}
    if split in pairs:
        return [_answered(row, "chosen") for row in _english_pairs(pairs[split])]
    if split == "validation":
        rows = read_jsonl(folder / "instructions.jsonl", INSTRUCTION_COLUMNS)
        return [_answered(row, "response") for row in rows if row["split"] == "test"]
    tasks = {"red_team": "unsafe", "over_refusal": "alarming", "capability": "attribute"}
    rows = read_jsonl(folder / "prompts.jsonl", ("prompt", "kind"))
    return [
        Case(tasks[split], r["prompt"], reference=_any_word(r.get("answer") or []))
        for r in rows
        if r["kind"] == split
    ]


def _answered(row: Mapping[str, str], answer: str) -> Case:
    """A prompt with the column `answer` as its reference."""
    return Case(
        "answer",
        row["instruction"],
        context=row["context"],
        reference=row[answer],
        category=row["category"],
    )


def practice_prompts(course: Course) -> list[Case]:
    """What a policy samples from while it learns: the split ``rl``, or a hub set's instructions."""
    if course.profile.instructions in PROMPT_SPLITS:
        return load_prompts(course, "rl")
    return [_answered(row, "response") for row in load_instructions(course, "train")]


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
