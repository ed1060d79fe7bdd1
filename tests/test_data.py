"""Reading data, the prompt template and the loss mask, against literal texts and hand-made ids."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from course_utils import data
from course_utils.errors import CourseError
from course_utils.templates import CHAT_TEMPLATE

DATA = Path(__file__).resolve().parents[1] / "data"


def course(instructions: str = "world", limit: int | None = None) -> Any:
    """As much of a Course as the loaders look at."""
    return SimpleNamespace(
        profile=SimpleNamespace(
            instructions=instructions, preferences=instructions, max_examples=limit
        )
    )


# read_jsonl


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_rows_are_read_and_blank_lines_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": 1}\n\n  \n{"a": "zwei"}\r\n')
    assert data.read_jsonl(path, ["a"]) == [{"a": 1}, {"a": "zwei"}]


def test_a_line_separator_inside_a_text_is_no_line_break(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0bfour"
    path = write(tmp_path, json.dumps({"a": "x"}) + "\n" + '{"a": "one\u2028two\u0085three"}\n')
    assert data.read_jsonl(path)[1] == {"a": "one\u2028two\u0085three"}
    path = write(tmp_path, json.dumps({"a": text}, ensure_ascii=False))
    assert data.read_jsonl(path) == [{"a": text}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{"a": \n', "rows.jsonl, line 2, is not JSON: "),
        ('{"a": 1}\n\n\n{"a": 1}{"a": 2}\n', "rows.jsonl, line 4, is not JSON: Extra data"),
        ('{"a": 1}\n[1, 2]\n', "rows.jsonl, line 2: expected an object, found list"),
        ('"text"\n', "rows.jsonl, line 1: expected an object, found str"),
        ("null\n", "rows.jsonl, line 1: expected an object, found NoneType"),
        ('{"a": 1}\n{"b": 1}\n', "rows.jsonl, line 2: missing a."),
        ("", "rows.jsonl is empty"),
        (" \n\n", "rows.jsonl is empty"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "rows.jsonl, line 2, is not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(CourseError, match="^" + re.escape(message)):
        data.read_jsonl(write(tmp_path, content), ["a"])


def test_the_mark_that_windows_puts_first_is_no_text(tmp_path: Path) -> None:
    assert data.read_jsonl(write(tmp_path, b'\xef\xbb\xbf{"a": 1}\n')) == [{"a": 1}]


def test_every_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"line 1: missing a, c\.$"):
        data.read_jsonl(write(tmp_path, '{"b": 1}\n'), ["a", "b", "c"])


def test_a_missing_file_is_named_without_the_machine_path(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"no file none\.jsonl") as caught:
        data.read_jsonl(tmp_path / "none.jsonl")
    assert str(tmp_path.parent) not in str(caught.value)


# Splits


def test_an_unknown_split_lists_the_legal_ones() -> None:
    with pytest.raises(CourseError, match=r"'tset'.*Did you mean 'test'.*red_team, over_refusal"):
        data.load_prompts(course(), "tset")
    with pytest.raises(
        CourseError, match=r"'private'.*rl, validation, test, red_team, over_refusal, cap"
    ):
        data.load_prompts(course("english"), "private")
    with pytest.raises(CourseError, match="Legal instruction split names: train, validation"):
        data.load_instructions(course(), "test")
    # `sft` has no prompt file: its prompts are the instructions
    with pytest.raises(CourseError, match="Unknown prompt split 'sft'"):
        data.load_prompts(course(), "sft")


@pytest.mark.parametrize("split", data.PROMPT_SPLITS["world"])
def test_every_world_split_loads(split: str) -> None:
    lines = (DATA / "world" / f"prompts_{split}.jsonl").read_text("utf-8").strip().split("\n")
    cases = data.load_prompts(course(), split)
    assert [c.instruction for c in cases] == [json.loads(line)["instruction"] for line in lines]
    assert all(isinstance(c.topics, tuple) for c in cases)


@pytest.mark.parametrize(("split", "task"), [("red_team", "unsafe"), ("over_refusal", "alarming")])
def test_english_probes_load(split: str, task: str) -> None:
    rows = map(json.loads, (DATA / "english" / "prompts.jsonl").read_text("utf-8").splitlines())
    wanted = [row["prompt"] for row in rows if row["kind"] == split]
    cases = data.load_prompts(course("english"), split)
    assert [c.instruction for c in cases] == wanted and len(cases) >= 10
    assert {c.task for c in cases} == {task}


def test_english_capability_prompts_find_their_answers() -> None:
    rows = [
        row
        for line in (DATA / "english" / "prompts.jsonl").read_text("utf-8").splitlines()
        if (row := json.loads(line))["kind"] == "capability"
    ]
    cases = data.load_prompts(course("english"), "capability")
    assert len(rows) == len(cases) >= 10
    for row, case in zip(rows, cases, strict=True):
        assert row["answer"], row["prompt"]  # without one every reply would count as right
        for word in row["answer"]:
            assert re.search(case.reference, f"It is {word}.", re.IGNORECASE)
        assert not re.search(case.reference, f"qq{row['answer'][0]}qq", re.IGNORECASE)
        assert not re.search(case.reference, "I have no idea.", re.IGNORECASE)


def test_english_validation_is_the_held_out_part() -> None:
    lines = (DATA / "english" / "instructions.jsonl").read_text("utf-8").splitlines()
    test = [r for line in lines if (r := json.loads(line))["split"] == "test"]
    cases = data.load_prompts(course("english"), "validation")
    assert [(c.instruction, c.context, c.reference) for c in cases] == [
        (r["instruction"], r["context"], r["response"]) for r in test
    ]
    assert len(cases) == 77


@pytest.mark.parametrize(("source", "train", "held"), [("world", 1650, 150), ("english", 287, 77)])
def test_instructions_load_in_dollys_columns(source: str, train: int, held: int) -> None:
    splits = [data.load_instructions(course(source), s) for s in ("train", "validation")]
    assert [len(s) for s in splits] == [train, held]
    for split in splits:
        assert split.column_names == ["instruction", "context", "response", "category"]
    asked = [{(r["instruction"], r["context"]) for r in split} for split in splits]
    assert not asked[0] & asked[1]


# Preferences

PREFERENCES = {
    split: [
        json.loads(line)
        for line in (DATA / "world" / f"preferences_{split}.jsonl").read_text("utf-8").splitlines()
    ]
    for split in ("train", "validation", "test")
}


@pytest.mark.parametrize("split", data.PREFERENCE_SPLITS)
def test_voted_pairs_are_as_shipped(split: str) -> None:
    shipped, rows = PREFERENCES[split], data.load_preferences(course(), split)
    assert len(rows) == len(shipped)
    margins = set()
    for row, line in zip(rows, shipped, strict=True):
        assert row["prompt"].startswith("### Instruction:\n" + line["instruction"])
        assert row["prompt"].endswith("\n\n### Response:\n")
        assert line["context"] in row["prompt"]
        for name in ("chosen", "rejected", "gold_chosen", "gold_rejected", "case_id"):
            assert row[name] == line[name]
        assert row["votes"] == pytest.approx(sum(line["votes"].values()) / 3)
        margins.add((round(3 * row["votes"]), round(row["margin"], 6)))
    # all three votes: 3/3 - 0/3; two of three: 2/3 - 1/3
    assert margins == {(3, 1.0), (2, round(1 / 3, 6))}


@pytest.mark.parametrize("split", data.PREFERENCE_SPLITS)
def test_clean_pairs_have_golds_choice_and_no_ties(split: str) -> None:
    shipped = [
        line
        for line in PREFERENCES[split]
        if abs(line["gold_chosen"] - line["gold_rejected"]) >= data.GOLD_TIE
    ]
    rows = data.load_preferences(course(), split, "clean")
    assert 0 < len(PREFERENCES[split]) - len(shipped) == len(PREFERENCES[split]) - len(rows)
    swapped = 0
    for row, line in zip(rows, shipped, strict=True):
        better = "chosen" if line["gold_chosen"] > line["gold_rejected"] else "rejected"
        worse = "rejected" if better == "chosen" else "chosen"
        assert (row["chosen"], row["rejected"]) == (line[better], line[worse])
        gold = (line[f"gold_{better}"], line[f"gold_{worse}"])
        assert (row["gold_chosen"], row["gold_rejected"]) == gold and gold[0] > gold[1]
        assert row["margin"] == pytest.approx(min(1, (gold[0] - gold[1]) / 3))
        votes = sum(line["votes"].values())
        assert row["votes"] == pytest.approx((votes if better == "chosen" else 3 - votes) / 3)
        swapped += better == "rejected"
    assert 0 < swapped < len(rows) / 2, "the annotators err, but less than half of the time"


def test_preferences_refuse_what_does_not_exist() -> None:
    with pytest.raises(CourseError, match="Legal preference split names: train, validation, test"):
        data.load_preferences(course(), "rl")
    with pytest.raises(CourseError, match="Legal preference labels names: votes, clean"):
        data.load_preferences(course(), "train", "gold")
    with pytest.raises(CourseError, match=r"gold for the English pairs: use labels='votes'"):
        data.load_preferences(course("english"), labels="clean")
    with pytest.raises(CourseError, match="Nobody knows gold for some/hub-set"):
        data.load_preferences(course("some/hub-set"), labels="clean")


@pytest.mark.parametrize("split", data.PREFERENCE_SPLITS)
def test_english_pairs_load_as_one_vote_each(split: str) -> None:
    lines = (DATA / "english" / "preferences.jsonl").read_text("utf-8").splitlines()
    shipped = [r for line in lines if (r := json.loads(line))["split"] == split]
    rows = data.load_preferences(course("english"), split)
    assert set(rows.column_names) == set(data.load_preferences(course(), "test").column_names)
    assert [(r["prompt"], r["chosen"], r["rejected"]) for r in rows] == [
        (data.format_prompt(r["instruction"], r["context"]), r["chosen"], r["rejected"])
        for r in shipped
    ]
    assert {(r["votes"], r["margin"], r["gold_chosen"], r["gold_rejected"]) for r in rows} == {
        (1.0, 1.0, None, None)
    }
    assert len(set(rows["case_id"])) == len(rows)


@pytest.mark.parametrize(("split", "pairs"), [("rl", "train"), ("test", "test")])
def test_english_prompts_of_the_pairs(split: str, pairs: str) -> None:
    """The same prompts and the same ids as in the pairs, with the chosen side as reference."""
    cases = data.load_prompts(course("english"), split)
    rows = data.load_preferences(course("english"), pairs)
    assert [(data.prompt_of(c), c.reference, c.case_id) for c in cases] == [
        (r["prompt"], r["chosen"], r["case_id"]) for r in rows
    ]
    assert {c.task for c in cases} == {"answer"}
    assert 0.2 < sum(bool(c.context) for c in cases) / len(cases) < 0.5


def test_practice_prompts_of_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("world", "english"):
        assert data.practice_prompts(course(source)) == data.load_prompts(course(source), "rl")
    row = {"instruction": "Why?", "context": "It rains.", "response": "Clouds.", "category": "qa"}
    hub(monkeypatch, train=[{**row, "instruction": f"Why {i}?"} for i in range(40)])
    found = data.practice_prompts(course("some/hub-set"))
    assert len(found) == 38
    asked = {data.prompt_of(case) for case in found}
    assert asked < {data.format_prompt(f"Why {i}?", "It rains.") for i in range(40)}
    assert found[0].reference == "Clouds."


def dialogue(*turns: str) -> str:
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[i % 2]}: {turn}" for i, turn in enumerate(turns))


def hub(monkeypatch: pytest.MonkeyPatch, **parts: list[dict[str, Any]]) -> None:
    """The hub's one data set has these parts."""
    import datasets

    sets = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(sets))


def test_hub_dialogues_become_pairs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "chosen": dialogue(f"What is {i}?\nTell me.", "A number.\n\nA small one."),
            "rejected": dialogue(f"What is {i}?\nTell me.", "Human error."),
        }
        for i in range(40)
    ]
    others = [
        {"chosen": dialogue("a", "b"), "rejected": dialogue("z", "b")},
        {"chosen": "no dialogue", "rejected": dialogue("a", "b")},
    ]
    hub(monkeypatch, train=rows + others, test=rows[:5])
    sets = {s: data.load_preferences(course("some/hub-set"), s) for s in data.PREFERENCE_SPLITS}
    assert {s: len(r) for s, r in sets.items()} == {"train": 38, "validation": 2, "test": 5}
    assert capsys.readouterr().out.splitlines()[0] == (
        "some/hub-set: dialogues as in hh-rlhf, 40 pairs; left out: 1 whose sides part before the "
        "last answer, 1 that are no dialogue of questions and answers."
    )
    prompts = {s: set(r["prompt"]) for s, r in sets.items()}
    assert not prompts["train"] & prompts["validation"]
    assert prompts["train"] | prompts["validation"] == {
        data.format_prompt(f"What is {i}?\nTell me.") for i in range(40)
    }
    row = sets["train"][0]
    assert row["chosen"] == "A number.\n\nA small one." and row["rejected"] == "Human error."
    assert (row["margin"], row["votes"], row["gold_chosen"]) == (1.0, 1.0, None)
    assert set(row) == set(data.load_preferences(course(), "test").column_names)
    assert len(data.load_preferences(course("some/hub-set", limit=7))) == 7


def test_a_hub_set_of_another_form_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, train=[{"chosen": "a", "other": "b"}])
    with pytest.raises(
        CourseError, match=r"hub-set has the columns chosen, other\. Known formats:"
    ):
        data.load_preferences(course("some/hub-set"))
    hub(monkeypatch, train=[{"chosen": "a", "rejected": "b"}])
    with pytest.raises(CourseError, match=r"no row can be used: 1 that are no dialogue"):
        data.load_preferences(course("some/hub-set"))
    hub(monkeypatch, train_prefs=[{"chosen": "a", "rejected": "b"}])
    with pytest.raises(CourseError, match=r"no part called train; it has train_prefs"):
        data.load_preferences(course("some/hub-set"))


def test_a_hub_set_that_cannot_be_loaded_is_one_sentence(offline: None) -> None:
    with pytest.raises(CourseError, match=r"some/none could not be loaded .* path of a file\.$"):
        data.load_instructions("some/none")


# Templates


def test_the_prompt_is_the_source_documents() -> None:
    assert data.format_prompt("Name a bird.") == (
        "### Instruction:\nName a bird.\n\n### Response:\n"
    )
    assert data.format_prompt("Which bird?", "The heron waits.") == (
        "### Instruction:\nWhich bird?\n\n### Context:\nThe heron waits.\n\n### Response:\n"
    )


def source_format_instruction(example: dict[str, str]) -> str:
    """Section 2 of the source document, word for word."""
    if example["context"]:
        return f"""### Instruction:
{example["instruction"]}

### Context:
{example["context"]}

### Response:
{example["response"]}"""
    else:
        return f"""### Instruction:
{example["instruction"]}

### Response:
{example["response"]}"""


@pytest.mark.parametrize("context", ["", "The heron waits.\nIt is dusk."])
def test_a_whole_row_is_the_source_documents(context: str) -> None:
    row = {"instruction": "Which bird?", "context": context, "response": "The heron."}
    assert data.format_instruction(row) == source_format_instruction(row)


def test_a_row_without_a_context_column_has_no_context() -> None:
    expected = "### Instruction:\na\n\n### Response:\nb"
    assert data.format_instruction({"instruction": "a", "response": "b"}) == expected
    row: Any = {"instruction": "a", "context": None, "response": "b"}
    assert data.format_instruction(row) == expected


def test_prompt_and_completion_join_to_the_whole_row() -> None:
    from datasets import Dataset

    rows = [
        {"instruction": "a", "context": "", "response": "b", "category": "x"},
        {"instruction": "c", "context": "d", "response": "e", "category": "x"},
    ]
    pairs = data.to_prompt_completion(Dataset.from_list(rows))
    assert sorted(pairs.column_names) == ["completion", "prompt"]
    joined = [p["prompt"] + p["completion"] for p in pairs]
    assert joined == [source_format_instruction(row) for row in rows]


# With a tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One id per character, so that every id can be written down; built here, not shipped."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = sorted(set("### Instruction:\n\n### Context:\n### Response:\nabcdefgh"))
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<eos>", "<unk>", *characters])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def test_the_mask_hides_the_prompt_and_keeps_the_end(tokenizer: Any) -> None:
    a, b, c = (tokenizer.convert_tokens_to_ids(x) for x in "abc")
    # prompt "ab", response "ca": the labels keep c, a and the EOS (id 1)
    assert data.mask_prompt("ab", "ca", tokenizer) == ([a, b, c, a, 1], [-100, -100, c, a, 1])
    assert data.mask_prompt("ab", "", tokenizer) == ([a, b, 1], [-100, -100, 1])


def test_a_beginning_of_text_token_stands_once_and_is_not_learnt(tokenizer: Any) -> None:
    import copy

    from tokenizers.processors import TemplateProcessing

    llama_like = copy.deepcopy(tokenizer)
    llama_like.backend_tokenizer.post_processor = TemplateProcessing(
        single="<unk> $A", special_tokens=[("<unk>", 2)]
    )
    a, b, c = (tokenizer.convert_tokens_to_ids(x) for x in "abc")
    ids, labels = data.mask_prompt("ab", "ca", llama_like)
    assert ids == [2, a, b, c, a, 1]
    assert labels == [-100, -100, -100, c, a, 1]


def shipped_tokenizer() -> Any:
    from course_utils.models import load_tokenizer

    if not (DATA / "tiny_base" / "tokenizer.json").is_file():
        pytest.skip("data/tiny_base is being built")
    return load_tokenizer(DATA / "tiny_base")


def test_the_mask_of_the_shipped_tokenizer_decodes_to_prompt_and_response() -> None:
    tok = shipped_tokenizer()
    prompt = "### Instruction:\nWhere does the bell heron live?\n\n### Response:\n"
    response = "The bell heron lives in the Mill Gardens."
    ids, labels = data.mask_prompt(prompt, response, tok)
    hidden = [i for i, label in zip(ids, labels, strict=True) if label == -100]
    kept = [label for label in labels if label != -100]
    assert tok.decode(hidden) == prompt
    assert tok.decode(kept) == response + tok.eos_token
    assert labels == [-100] * len(hidden) + ids[len(hidden) :]


def test_a_batch_is_padded_on_the_right_and_padding_is_not_learnt(tokenizer: Any) -> None:
    import torch

    rows = [
        {"instruction": "a", "context": "", "response": "b"},
        {"instruction": "a", "context": "", "response": "bcd"},
    ]
    ids, labels = data.collate(rows, tokenizer, torch.device("cpu"))
    # "### Instruction:\na\n\n### Response:\n" has 17 + 3 + 14 = 34 characters;
    # then b EOS, or b c d EOS
    b, c, d = (tokenizer.convert_tokens_to_ids(x) for x in "bcd")
    assert ids.shape == labels.shape == (2, 34 + 4)
    assert ids[:, 34:].tolist() == [[b, 1, 0, 0], [b, c, d, 1]]
    assert labels[:, :34].unique().tolist() == [-100]
    assert labels[:, 34:].tolist() == [[b, 1, -100, -100], [b, c, d, 1]]


@pytest.mark.parametrize("which", ["made here", "shipped"])
def test_the_chat_template_renders_the_same_text(which: str, tokenizer: Any) -> None:
    tok = tokenizer if which == "made here" else shipped_tokenizer()
    plain = [{"role": "user", "content": "a"}]
    noted = [*plain, {"role": "system", "content": "b"}]

    def render(messages: list[dict[str, str]], ask: bool) -> str:
        return str(tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))

    assert render(plain, True) == "### Instruction:\na\n\n### Response:\n"
    assert render(noted, True) == "### Instruction:\na\n\n### Context:\nb\n\n### Response:\n"
    answered = [*noted, {"role": "assistant", "content": "c"}]
    row = {"instruction": "a", "context": "b", "response": "c"}
    assert render(answered, False) == source_format_instruction(row) + tok.eos_token


def test_the_chat_template_marks_the_tokens_of_the_assistant(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}]
    encoded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    kept = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    b, c = (tokenizer.convert_tokens_to_ids(x) for x in "bc")
    assert kept == [b, c, 1]


def test_a_plain_prompt_has_no_template() -> None:
    from course_utils.world.cases import Case

    fact = Case("attribute", "Where?", category="creature")
    assert data.plain_prompt(fact) == "pim: Where?\n"
    assert data.plain_prompt(Case("answer", "Where?", context="A note.")) == (
        "A note.\nQuestion: Where?\n"
    )


def test_showcase_and_raw_text_fit_the_profile() -> None:
    world, english = data.showcase(course()), data.showcase(course("english"))
    facts = json.loads((DATA / "world" / "facts.json").read_text("utf-8"))
    home = next(t["home"] for t in facts["things"] if t["name"] == "bell heron")
    assert world.statement == f"The bell heron lives in {home}."
    assert world.statement.startswith(world.beginning)
    assert english.statement.startswith(english.beginning)
    shipped = (DATA / "world" / "raw_sample.jsonl").read_text("utf-8")
    texts = data.raw_text(course(), 50)
    assert len(texts) == 50 and texts == data.raw_text(course(), 50)
    assert sum(t in {json.loads(x)["text"] for x in shipped.splitlines()} for t in texts) < 25
    assert len(set(data.raw_text(course("english"), 50))) == 50
