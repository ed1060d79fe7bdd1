"""Preference data of every accepted form: the prompt is found, and nothing is lost in silence."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest

from course_utils import preference
from course_utils.errors import CourseError
from course_utils.templates import format_prompt

HEAD = "\n\nHuman: Where does the heron live?\n\nAssistant:"


def dialogue(chosen: str, rejected: str, head: str = HEAD) -> dict[str, str]:
    return {"chosen": head + chosen, "rejected": head + rejected}


def one(row: dict[str, Any], tokenizer: Any = None) -> dict[str, str]:
    (pair,), report = preference.prepare_pairs([row], tokenizer)
    assert report.kept == 1 and report.left_out == 0
    return pair


# --- hh-rlhf ----------------------------------------------------------------------------------


def test_whole_dialogues() -> None:
    assert one(dialogue(" In the reeds.", " Who knows?")) == {
        "prompt": HEAD,
        "chosen": " In the reeds.",
        "rejected": " Who knows?",
    }


def test_a_shared_beginning_belongs_to_the_answers() -> None:
    pair = one(dialogue(" In the reeds.", " In the tower."))
    assert pair["prompt"] == HEAD
    assert (pair["chosen"], pair["rejected"]) == (" In the reeds.", " In the tower.")
    pair = one(dialogue(" In the reeds.", " In the reeds. I hope that helps!"))
    assert pair["prompt"] == HEAD and pair["chosen"] == " In the reeds."


def test_dialogues_of_several_turns() -> None:
    head = "\n\nHuman: What is it?\n\nAssistant: A heron.\n\nHuman: And its home?\n\nAssistant:"
    pair = one(dialogue(" In the reeds.", " In the tower.", head))
    assert pair == {"prompt": head, "chosen": " In the reeds.", "rejected": " In the tower."}


def test_dialogues_come_back_whole() -> None:
    row = dialogue("\n\nLines\n\nof an answer.  ", " Another: answer.")
    pair = one(row)
    assert pair["prompt"] + pair["chosen"] == row["chosen"]
    assert pair["prompt"] + pair["rejected"] == row["rejected"]


# --- Text -------------------------------------------------------------------------------------


def test_text_beside_a_prompt_stays_as_it_is() -> None:
    row = {"prompt": "Why?\n", "chosen": "Because.", "rejected": "Because not.", "margin": 1.0}
    assert one(row) == {"prompt": "Why?\n", "chosen": "Because.", "rejected": "Because not."}
    # A prompt column settles it, even where the text looks like a dialogue.
    row = {"prompt": "Quote it.\n", "chosen": f"{HEAD} yes", "rejected": f"{HEAD} no"}
    assert one(row)["chosen"] == f"{HEAD} yes"


# --- Chat messages ----------------------------------------------------------------------------


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


QUESTION, CHOSEN, REJECTED = "Where does it live?", "In the reeds.", "In the tower."
IMPLICIT = {
    "chosen": [user(QUESTION), assistant(CHOSEN)],
    "rejected": [user(QUESTION), assistant(REJECTED)],
}


@pytest.mark.parametrize(
    "row",
    [
        IMPLICIT,
        {
            "prompt": [user(QUESTION)],
            "chosen": [assistant(CHOSEN)],
            "rejected": [assistant(REJECTED)],
        },
        {"prompt": [user(QUESTION)], **IMPLICIT},  # the prompt is repeated in the sides
        {"prompt": QUESTION, **IMPLICIT},  # UltraFeedback's way
        {"prompt": QUESTION, "chosen": [assistant(CHOSEN)], "rejected": [assistant(REJECTED)]},
    ],
    ids=["implicit", "explicit", "repeated", "ultrafeedback", "text prompt"],
)
def test_chat_messages(row: dict[str, Any], tokenizer: Any) -> None:
    assert one(row, tokenizer) == {
        "prompt": format_prompt(QUESTION),
        "chosen": CHOSEN,
        "rejected": REJECTED,
    }


def test_chats_of_several_turns(tokenizer: Any) -> None:
    before = [user("What is that?"), assistant("A heron."), user(QUESTION)]
    row = {"chosen": [*before, assistant(CHOSEN)], "rejected": [*before, assistant(REJECTED)]}
    pair = one(row, tokenizer)
    # The template ends every earlier answer with the EOS.
    asked = format_prompt("What is that?") + "A heron." + tokenizer.eos_token
    assert pair["prompt"] == asked + format_prompt(QUESTION)
    assert (pair["chosen"], pair["rejected"]) == (CHOSEN, REJECTED)


def test_chats_tokenise_as_trl_tokenises_them(tokenizer: Any) -> None:
    pair = one(IMPLICIT, tokenizer)
    batch = preference.collate_pairs([pair], tokenizer)
    for row, side in enumerate(("chosen", "rejected")):
        whole = tokenizer.apply_chat_template(IMPLICIT[side], return_dict=True)["input_ids"]
        assert batch.input_ids[row][batch.attention_mask[row].bool()].tolist() == whole


def test_a_template_with_ends_of_turn_and_bos(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    other = deepcopy(tokenizer)
    other.add_special_tokens({"bos_token": "<bos>", "eos_token": "<end>"})
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", other.bos_token_id)]
    )
    other.chat_template = (
        "<bos>{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    assert one(IMPLICIT, other) == {
        "prompt": f"[user] {QUESTION}<end>\n[assistant] ",  # the tokenizer adds the BOS itself
        "chosen": CHOSEN,
        "rejected": REJECTED,
    }


def test_chats_need_a_template_that_keeps_the_prompt(tokenizer: Any) -> None:
    with pytest.raises(CourseError, match="Row 0 holds chat messages: pass a tokenizer"):
        preference.prepare_pairs([IMPLICIT])
    other = deepcopy(tokenizer)
    other.chat_template = None
    with pytest.raises(CourseError, match="chat template"):
        preference.prepare_pairs([IMPLICIT], other)
    other.chat_template = "{{ 'asked' if add_generation_prompt else 'told' }}"
    with pytest.raises(CourseError, match="writes a prompt differently once it is answered"):
        preference.prepare_pairs([IMPLICIT], other)


# --- What is left out -------------------------------------------------------------------------


def test_what_is_left_out_is_counted(tokenizer: Any) -> None:
    rows = [
        dialogue(" Yes.", " Yes."),  # 0: equal
        dialogue(" Yes.", " No."),
        dialogue(" Yes.", "Yes. "),  # 2: equal but for blanks
        dialogue(" Yes.", "  "),  # 3: empty
        dialogue("", " No."),  # 4: empty
        {"chosen": f"{HEAD} Yes.", "rejected": "\n\nHuman: What?\n\nAssistant: No."},  # 5
        {"chosen": "Yes.", "rejected": "No."},  # 6: no prompt at all
        {"prompt": "Why? ", "chosen": "Yes.", "rejected": "No."},
        {"prompt": " \n", "chosen": "Yes.", "rejected": "No."},  # 8: no prompt
        {"prompt": "Why? ", "chosen": "", "rejected": ""},  # 9: empty rather than equal
        {"chosen": [user("A?"), assistant("Yes.")], "rejected": [user("B?"), assistant("No.")]},
        {"chosen": [user("A?"), assistant("Yes.")], "rejected": [user("A?")]},  # 11: no answer
        {"chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},  # 12: no prompt
        IMPLICIT,
    ]
    kept, report = preference.prepare_pairs(rows, tokenizer)
    assert [pair["prompt"] for pair in kept] == [HEAD, "Why? ", format_prompt(QUESTION)]
    assert report == preference.PairReport(
        kept=3, equal=2, empty=4, no_shared_prompt=5,
        first={"equal": 0, "empty": 3, "no_shared_prompt": 5},
    )  # fmt: skip
    assert report.kept + report.left_out == len(rows)
    assert str(report) == (
        "3 of 14 pairs kept; left out: 2 with equal sides (first: row 0), "
        "4 with an empty side (first: row 3), 5 without a shared prompt (first: row 5)"
    )


def test_a_clean_report_says_so() -> None:
    _, report = preference.prepare_pairs([dialogue(" Yes.", " No.")] * 2)
    assert str(report) == "2 of 2 pairs kept"


def test_no_usable_pair_is_an_error() -> None:
    with pytest.raises(CourseError, match=r"No pair .*0 of 1 pairs kept; left out: 1 with equal"):
        preference.prepare_pairs([dialogue(" Yes.", " Yes.")])
    with pytest.raises(CourseError, match="No pair"):
        preference.prepare_pairs([])


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": f"{HEAD} Yes."},
        {"prompt": "Why?", "chosen": "Yes.", "rejected": None},
        {"prompt": "Why?", "chosen": "Yes.", "rejected": 3},
        {"prompt": 5, "chosen": "Yes.", "rejected": "No."},
        {"prompt": [user("A?")], "chosen": "Yes.", "rejected": "No."},
        {"chosen": [], "rejected": [assistant("No.")]},
        {"chosen": [{"from": "gpt", "value": "Yes."}], "rejected": [assistant("No.")]},
    ],
)
def test_other_forms_are_refused_with_the_accepted_ones(
    row: dict[str, Any], tokenizer: Any
) -> None:
    rows = [dialogue(" Yes.", " No."), row]
    accepted = r"Row 1, (chosen|rejected): .*hh-rlhf.*text beside a prompt.*messages"
    with pytest.raises(CourseError, match=accepted):
        preference.prepare_pairs(rows, tokenizer)


# --- Lengths ----------------------------------------------------------------------------------


def test_too_long(tokenizer: Any) -> None:
    def count(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    prompt = "Where does the heron live?\n"
    short, long = "Reeds.", "In the reeds of the Upper Mere, they say."
    rows = [
        {"prompt": prompt, "chosen": short, "rejected": long},
        {"prompt": prompt, "chosen": short, "rejected": long},
        {"prompt": prompt, "chosen": long, "rejected": short},
        {"prompt": prompt * 5, "chosen": short, "rejected": short},
    ]
    fits = count(prompt + long) + 1  # and the EOS
    assert count(prompt + short) + 1 < fits - 1 <= count(prompt * 5)
    widest = count(prompt * 5 + short) + 1
    report = preference.too_long(rows, tokenizer, fits)
    assert report == preference.LengthReport(fits, 8, widest, {"chosen": 1, "rejected": 1}, 2)
    report = preference.too_long(rows, tokenizer, fits - 1)
    assert report.cut == {"chosen": 2, "rejected": 3} and report.no_room == 2
    assert str(report) == (
        f"of 8 sequences 5 exceed {fits - 1} tokens (longest: {widest}) and are cut at the end: "
        "2 chosen, 3 rejected; 2 keep nothing of the response"
    )
    whole = preference.too_long(rows, tokenizer, widest)
    assert str(whole) == f"all 8 sequences fit into {widest} tokens (longest: {widest})"
    # What the report says of the limit is what the batch does.
    batch = preference.collate_pairs(rows, tokenizer, max_length=fits - 1)
    empty = (~batch.response_mask.any(-1)).sum()
    last = batch.attention_mask.sum(-1) - 1
    ended = batch.input_ids.gather(1, last[:, None]).squeeze(1) == tokenizer.eos_token_id
    assert batch.input_ids.shape == (8, fits - 1) and empty == 2
    assert (~ended).sum() == 5  # the cut ones have lost their EOS


def test_too_long_of_thumbs(tokenizer: Any) -> None:
    rows = [{"prompt": "Why?\n", "completion": "Because it is so.", "label": True}]
    assert preference.too_long(rows, tokenizer, 6).cut == {"completion": 1}
    assert preference.too_long([], tokenizer, 6).sequences == 0


# --- Thumbs -----------------------------------------------------------------------------------

PAIRS = [
    {"prompt": "A", "chosen": "a1", "rejected": "a0"},
    {"prompt": "B", "chosen": "b1", "rejected": "b0"},
]


def test_unpair() -> None:
    assert preference.unpair(PAIRS) == [
        {"prompt": "A", "completion": "a1", "label": True},
        {"prompt": "B", "completion": "b1", "label": True},
        {"prompt": "A", "completion": "a0", "label": False},
        {"prompt": "B", "completion": "b0", "label": False},
    ]


def test_mismatched_keeps_prompts_and_moves_completions() -> None:
    moved = preference.mismatched(preference.unpair(PAIRS))
    assert [(r["prompt"], r["completion"]) for r in moved] == [
        ("A", "b0"), ("B", "a1"), ("A", "b1"), ("B", "a0"),
    ]  # fmt: skip
    assert not {(r["prompt"].lower(), r["completion"][0]) for r in moved} & {("a", "a"), ("b", "b")}


def test_one_kind_of_label_is_an_error() -> None:
    thumbs = preference.unpair(PAIRS)
    for kind, says in ((True, "2 of 2"), (False, "0 of 2")):
        with pytest.raises(CourseError, match=re.escape(f"here {says} are thumbs up")):
            preference.require_both_labels([r for r in thumbs if r["label"] is kind])
    with pytest.raises(CourseError, match="both kinds"):
        preference.unpair([])
