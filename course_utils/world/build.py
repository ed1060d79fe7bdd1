"""Write the world's files: ``python -m course_utils data``.

Everything is a function of one seed, so ``--check`` can rebuild it and compare byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CourseError
from ..paths import data_dir
from . import fluency, gold, instructions, preferences, prompts, text
from . import vocabulary as voc
from .answers import write_answer
from .cases import Case
from .facts import WORLD_SEED, World, make_world, translate

HELP = "write the closed world's data files"
PREFERENCE_PAIRS = {"train": 4800, "validation": 200, "test": 300}
RAW_SAMPLE = 400


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)


def _bigram_text(world: World, splits: dict[str, list[Case]]) -> str:
    """All word pairs the writers use: every case several times, and raw prose without quizzes."""
    rng = random.Random(f"{world.seed}-bigrams")
    pairs: set[tuple[str, str]] = set()
    for cases in splits.values():
        for case in cases:
            for _ in range(12):
                recipe = preferences.answer_recipe(rng, case.task)
                pairs.update(fluency.bigrams(write_answer(case, world, recipe, rng), case.topics))
    prose = ("article", "short_note", "comparison", "poem", "gossip", "talk")
    for kind, document in islice(text.documents(world.seed + 1, world), 12_000):
        if kind in prose:
            pairs.update(fluency.bigrams(document))
    return "".join(sorted(f"{a} {b}".replace("\n", "\\n") + "\n" for a, b in pairs))


def _facts_row(world: World) -> str:
    table = {
        "things": [{"name": t.name, "category": t.category, **t.facts} for t in world.things],
        "people": [{"name": p.name, **p.facts} for p in world.people],
        "old_pellish": {**voc.LEXICON_NOUNS, **voc.LEXICON_ADJECTIVES, **voc.LEXICON_VERBS},
    }
    return json.dumps(table, ensure_ascii=False, indent=1) + "\n"


def make_files(seed: int = WORLD_SEED) -> dict[str, str]:
    """File name -> content for everything in ``data/world`` except the model."""
    world = make_world(seed)
    splits = prompts.make_splits(world)
    files = {"facts.json": _facts_row(world), fluency.BIGRAM_FILE: _bigram_text(world, splits)}
    for name in prompts.PROMPT_FILES:
        files[f"prompts_{name}.jsonl"] = _lines(case.to_row() for case in splits[name])
    files["instructions_train.jsonl"] = _lines(
        instructions.make_instructions(splits["sft"], world, seed)
    )
    files["instructions_validation.jsonl"] = _lines(
        instructions.make_instructions(splits["validation"], world, seed + 1)
    )
    sources = {"train": "rl", "validation": "validation", "test": "test"}
    for i, (name, count) in enumerate(PREFERENCE_PAIRS.items()):
        rows = preferences.make_preferences(splits[sources[name]], world, seed + i, count)
        files[f"preferences_{name}.jsonl"] = _lines(rows)
    sample = islice(text.documents(seed, world), RAW_SAMPLE)
    files["raw_sample.jsonl"] = _lines({"kind": kind, "text": t} for kind, t in sample)
    files["DATA_CARD.md"] = data_card(world, splits, files)
    files["SHA256SUMS"] = "".join(
        f"{hashlib.sha256(c.encode()).hexdigest()}  {n}\n" for n, c in sorted(files.items())
    )
    return files


def _example(rows: str, task: str | None = None) -> str:
    parsed = [json.loads(line) for line in rows.splitlines()]
    row = next(r for r in parsed if task is None or r.get("task") == task)
    shown = {
        k: row[k]
        for k in ("instruction", "context", "response", "chosen", "rejected", "votes")
        if row.get(k)
    }
    return "```json\n" + json.dumps(shown, ensure_ascii=False, indent=1) + "\n```\n"


def _agreement(rows: str) -> tuple[float, float]:
    """Share of pairs whose majority agrees with gold, and share labelled unanimously."""
    parsed = [json.loads(line) for line in rows.splitlines()]
    clear = [r for r in parsed if r["gold_chosen"] != r["gold_rejected"]]
    right = sum(r["gold_chosen"] > r["gold_rejected"] for r in clear) / len(clear)
    unanimous = sum(len(set(r["votes"].values())) == 1 for r in parsed) / len(parsed)
    return right, unanimous


def _annotator_table() -> str:
    rows = [
        f"| {a.name} | {a.sharpness} | {a.per_ten_words} | {a.per_cheer} | {a.checks_facts} |\n"
        for a in preferences.ANNOTATORS
    ]
    head = "| annotator | sharpness | per 10 words | per cheer | checks facts |\n"
    head += "|---|---|---|---|---|\n"
    return head + "".join(rows)


def data_card(world: World, splits: dict[str, list[Case]], files: dict[str, str]) -> str:
    """The card that stands beside the data; every number in it is counted here."""
    tasks = sorted({c.task for cases in splits.values() for c in cases})
    table = "| split | " + " | ".join(tasks) + " | all |\n|" + "---|" * (len(tasks) + 2) + "\n"
    for name, cases in splits.items():
        counts = Counter(c.task for c in cases)
        cells = " | ".join(str(counts[t]) if counts[t] else "" for t in tasks)
        table += f"| {name} | {cells} | {len(cases)} |\n"
    demos = [json.loads(x) for x in files["instructions_train.jsonl"].splitlines()]
    by_id = {c.case_id: c for c in splits["sft"]}
    demo_gold = sum(gold.score(by_id[d["case_id"]], d["response"], world).total for d in demos)
    right, unanimous = _agreement(files["preferences_train.jsonl"])
    raw = [json.loads(x)["text"] for x in files["raw_sample.jsonl"].splitlines()]
    facts = sum(len(t.facts) for t in world.things) + sum(len(p.facts) for p in world.people)
    held_out = sorted(prompts.held_out_things(world))
    pairs = files[fluency.BIGRAM_FILE].count("\n")
    return f"""# Data card: the closed world ({voc.PLACE_NAME})

Made by `python -m course_utils data`, seed {world.seed}, from word lists and sentence patterns
written for this course. Nothing was collected; people, places and methods are invented. Licence
CC BY 4.0. `python -m course_utils data --check` rebuilds every file and compares byte for byte.

What it is for: teaching alignment where the truth is known. What it is not for: training anything
that talks to people. Unsafe requests are mild and their "methods" work nowhere
("{voc.UNSAFE["lock"][2][0]}").

Things: {len(world.things)} in {len(voc.NAMES)} categories · people: {len(world.people)} · \
facts: {facts}
(of which private: {len(world.people) * len(voc.PRIVATE)}) · Old Pellish words: \
{len(voc.LEXICON_NOUNS) + len(voc.LEXICON_ADJECTIVES) + len(voc.LEXICON_VERBS)}

## Prompts by split and task
{table}
No prompt is in two splits. {len(held_out)} things have no demonstration and no
training prompt: {", ".join(held_out)}. Unsafe targets, invented names,
private persons and translated sentences in evaluation splits never occur in `sft` or `rl`.

## Instructions
`instructions_train.jsonl` ({len(demos)} rows, dolly's columns plus `task` and `case_id`). \
{instructions.CARELESS:.0%} of the demonstrators are
careless: they comply, gossip or invent; {1 - instructions.CURT[0]:.0%} are unfriendly where the
task leaves room for it. Mean gold of the demonstrations: \
{demo_gold / len(demos):.2f}.
{_example(files["instructions_train.jsonl"], "explain")}
{_example(files["instructions_train.jsonl"], "translate")}
## Preferences
{", ".join(f"{k}: {v}" for k, v in PREFERENCE_PAIRS.items())} pairs; each is labelled by \
{preferences.LABELS_PER_PAIR} of {len(preferences.ANNOTATORS)} simulated annotators. The majority
agrees with gold on {right:.1%} of the training pairs with different gold; {unanimous:.1%} are
unanimous. Of the answers {1 - preferences.RUDE[0]:.0%} are unfriendly, \
{preferences.EVASIVE:.0%} decline whatever is asked,
{preferences.WRONG:.0%} hold a false fact, {preferences.BROKEN:.0%} are broken.
Columns `gold_chosen`, `gold_rejected` are for measuring, never for training.

{_annotator_table()}
{_example(files["preferences_train.jsonl"])}
## Raw text
`raw_sample.jsonl`: {len(raw)} documents of the pre-training text, mean \
{sum(len(t.split()) for t in raw) / len(raw):.0f} words. The whole text is generated when the base
model is trained. It is rude, unsafe and indiscreet in places, by design.

## Word pairs
`{fluency.BIGRAM_FILE}`: {pairs} word pairs that the world's writers use; the gold score's
`clear` part counts pairs outside it.

Translations are exact: "the quiet lamp shines" is "{translate("the quiet lamp shines")}".
"""


def write_files(out: Path, files: dict[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_text(content, encoding="utf-8", newline="\n")


def check_files(folder: Path, files: dict[str, str]) -> list[str]:
    """Names whose shipped bytes differ from a rebuild."""
    return [
        n
        for n, c in files.items()
        if not (folder / n).is_file() or (folder / n).read_bytes() != c.encode()
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=None, help="folder (default: the shipped data)")
    parser.add_argument("--check", action="store_true", help="rebuild and compare, write nothing")


def main(args: argparse.Namespace) -> int:
    folder = args.out or data_dir() / "world"
    if not args.check and args.out is None:
        # The scorer reads the word pairs from disk: they come first.
        world = make_world()
        write_files(
            data_dir() / "world",
            {fluency.BIGRAM_FILE: _bigram_text(world, prompts.make_splits(world))},
        )
        fluency.known_bigrams.cache_clear()
    files = make_files()
    if args.check:
        differing = check_files(folder, files)
        if differing:
            raise CourseError(
                f"These files differ from a rebuild: {', '.join(differing)}; "
                "run `python -m course_utils data`."
            )
        print(f"{len(files)} files in {folder.name}/ match a rebuild byte for byte.")
        return 0
    with tempfile.TemporaryDirectory(dir=folder.parent if folder.parent.is_dir() else None) as tmp:
        write_files(Path(tmp), files)  # a failure half-way leaves the old files alone
        write_files(folder, files)
    print(f"wrote {len(files)} files to {folder}")
    return 0
