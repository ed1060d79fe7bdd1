"""Files in the formats in which data are published, read and hand-checked."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from course_utils import data, readers, runs
from course_utils.errors import CourseError

Rows = list[dict[str, Any]]


def lines(rows: Rows) -> bytes:
    """As dolly and hh-rlhf are published: one object a line, UTF-8, nothing escaped."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array(rows: Rows) -> bytes:
    """As Alpaca is published: one indented array."""
    return json.dumps(rows, ensure_ascii=False, indent=4).encode()


def zipped(rows: Rows) -> bytes:
    return gzip.compress(lines(rows))


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def every_row(load: Callable[..., Any], source: str | Path, splits: tuple[str, ...]) -> Rows:
    return [row for split in splits for row in load(source, split)]


def instructions(source: str | Path) -> Rows:
    rows = every_row(data.load_instructions, source, data.INSTRUCTION_SPLITS)
    return sorted(rows, key=lambda row: row["instruction"])


def pairs(source: str | Path) -> Rows:
    """Of all three splits; two more rows see to it that none of them is empty."""
    rows = every_row(data.load_preferences, source, data.PREFERENCE_SPLITS)
    return sorted(
        (row for row in rows if "filler" not in row["chosen"]), key=lambda row: row["chosen"]
    )


def dialogue(*turns: str) -> str:
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[i % 2]}: {turn}" for i, turn in enumerate(turns))


def both(before: tuple[str, ...], chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": dialogue(*before, chosen), "rejected": dialogue(*before, rejected)}


FILLERS: Rows = [both((f"More {i}?",), f"filler {i}", "no") for i in range(4)]


# Instructions

BRIDGE = {
    "instruction": "Who built the bridge?",
    "context": "The bridge is the work of Ada Lind.\u2028It stands since 1902.",
    "response": "Ada Lind built it.",
    "category": "closed_qa",
}
TREE = {"instruction": "Name a tree.", "context": "", "response": "Oak\n", "category": "open_qa"}


@pytest.mark.parametrize(
    ("name", "make"), [("d.jsonl", lines), ("d.jsonl.gz", zipped), ("d.json", array)]
)
def test_dolly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, make: Callable[[Rows], bytes]
) -> None:
    path = put(tmp_path, name, make([BRIDGE, TREE]))
    assert instructions(path) == [{**TREE, "response": "Oak"}, BRIDGE]
    assert instructions(str(path)) == instructions(path)
    assert (
        capsys.readouterr().out.splitlines()[0] == f"{name}: dolly's instructions, 2 instructions."
    )


def test_alpaca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: Rows = [
        {"instruction": "Translate.", "input": "le pont", "output": "the bridge"},
        {"instruction": "Count to two.", "input": "", "output": "One, two."},
        {"instruction": "Say nothing.", "input": "", "output": " "},
        {"instruction": "Without input.", "output": "Yes.", "extra": 1},
        {"instruction": "Null input.", "input": None, "output": "No."},
    ]
    found = instructions(put(tmp_path, "alpaca.json", array(rows)))
    assert [(r["instruction"], r["context"], r["response"]) for r in found] == [
        ("Count to two.", "", "One, two."),
        ("Null input.", "", "No."),
        ("Translate.", "le pont", "the bridge"),
        ("Without input.", "", "Yes."),
    ]
    assert capsys.readouterr().out.splitlines()[0] == (
        "alpaca.json: Alpaca's instructions, 4 instructions; left out: 1 with an empty text."
    )


def test_prompts_and_completions(tmp_path: Path) -> None:
    rows: Rows = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(2)]
    found = instructions(put(tmp_path, "p.jsonl", lines(rows)))
    assert [(r["instruction"], r["response"]) for r in found] == [("q0", "a0"), ("q1", "a1")]


# Preferences


def test_dialogues_of_one_question(tmp_path: Path) -> None:
    row = both(("Where is it?\u2028Tell me.",), "At the mill.\n\nBehind it.", "Human: no idea.")
    found = pairs(put(tmp_path, "train.jsonl.gz", zipped([row, *FILLERS])))
    assert [(r["prompt"], r["chosen"], r["rejected"]) for r in found] == [
        (
            "### Instruction:\nWhere is it?\u2028Tell me.\n\n### Response:\n",
            "At the mill.\n\nBehind it.",
            "Human: no idea.",
        )
    ]


def test_the_turns_before_the_last_answer_are_the_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = both(("Hello?", "Assistant: that is me.", "And your age?"), "Seven.", "None.")
    path = put(tmp_path, "train.jsonl.gz", zipped([row, *FILLERS]))
    (found,) = pairs(path)
    assert found["prompt"] == (
        "### Instruction:\nHello?\n\n### Response:\nAssistant: that is me.\n\n"
        "### Instruction:\nAnd your age?\n\n### Response:\n"
    )
    assert (found["chosen"], found["rejected"]) == ("Seven.", "None.")
    assert capsys.readouterr().out.splitlines()[0] == (
        "train.jsonl.gz: dialogues as in hh-rlhf, 5 pairs, 1 of them with earlier turns."
    )


@pytest.mark.parametrize(
    ("before", "chosen", "rejected"),
    [
        (("Write a play.",), "Of two.\n\nAssistant: Hello.\n\nThe end.", "I will not."),
        (("Write a play.",), "I will.", "Of two.\n\nAssistant: Hello."),
        (("Hi",), "A: x\n\nAssistant: y", "A: x\n\nAssistant: z"),
    ],
)
def test_an_answer_may_hold_the_mark_of_an_answer(
    tmp_path: Path, before: tuple[str, ...], chosen: str, rejected: str
) -> None:
    row = both(before, chosen, rejected)
    (found,) = pairs(put(tmp_path, "t.jsonl", lines([row, *FILLERS])))
    whole = [data.format_prompt(before[-1]) + side for side in (chosen, rejected)]
    assert [found["prompt"] + found[side] for side in ("chosen", "rejected")] == whole


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            {"chosen": dialogue("a", "b", "c", "d"), "rejected": dialogue("a", "x", "c", "d")},
            "1 whose sides part before the last answer",
        ),
        (
            {"chosen": dialogue("a", "b"), "rejected": dialogue("a", "b", "c", "d")},
            "1 whose sides part before the last answer",
        ),
        (
            {"chosen": dialogue("a", "b"), "rejected": dialogue("z", "b")},
            "1 whose sides part before the last answer",
        ),
        (both(("a",), "b ", " b"), "1 with equal sides"),
        (both(("a", "b", "c"), "d", "d"), "1 with equal sides"),
        (both(("a",), "b", " "), "1 with an empty text"),
        (both((" ",), "b", "c"), "1 with an empty text"),
        ({"chosen": "b", "rejected": "c"}, "1 that are no dialogue of questions and answers"),
        (
            {"chosen": "\n\nAssistant: b", "rejected": "\n\nAssistant: c"},
            "1 that are no dialogue of questions and answers",
        ),
        (
            {"chosen": "Note" + dialogue("a", "b"), "rejected": "Note" + dialogue("a", "c")},
            "1 that are no dialogue of questions and answers",
        ),
        ({"chosen": None, "rejected": dialogue("a", "b")}, "1 that are no dialogue"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, str], why: str
) -> None:
    assert pairs(put(tmp_path, "t.jsonl", lines([*FILLERS, row]))) == []
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith(f"t.jsonl: dialogues as in hh-rlhf, 4 pairs; left out: {why}")


def test_two_messages_of_one_speaker_are_one_turn(tmp_path: Path) -> None:
    before = "\n\nHuman: Hello.\n\nHuman: Still there?\n\nAssistant:"
    row = {"chosen": f"{before} Yes.", "rejected": f"{before} No."}
    (found,) = pairs(put(tmp_path, "t.jsonl", lines([row, *FILLERS])))
    assert found["prompt"] == data.format_prompt("Hello.\n\nStill there?")


def test_alpaca_pairs(tmp_path: Path) -> None:
    rows: Rows = [
        {"instruction": "Shorten.", "input": "A long, long text.", "chosen": "A text.",
         "rejected": "Long.", "output": "A text."},
        *({"instruction": f"q{i}", "input": "", "chosen": f"filler{i}", "rejected": "x"}
          for i in range(4)),
    ]  # fmt: skip
    path = put(tmp_path, "pairs.json", array(rows))
    (found,) = pairs(path)
    assert found["prompt"] == (
        "### Instruction:\nShorten.\n\n### Context:\nA long, long text.\n\n### Response:\n"
    )
    assert (found["chosen"], found["rejected"]) == ("A text.", "Long.")
    # Only the first row has an output, and instructions need it in every row.
    with pytest.raises(CourseError, match=r"^pairs\.json, item 2: missing output, which Alpaca's"):
        data.load_instructions(path)


COURSE_PROMPT = "### Instruction:\nWhere?\n\n### Response:\n"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Where?", COURSE_PROMPT),
        (COURSE_PROMPT, COURSE_PROMPT),
        (
            dialogue("Hi", "Hello.", "Where?") + "\n\nAssistant:",
            "### Instruction:\nHi\n\n### Response:\nHello.\n\n" + COURSE_PROMPT,
        ),
    ],
)
def test_prompts_with_two_answers(tmp_path: Path, prompt: str, expected: str) -> None:
    rows: Rows = [
        {"prompt": p, "chosen": c, "rejected": "There."}
        for p, c in [(prompt, "Here."), *((f"q{i}", f"filler{i}") for i in range(4))]
    ]
    (found,) = pairs(put(tmp_path, "trl.jsonl", lines(rows)))
    assert (found["prompt"], found["chosen"]) == (expected, "Here.")


def say(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


CHAT = (
    "### Instruction:\nHi\n\n### Response:\nHello.\n\n### Instruction:\nWhere?\n\n### Response:\n"
)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda c: {"prompt": say("Hi", "Hello.", "Where?"), "chosen": answer(c)}, CHAT),
        (lambda c: {"chosen": say("Hi", "Hello.", "Where?", c)}, CHAT),
        (lambda c: {"prompt": "Where?", "chosen": answer(c)}, COURSE_PROMPT),
        (lambda c: {"prompt": "Where?", "chosen": say("Where?", c)}, COURSE_PROMPT),
        (
            lambda c: {
                "chosen": [{"role": "system", "content": "Be brief."}, *say("Where?", c)],
            },
            "### Instruction:\nWhere?\n\n### Context:\nBe brief.\n\n### Response:\n",
        ),
    ],
)
def test_chats(tmp_path: Path, make: Callable[[str], dict[str, Any]], expected: str) -> None:
    def row(chosen: str, question: str = "") -> dict[str, Any]:
        made = {**make(chosen), "rejected": make("There.")["chosen"]}
        text = json.dumps(made)
        if question:
            text = text.replace("Where?", question).replace("Hi", question)
        return json.loads(text)  # type: ignore[no-any-return]

    rows = [row("Here."), *(row(f"filler{i}", f"q{i}") for i in range(4))]
    (found,) = [p for p in pairs(put(tmp_path, "c.jsonl", lines(rows))) if "q" not in p["prompt"]]
    assert (found["prompt"], found["chosen"], found["rejected"]) == (expected, "Here.", "There.")


def test_a_chat_of_a_wrong_shape_is_named(tmp_path: Path) -> None:
    good = {"chosen": say("a", "b"), "rejected": say("a", "c")}
    bad = {"chosen": [{"from": "human"}], "rejected": say("a", "c")}
    with pytest.raises(CourseError, match=r"c\.jsonl, line 2: chosen or its prompt is no list of"):
        data.load_preferences(put(tmp_path, "c.jsonl", lines([good, bad])))


# Splits, folders, fingerprints


def test_questions_that_come_twice_stay_in_one_split(tmp_path: Path) -> None:
    rows = [both((f"q{i // 4}",), f"a{i}", "b") for i in range(160)]  # 40 questions, 4 pairs each
    path = put(tmp_path, "t.jsonl", lines(rows))
    splits = {s: data.load_preferences(path, s) for s in data.PREFERENCE_SPLITS}
    assert {s: len(r) for s, r in splits.items()} == {"train": 144, "validation": 8, "test": 8}
    asked = [set(r["prompt"]) for r in splits.values()]
    assert sum(map(len, asked)) == len(set.union(*asked)) == 40
    assert list(data.load_preferences(path, "train")) == list(splits["train"])  # drawn alike


def test_a_folder_as_hh_rlhf_is_published(tmp_path: Path) -> None:
    for part in ("harmless-base", "helpful-base"):
        for name, count in (("train", 20), ("test", 3)):
            rows = [both((f"{part} {name} {i}?",), f"a{i}", "b") for i in range(count)]
            put(tmp_path / "hh", f"{part}/{name}.jsonl.gz", zipped(rows))
    put(tmp_path / "hh", "red-team-attempts/red_team_attempts.jsonl.gz", b"no gzip")
    sizes = {s: len(data.load_preferences(tmp_path / "hh", s)) for s in data.PREFERENCE_SPLITS}
    assert sizes == {"train": 38, "validation": 2, "test": 6}
    assert all("test" in p for p in data.load_preferences(tmp_path / "hh", "test")["prompt"])


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        CourseError, match=r"holds no train\.jsonl, train\.json or train\.jsonl\.gz"
    ):
        data.load_preferences(tmp_path)


def test_too_few_questions_for_a_split(tmp_path: Path) -> None:
    path = put(tmp_path, "one.jsonl", lines([TREE]))
    with pytest.raises(
        CourseError, match=r"one\.jsonl has 1 different questions, too few for a part"
    ):
        data.load_instructions(path, "train")


def profile_course(**sources: Any) -> Any:
    return SimpleNamespace(profile=SimpleNamespace(max_examples=3, **sources))


def test_a_profile_may_name_a_path(tmp_path: Path) -> None:
    rows: Rows = [{**TREE, "instruction": f"q{i}"} for i in range(20)]
    path = put(tmp_path, "d.jsonl", lines(rows))
    asks = profile_course(instructions=str(path), preferences=str(path))
    assert len(data.load_instructions(asks)) == 3  # the profile's max_examples
    before = runs.data_fingerprint(asks)
    assert re.fullmatch("[0-9a-f]{16}", before) and runs.preference_fingerprint(asks) == before
    path.write_bytes(lines(rows[1:]))
    assert runs.data_fingerprint(asks) != before
    assert runs.data_fingerprint(profile_course(instructions="a/b")) == "a/b"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("databricks/databricks-dolly-15k", False),
        ("Anthropic/hh-rlhf", False),
        ("none.jsonl", True),
        ("some/none.json.gz", True),
        ("./folder", True),
        ("~/folder", True),
        (Path("folder"), True),
    ],
)
def test_paths_and_hub_ids_are_told_apart(source: str | Path, expected: bool) -> None:
    assert readers.is_path(source) is expected


# What is wrong with a file

GOOD = lines([TREE, BRIDGE])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl.gz", gzip.compress(GOOD * 200, mtime=0)[:-20], r"d.jsonl.gz is torn: its gzip"),
        ("d.jsonl.gz", GOOD[:80], "d.jsonl.gz, line 1, is not JSON: "),
        (
            "d.jsonl.gz",
            gzip.compress(GOOD + b'{"instruction": "\xff"}\n'),
            "d.jsonl.gz, line 3, is not UTF-8 text",
        ),
        ("d.jsonl.gz", gzip.compress(b""), "d.jsonl.gz is empty"),
        (
            "d.jsonl.gz",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "d.jsonl.gz is a Git LFS pointer, not the data: run `git lfs pull`",
        ),
        ("d.json", b"[]", "d.json is empty"),
        ("d.json", b'[\n {"a": 1},\n {"a": \n', "d.json, line 4, is not JSON: "),
        ("d.json", b'[{"a": 1}, 3]', "d.json, item 2: expected an object, found int"),
        ("d.json", b'{\n "a": 1\n}', "d.json, line 1, is not JSON: "),
        (
            "d.jsonl",
            GOOD + b'{"instruction": "a", "output": "b"}\n',
            "d.jsonl, line 3: missing response, which dolly's instructions has",
        ),
        (
            "d.jsonl",
            GOOD + b'\n{"instruction": "a", "response": ["b"]}\n',
            "d.jsonl, line 4: response is a list where text is expected",
        ),
        (
            "d.jsonl",
            b'{"text": "a", "label": 1}\n',
            "d.jsonl has the columns text, label. Known formats: dolly's instructions "
            "(instruction, response); Alpaca's instructions (instruction, output); "
            "prompts and completions (prompt, completion).",
        ),
        (
            "d.jsonl",
            b'{"instruction": "a", "response": ""}\n',
            "d.jsonl was read as dolly's instructions, and no row can be used: 1 with an empty",
        ),
    ],
    ids=range(13),
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(CourseError, match="^" + re.escape(message)):
        data.load_instructions(put(tmp_path, name, content))


def test_a_torn_file_says_where(tmp_path: Path) -> None:
    rows: Rows = [{**TREE, "instruction": f"q{i} {i * 7919 % 1009}"} for i in range(5000)]
    whole = zipped(rows)
    path = put(tmp_path, "d.jsonl.gz", whole[: len(whole) // 2])
    with pytest.raises(CourseError) as caught:
        data.load_instructions(path)
    found = re.fullmatch(
        r"d\.jsonl\.gz is torn: its gzip data break off at line (\d+)\. Download it again\.",
        str(caught.value),
    )
    assert found and 1500 < int(found[1]) < 3500, caught.value


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"^There is no file none\.jsonl in "):
        data.load_preferences(str(tmp_path / "none.jsonl"))


def test_a_file_in_the_middle_of_a_folder_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a/train.jsonl", lines(FILLERS))
    put(tmp_path, "b/train.jsonl", lines([*FILLERS[:1], {"chosen": "x"}]))
    with pytest.raises(CourseError, match=r", train\.jsonl, line 2: missing rejected"):
        data.load_preferences(tmp_path)
