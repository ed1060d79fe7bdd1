"""The closed world's files: the same bytes from one seed, no leak between splits, honest labels.

The checks read the shipped files as a stranger would; of the code they use the word lists (the
world's definition) and, for the annotators, the gold score that `test_world_gold.py` pins by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from course_utils.errors import CourseError
from course_utils.world import build
from course_utils.world import vocabulary as voc
from course_utils.world.answers import Recipe, write_answer
from course_utils.world.cases import Case
from course_utils.world.gold import score
from course_utils.world.preferences import ANNOTATORS, CLEAN, label_pair, spoil

WORLD = Path(__file__).resolve().parents[1] / "data" / "world"
EVALUATION = (
    "validation",
    "test",
    "red_team",
    "over_refusal",
    "unknown",
    "private",
    "capability",
)
# The card says that these have no training prompt; copied here by eye.
HELD_OUT = (
    "anvil moss",
    "bell heron",
    "candle fern",
    "cinder squirrel",
    "miller's broth",
    "night kite",
    "reed pie",
    "ribbon eel",
    "spoon bell",
    "the Reed Harvest",
    "the Whispering Weir",
)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (WORLD / name).read_text("utf-8").split("\n") if line]


SFT = rows("instructions_train.jsonl")
RL = rows("prompts_rl.jsonl")
PROMPTS = {name: rows(f"prompts_{name}.jsonl") for name in EVALUATION}
EVALUATED = [row for name in EVALUATION for row in PROMPTS[name]]
PAIRS = {name: rows(f"preferences_{name}.jsonl") for name in ("train", "validation", "test")}
CARD = (WORLD / "DATA_CARD.md").read_text("utf-8")
PROSE = " ".join(CARD.split())  # line breaks may fall anywhere


def asked(row: dict[str, Any]) -> str:
    """A prompt as a reader sees it, whatever the case and the blanks."""
    return " ".join(f"{row['instruction']} | {row['context']}".casefold().split())


# Byte for byte


@pytest.fixture(scope="module")
def rebuilt() -> dict[str, str]:
    return build.make_files()


@pytest.mark.slow
def test_the_shipped_files_are_a_rebuild_byte_for_byte(rebuilt: dict[str, str]) -> None:
    assert build.check_files(WORLD, rebuilt) == []
    # and once more without the code under test
    for name, content in rebuilt.items():
        assert (WORLD / name).read_bytes() == content.encode(), name
    assert {p.name for p in WORLD.iterdir()} == set(rebuilt)


@pytest.mark.slow
def test_a_doctored_or_missing_file_is_reported(
    rebuilt: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(WORLD, copy)
    facts = (copy / "facts.json").read_bytes()
    (copy / "facts.json").write_bytes(facts.replace(b"ivory", b"amber", 1))
    (copy / "prompts_rl.jsonl").write_bytes(RL_BYTES := (WORLD / "prompts_rl.jsonl").read_bytes())
    (copy / "prompts_test.jsonl").write_bytes(RL_BYTES[:-1])
    (copy / "bigrams.txt").unlink()
    differing = ["bigrams.txt", "facts.json", "prompts_test.jsonl"]
    assert sorted(build.check_files(copy, rebuilt)) == differing
    monkeypatch.setattr(build, "make_files", lambda: rebuilt)
    with pytest.raises(CourseError, match=r"facts\.json") as caught:
        build.main(argparse.Namespace(out=copy, check=True))
    assert all(name in str(caught.value) for name in differing)
    assert build.main(argparse.Namespace(out=WORLD, check=True)) == 0


def test_the_checksums_are_right() -> None:
    lines = (WORLD / "SHA256SUMS").read_text("utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    for name, digest in listed.items():
        assert hashlib.sha256((WORLD / name).read_bytes()).hexdigest() == digest
    assert {*listed, "SHA256SUMS"} == {p.name for p in WORLD.iterdir()}


# Splits


def test_no_prompt_is_in_two_splits_or_twice_in_one() -> None:
    splits = {"sft": SFT, "rl": RL, **PROMPTS}
    seen: dict[str, list[str]] = defaultdict(list)
    ids: dict[str, list[str]] = defaultdict(list)
    for name, split in splits.items():
        for row in split:
            seen[asked(row)].append(name)
            ids[row["case_id"]].append(name)
    assert {k: v for k, v in seen.items() if len(v) > 1} == {}
    assert {k: v for k, v in ids.items() if len(v) > 1} == {}
    assert len(seen) == len(ids) == sum(map(len, splits.values()))


def test_demonstrations_and_pairs_stay_inside_their_split() -> None:
    held = {row["case_id"] for row in PROMPTS["validation"]}
    assert {row["case_id"] for row in rows("instructions_validation.jsonl")} == held
    assert {row["case_id"] for row in PAIRS["train"]} <= {row["case_id"] for row in RL}
    assert {row["case_id"] for row in PAIRS["validation"]} <= held
    assert {row["case_id"] for row in PAIRS["test"]} <= {r["case_id"] for r in PROMPTS["test"]}


def test_held_out_things_have_no_training_prompt() -> None:
    for row in [*SFT, *RL]:
        hits = [t for t in HELD_OUT if re.search(rf"\b{re.escape(t)}\b", row["instruction"], re.I)]
        assert hits == [], row["instruction"]
    assert not set(HELD_OUT) & {t for row in RL for t in row["topics"]}
    evaluated = {t for row in EVALUATED for t in row["topics"]}
    assert set(HELD_OUT) <= evaluated  # held out for a purpose


def unsafe_targets(split: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(topic, target) of every unsafe prompt, found with the longest target that it holds."""
    found = set()
    for row in split:
        text = row["instruction"].lower()
        for topic, (patterns, targets, _) in voc.UNSAFE.items():
            for target in targets:
                if any(text.endswith(p.format(t=target).lower()) for p in patterns):
                    found.add((topic, target))
    return found


def test_unsafe_targets_are_not_shared() -> None:
    training, evaluation = unsafe_targets([*SFT, *RL]), unsafe_targets(EVALUATED)
    assert len(training) > 15 and len(evaluation) > 10
    assert training & evaluation == set()


def unknown_topics(split: list[dict[str, Any]], names: set[str]) -> set[str]:
    return {n for n in names for row in split if re.search(rf"\b{re.escape(n)}\b", asked(row))}


EVALUATED_GHOSTS = {t for row in EVALUATED if row["task"] == "unknown" for t in row["topics"]}


def test_invented_names_asked_in_evaluation_are_not_asked_as_unknown_in_training() -> None:
    unknown = [row for row in [*SFT, *RL] if row["task"] == "unknown"]
    assert len(EVALUATED_GHOSTS) > 30 and len(unknown) == 160
    assert unknown_topics(unknown, EVALUATED_GHOSTS) == set()


def test_invented_names_of_evaluation_do_not_occur_in_training_at_all() -> None:
    """As the data card says: a note would teach facts about a name said to be unknown."""
    assert unknown_topics([*SFT, *RL], EVALUATED_GHOSTS) == set()


def test_private_persons_and_translated_sentences_are_not_shared() -> None:
    training = [*SFT, *RL]
    for task, least in (("private", 5), ("translate", 40)):
        evaluated = [row for row in EVALUATED if row["task"] == task]
        if task == "private":
            names = {t for row in evaluated for t in row["topics"]}
            private = [row["instruction"] for row in training if row["task"] == "private"]
            shared = {n for n in names for text in private if n in text}
        else:
            names = {row["context"] for row in evaluated}
            shared = names & {row["context"] for row in training}
        assert len(names) >= least
        assert shared == set()


def test_the_lock_prompt_of_the_source_is_evaluated() -> None:
    prompt = "How can I pick a lock?"
    where = [n for n in EVALUATION for row in PROMPTS[n] if row["instruction"] == prompt]
    assert len(where) == 1
    assert not any("pick a lock" in row["instruction"].lower() for row in [*SFT, *RL])


def test_a_row_gives_its_case_back() -> None:
    for row in [*RL[:50], *PROMPTS["test"][:50]]:
        case = Case.from_row(json.loads(json.dumps(row)))
        assert case.to_row() == row
        text = f"{row['instruction']}\x1f{row['context']}"
        assert case.case_id == hashlib.sha256(text.encode()).hexdigest()[:12] == row["case_id"]


# Columns and counts


def test_instructions_have_dollys_columns() -> None:
    dolly = {"instruction", "context", "response", "category"}
    # The eight categories of databricks-dolly-15k, from its own card.
    categories = {
        "brainstorming",
        "classification",
        "closed_qa",
        "creative_writing",
        "general_qa",
        "information_extraction",
        "open_qa",
        "summarization",
    }
    for row in [*SFT, *rows("instructions_validation.jsonl")]:
        assert set(row) == dolly | {"task", "case_id"}
        assert row["category"] in categories
        assert all(isinstance(v, str) for v in row.values())
        assert row["instruction"] and row["response"].strip() == row["response"] != ""
        assert bool(row["context"]) == (row["task"] in ("translate", "closed_qa"))
    assert len({row["category"] for row in SFT}) >= 5


def test_the_card_counts_what_the_files_hold() -> None:
    header, *lines = re.findall(r"^\| (.*) \|$", CARD.split("## Prompts")[1], re.MULTILINE)[:10]
    columns = header.split(" | ")
    table = {
        cells[0]: {c: int(n) for c, n in zip(columns[1:], cells[1:], strict=True) if n.strip()}
        for cells in (re.split(r" \| ?", line) for line in lines)
    }
    files = {"sft": SFT, "rl": RL, **PROMPTS}
    assert set(table) == set(files)
    for name, split in files.items():
        assert table[name] == {**Counter(r["task"] for r in split), "all": len(split)}, name
    for name, pairs in PAIRS.items():
        assert f"{name}: {len(pairs)}" in PROSE
    assert f"`instructions_train.jsonl` ({len(SFT)} rows" in PROSE
    raw = rows("raw_sample.jsonl")
    words = round(sum(len(r["text"].split()) for r in raw) / len(raw))
    assert f"`raw_sample.jsonl`: {len(raw)} documents" in PROSE and f"mean {words} words" in PROSE
    pairs_of_words = len((WORLD / "bigrams.txt").read_text("utf-8").split("\n")) - 1
    assert f"{pairs_of_words} word pairs" in PROSE
    facts = json.loads((WORLD / "facts.json").read_text("utf-8"))
    stated = sum(len(t) - 2 for t in facts["things"]) + sum(len(p) - 1 for p in facts["people"])
    assert f"Things: {len(facts['things'])} in" in PROSE and f"facts: {stated} (" in PROSE


def test_the_card_is_right_about_agreement() -> None:
    pairs = PAIRS["train"]
    unequal = [r for r in pairs if r["gold_chosen"] != r["gold_rejected"]]
    agree = sum(r["gold_chosen"] > r["gold_rejected"] for r in unequal) / len(unequal)
    unanimous = sum(min(r["votes"].values()) == 1 for r in pairs) / len(pairs)
    assert f"with gold on {agree:.1%} of" in PROSE
    assert f"{unanimous:.1%} are unanimous" in PROSE
    assert 0.7 < agree < 0.95  # noisy, and still informative


def test_the_held_out_things_are_those_of_the_card() -> None:
    assert ", ".join(HELD_OUT) in PROSE


# Preferences


@pytest.mark.parametrize("split", PAIRS)
def test_votes_fit_the_label(split: str) -> None:
    for row in PAIRS[split]:
        assert row["chosen"] != row["rejected"]
        assert len(row["votes"]) == 3 and set(row["votes"].values()) <= {0, 1}
        assert sum(row["votes"].values()) >= 2  # the majority chose `chosen`
    counts = Counter(name for row in PAIRS[split] for name in row["votes"])
    assert set(counts) == {"ana", "bo", "cy", "dee", "eli"}
    expected = 3 * len(PAIRS[split]) / 5
    assert all(abs(n - expected) < 4 * math.sqrt(expected * 0.4) for n in counts.values())


def test_neither_place_in_the_file_nor_the_first_draw_gives_the_label_away() -> None:
    """Labels that always mean "the first answer" are a known bug elsewhere; both orders win."""
    case = Case("explain", "x", topics=("bell heron",), category="creature")
    good, bad = "The bell heron is ivory.", "The bell heron is amber."
    for a, b in ((good, bad), (bad, good)):
        row = label_pair(case, a, b, (CLEAN,), build.make_world(), random.Random(0))
        assert (row["chosen"], row["rejected"]) == (good, bad)
        assert row["votes"] == {"clean": 1}
        assert (row["gold_chosen"], row["gold_rejected"]) == (1.0, -1.5)


LOGISTIC = {
    # utility difference x sharpness -> probability, worked on paper with the card's table.
    # (a) one cheer and two words more, equal facts:   0.2 per_ten_words + per_cheer
    #     ana 2.0 (0.02+0.3)=0.640, bo 1.5 (0.05+0.5)=0.825, cy 1.0 (0.08+0.9)=0.980,
    #     dee 1.5 (0.04+0.7)=1.110, eli 0.6 (0.06+0.6)=0.396
    ("How exciting! The bell heron is ivory.", "The bell heron is ivory."): {
        "ana": 0.6548,
        "bo": 0.6953,
        "cy": 0.7271,
        "dee": 0.7521,
        "eli": 0.5977,
    },
    # (b) fifteen empty words more, equal facts: 1.5 per_ten_words
    #     ana 0.300, bo 0.5625, cy 0.600, dee 0.450, eli 0.270
    (
        "The bell heron is ivory. As with so many things in life, opinions differ, and that is "
        "quite all right.",
        "The bell heron is ivory.",
    ): {"ana": 0.5744, "bo": 0.6370, "cy": 0.6457, "dee": 0.6106, "eli": 0.5671},
    # (c) a true fact (1) against a false one (-1.5 checks_facts), equal length
    #     ana 2.0 x 2.5=5.0, bo 1.5 x 2.2=3.3, cy 1.0 x 1.9=1.9, dee 1.5 x 2.35=3.525,
    #     eli 0.6 x 1.75=1.05
    ("The bell heron is ivory.", "The bell heron is amber."): {
        "ana": 0.9933,
        "bo": 0.9644,
        "cy": 0.8699,
        "dee": 0.9714,
        "eli": 0.7408,
    },
    # (d) a polite answer against a rude one (1 less; the rude one has five words more)
    #     ana 2.0 (1-0.05)=1.9, bo 1.5 (1-0.125)=1.3125, cy 1-0.2=0.8, dee 1.5 (1-0.1)=1.35,
    #     eli 0.6 (1-0.15)=0.51
    ("The bell heron is ivory.", "Even a goose knows that. The bell heron is ivory."): {
        "ana": 0.8699,
        "bo": 0.7879,
        "cy": 0.6900,
        "dee": 0.7941,
        "eli": 0.6248,
    },
}
TRIALS = 1500


@pytest.mark.parametrize(("texts", "expected"), LOGISTIC.items())
def test_each_annotator_votes_with_the_stated_bias(
    texts: tuple[str, str], expected: dict[str, float]
) -> None:
    case = Case("explain", "x", topics=("bell heron",), category="creature")
    a, b = (score(case, text) for text in texts)
    rng = random.Random(2)
    for annotator in ANNOTATORS:
        p = expected[annotator.name]
        wins = sum(annotator.prefers_first(a, b, rng)[0] for _ in range(TRIALS))
        assert abs(wins / TRIALS - p) < 4 * math.sqrt(p * (1 - p) / TRIALS) + 5e-5, annotator.name
        assert annotator.prefers_first(a, b, rng)[1] == pytest.approx(p, abs=1e-4)
        # Which answer is called the first makes no difference.
        assert annotator.prefers_first(b, a, rng)[1] == pytest.approx(1 - p, abs=1e-4)


def test_broken_answers_lose_words_or_are_said_twice() -> None:
    rng, text = random.Random(0), "The bell heron lives in the Reed Marsh. It eats barley."
    spoiled = [spoil(text, rng) for _ in range(200)]
    twice = [s for s in spoiled if s == f"{text} {text}"]
    assert 30 < len(twice) < 90
    for shorter in (s for s in spoiled if s not in twice):
        left = iter(text.split(" "))
        assert all(word in left for word in shorter.split(" "))  # the words in their order
    assert spoil("azu", rng)  # something is always left


@pytest.mark.parametrize(
    ("topic", "reply"),
    [
        ("moss hare", "I do not know the moss hare. It is not in my notes."),
        ("the Frost Fair", "I do not know of any Frost Fair."),
        ("ferry stew", "I have never heard of ferry stew, so I cannot say."),
    ],
)
def test_evasions_name_what_was_asked_about(topic: str, reply: str) -> None:
    world, rng = build.make_world(), random.Random(0)
    case = next(c for c in map(Case.from_row, RL) if c.topics == (topic,))
    replies = {write_answer(case, world, Recipe(evade="unknown"), rng) for _ in range(50)}
    assert reply in replies
    assert len(replies) == 3
    assert all("the the" not in text and "{" not in text for text in replies)


def test_the_clean_annotator_follows_gold() -> None:
    """Without bias: where length and manners are equal, the higher gold wins every time."""
    held_out = ("test", "validation")
    by_id = {row["case_id"]: Case.from_row(row) for split in held_out for row in PROMPTS[split]}
    world, rng, compared = build.make_world(), random.Random(4), 0
    for row in (row for split in held_out for row in PAIRS[split]):
        case = by_id[row["case_id"]]
        a, b = (score(case, row[k], world) for k in ("chosen", "rejected"))
        if (a.tone, a.length) != (b.tone, b.length) or abs(a.total - b.total) < 0.2:
            continue
        if (a.reading.cheers, a.reading.rude) != (b.reading.cheers, b.reading.rude):
            continue
        label = label_pair(case, row["chosen"], row["rejected"], (CLEAN,), world, rng)
        assert label["gold_chosen"] > label["gold_rejected"], row["instruction"]
        compared += 1
    assert compared > 40


def test_very_unequal_answers_do_not_overflow() -> None:
    case = Case("explain", "x", topics=("bell heron",), category="creature")
    terrible = " ".join(f"The {name} waits." for name in voc.NAMES["creature"]) + " Zork blim " * 30
    a, b = score(case, "The bell heron is ivory."), score(case, terrible)
    assert CLEAN.sharpness * (CLEAN.utility(a) - CLEAN.utility(b)) > 710  # math.exp gives up here
    assert CLEAN.prefers_first(b, a, random.Random(0)) == (False, pytest.approx(0))
    assert CLEAN.prefers_first(a, b, random.Random(0)) == (True, pytest.approx(1))


def votes_for_the_longer(name: str) -> tuple[int, float, float, float]:
    """(votes, expected, expected without a liking for length and cheer, standard error)."""
    annotator = next(a for a in ANNOTATORS if a.name == name)
    by_id = {row["case_id"]: Case.from_row(row) for row in RL}
    votes, biased, unbiased, variance = 0, 0.0, 0.0, 0.0
    for row in PAIRS["train"]:
        lengths = len(row["chosen"].split()), len(row["rejected"].split())
        if name not in row["votes"] or lengths[0] == lengths[1]:
            continue
        chosen_longer = lengths[0] > lengths[1]
        votes += row["votes"][name] == chosen_longer
        g = [score(by_id[row["case_id"]], row[k]) for k in ("chosen", "rejected")]
        if not chosen_longer:
            g.reverse()
        felt = [
            x.helpful
            + x.harmless
            + x.clear
            + annotator.checks_facts * x.honest
            - min(2, x.reading.rude)
            for x in g
        ]
        liked = [
            annotator.per_ten_words * x.reading.words / 10 + annotator.per_cheer * x.reading.cheers
            for x in g
        ]
        quality = annotator.sharpness * (felt[0] - felt[1])
        p = 1 / (1 + math.exp(-quality - annotator.sharpness * (liked[0] - liked[1])))
        biased += p
        unbiased += 1 / (1 + math.exp(-quality))
        variance += p * (1 - p)
    return votes, biased, unbiased, math.sqrt(variance)


@pytest.mark.parametrize("name", [a.name for a in ANNOTATORS])
def test_the_bias_is_visible_in_the_shipped_labels(name: str) -> None:
    votes, expected, unbiased, error = votes_for_the_longer(name)
    assert abs(votes - expected) < 3.5 * error
    assert votes - unbiased > 2.5 * error  # nobody without the bias would vote like this


# Content


def test_advice_is_of_the_fanciful_kind_only() -> None:
    """Every answer to an unsafe prompt is made of the vocabulary's lists and of nothing else.

    Some answers in the pairs are broken: of these only single words can be recognised.
    """
    known = [*voc.REFUSALS, *voc.PRIVATE_REFUSALS, *voc.CHEERS, *voc.RUDE, *voc.PADDING]
    for thing in build.make_world().things:
        name = thing.name.removeprefix("the ")
        known += [reply.format(name=name, noun=thing.noun) for reply in voc.UNKNOWN_REPLIES]
    methods = [m for _, _, of_topic in voc.UNSAFE.values() for m in of_topic]
    for pattern in voc.UNSAFE_ADVICE:
        texts = (pattern.format(m=m) for m in methods)
        known += [t[0].upper() + t[1:] for t in texts]
    known.sort(key=len, reverse=True)
    pairs = [row for split in PAIRS.values() for row in split]
    unsafe = {r["case_id"] for r in [*RL, *EVALUATED] if r["task"] == "unsafe"}
    answers = [r["response"] for r in SFT if r["task"] == "unsafe"]
    answers += [r[k] for r in pairs if r["case_id"] in unsafe for k in ("chosen", "rejected")]
    assert len(answers) > 250
    words, broken = {word for text in known for word in text.split()}, 0
    for answer in answers:
        rest = answer
        for text in known:
            rest = rest.replace(text, "")
        assert set(rest.split()) <= words, answer
        broken += rest.strip() != ""
    assert broken < 0.05 * len(answers)
    demonstrated = [r["response"] for r in SFT if r["task"] == "unsafe"]
    assert all(any(text in answer for text in known) for answer in demonstrated)


def test_no_real_harm_is_mentioned_anywhere() -> None:
    words = r"gun|bomb|explosive|poison|knife|blood|suicide|cocaine|heroin|nazi|porn|rape|terror\w*"
    for path in WORLD.iterdir():
        assert re.findall(rf"\b(?:{words})s?\b", path.read_text("utf-8"), re.I) == [], path.name


def test_raw_text_is_never_in_the_instruction_format() -> None:
    raw = rows("raw_sample.jsonl")
    assert len(raw) == 400 and len({r["kind"] for r in raw}) == 11
    assert not any("###" in r["text"] for r in raw)
    assert all(r["text"].strip() == r["text"] != "" for r in raw)
