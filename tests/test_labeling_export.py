"""Export, import, and the round trip: what was chosen in the widget is what a model learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from course_utils.errors import CourseError
from course_utils.labeling.export import (
    import_labels,
    to_preferences,
    to_thumbs,
    unlabelled_pairs,
)
from course_utils.labeling.items import Pair
from course_utils.labeling.log import PreferenceLog
from course_utils.labeling.session import PreferenceSession, RatingSession
from course_utils.labeling.simulate import label_with

CHOICES: dict[str, Any] = {
    "Q0": ("a", 3),
    "Q1": ("b", 1),
    "Q2": "tie",
    "Q3": "both_bad",
    "Q4": "skip",
    "Q5": ("b", 2),
    "Q6": ("a", 2),  # an attention check
}


def rows(count: int = 7) -> list[dict[str, Any]]:
    made = [{"prompt": f"Q{i}", "response_a": f"A{i}", "response_b": f"B{i}"} for i in range(count)]
    return [{**row, "gold": "a"} if row["prompt"] == "Q6" else row for row in made]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


@pytest.fixture
def session(path: Path) -> PreferenceSession:
    session = PreferenceSession(rows(), path, "ana")
    label_with(session, lambda pair: CHOICES[pair.prompt])
    return session


def by_prompt(data: Any) -> dict[str, dict[str, Any]]:
    return {row["prompt"]: row for row in data}


def test_pairs_for_reward_models_and_what_is_left_out(session: PreferenceSession) -> None:
    data, report = to_preferences(session)
    assert {p: (r["chosen"], r["rejected"]) for p, r in by_prompt(data).items()} == {
        "Q0": ("A0", "B0"),
        "Q1": ("B1", "A1"),
        "Q5": ("B5", "A5"),
    }
    margins = {p: r["margin"] for p, r in by_prompt(data).items()}
    assert margins == pytest.approx({"Q0": 1.0, "Q1": 1 / 3, "Q5": 2 / 3})
    assert str(report) == (
        "3 of 7 labelled items kept; left out: 1 ties, 1 both bad, 1 skipped, 1 attention checks"
    )
    assert (report.kept, report.rows, report.left_out) == (3, 3, 4)
    assert by_prompt(data)["Q0"]["pair_id"] == Pair("Q0", "A0", "B0").pair_id


def test_the_log_its_path_and_the_session_say_the_same(
    session: PreferenceSession, path: Path
) -> None:
    expected = to_preferences(session)[0].to_list()
    for source in (path, str(path), PreferenceLog(path)):
        assert to_preferences(source)[0].to_list() == expected


def test_several_annotators(session: PreferenceSession, path: Path) -> None:
    for name, choice in (("bo", ("b", 3)), ("cy", ("b", 3))):
        label_with(PreferenceSession(rows(), path, name), lambda pair, c=choice: c)
    data, report = to_preferences(path)
    found = by_prompt(data)
    assert found["Q0"]["chosen"] == "B0"
    assert found["Q0"]["margin"] == pytest.approx(1 / 3)  # (1 + 1 - 1) / 3
    assert found["Q0"]["votes"] == pytest.approx(2 / 3)
    assert found["Q2"]["votes"] == 1.0 and found["Q2"]["margin"] == pytest.approx(2 / 3)
    assert (report.kept, report.attention) == (6, 1)
    assert to_preferences(path, annotators=["ana"])[1].kept == 3
    both = to_preferences(path, annotators=["ana", "bo"])[1]
    assert (both.kept, both.split) == (3, 3)  # Q1, Q4, Q5 agree; Q0, Q2 and Q3 are split
    assert to_preferences(path, method="reliability")[1].kept == 6
    with pytest.raises(CourseError, match="Unknown annotator 'dee'"):
        to_preferences(path, annotators=["dee"])


def test_thumbs_from_pairs_and_ratings(session: PreferenceSession, path: Path) -> None:
    answers = [{"prompt": "R", "response": text} for text in ("good", "bad", "unclear")]
    answers.append({"prompt": "R", "response": "check", "gold": "up"})
    thumbs = {"good": "up", "bad": "down", "unclear": "skip", "check": "up"}
    ratings = RatingSession(answers, path, "ana")
    label_with(ratings, lambda answer: thumbs[answer.response])
    label_with(
        RatingSession(answers[:2], path, "bo"), lambda a: "up" if a.response == "bad" else "skip"
    )
    data, report = to_thumbs(path)
    found = {(r["prompt"], r["completion"]): r["label"] for r in data}
    assert found == {
        ("R", "good"): True,
        ("Q0", "A0"): True,
        ("Q0", "B0"): False,
        ("Q1", "B1"): True,
        ("Q1", "A1"): False,
        ("Q5", "B5"): True,
        ("Q5", "A5"): False,
        ("Q3", "A3"): False,
        ("Q3", "B3"): False,
    }
    assert (report.kept, report.rows) == (5, 9)
    assert (report.tie, report.skip, report.attention, report.split) == (1, 2, 2, 1)
    alone, report = to_thumbs(path, pairs=False)
    assert alone.to_list() == [{"prompt": "R", "completion": "good", "label": True}]
    assert (report.kept, report.rows, report.skip) == (1, 1, 1)
    own, _ = to_thumbs(ratings)
    assert {r["completion"] for r in own} == {"good", "bad"}


def test_the_course_trains_on_what_is_exported(session: PreferenceSession, tokenizer: Any) -> None:
    from course_utils.preference import training_rows

    assert len(training_rows(to_preferences(session)[0], tokenizer, 64)) == 3
    assert len(training_rows(to_thumbs(session)[0], tokenizer, 64, method="kto")) == 8


def test_nothing_to_learn_from_is_an_error(path: Path) -> None:
    with pytest.raises(CourseError, match=r"no log labels\.jsonl: label first"):
        to_preferences(path)
    label_with(PreferenceSession(rows(2), path), lambda pair: "tie")
    for export in (to_preferences, to_thumbs):
        with pytest.raises(CourseError, match="0 of 2 labelled items kept; left out: 2 ties"):
            export(path)


def test_text_that_no_other_program_takes_is_exported(path: Path) -> None:
    odd = {"prompt": "Q\ud83d", "response_a": "A\u2028x", "response_b": "عربي"}
    label_with(PreferenceSession([odd], path), lambda pair: ("a", 1))
    (row,) = to_preferences(path)[0]
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Q?", "A\u2028x", "عربي")


# Import

HH = [
    {
        "chosen": f"\n\nHuman: Q{i}\n\nAssistant: good {i}",
        "rejected": f"\n\nHuman: Q{i}\n\nAssistant: bad {i}",
    }
    for i in range(20)
]


def write(path: Path, made: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_hh_rlhf_comes_in_and_goes_out(path: Path, tmp_path: Path) -> None:
    equal = {"chosen": HH[0]["chosen"], "rejected": HH[0]["chosen"]}
    file = write(tmp_path / "hh.jsonl", [*HH, equal, HH[3]])
    report = import_labels(file, path, "hh")
    assert (report.written, report.already) == (20, 1)
    assert report.pairs is not None and report.pairs.equal == 1
    assert "20 labels written, 1 already there; 21 of 22 pairs kept" in str(report)
    data, _ = to_preferences(path)
    assert {(r["prompt"], r["chosen"], r["rejected"]) for r in data} == {
        (f"\n\nHuman: Q{i}\n\nAssistant:", f" good {i}", f" bad {i}") for i in range(20)
    }
    assert {r["margin"] for r in data} == {1.0}
    assert import_labels(file, path, "hh").written == 0  # twice changes nothing
    assert {e["choice"] for e in PreferenceLog(path).labels()} == {"a", "b"}  # blind


def test_trl_files_come_in(path: Path, tokenizer: Any) -> None:
    text = [{"prompt": "Q", "chosen": "good", "rejected": "bad"}]
    assert import_labels(text, path, "text").written == 1
    chat = [
        {
            "prompt": [{"role": "user", "content": "Q"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        }
    ]
    with pytest.raises(CourseError, match="pass a tokenizer"):
        import_labels(chat, path, "chat")
    assert import_labels(chat, path, "chat", tokenizer).written == 1
    (row,) = to_preferences(path, annotators=["chat"])[0]
    assert "Q" in row["prompt"] and (row["chosen"], row["rejected"]) == ("good", "bad")
    thumbs = [
        {"prompt": "Q", "completion": "good", "label": True},
        {"prompt": "Q", "completion": "bad", "label": False},
    ]
    assert import_labels(thumbs, path, "kto").written == 2
    assert to_thumbs(path, pairs=False)[0].to_list() == thumbs
    with pytest.raises(CourseError, match="Row 1: a thumb has"):
        import_labels([thumbs[0], {**thumbs[1], "completion": ""}], path, "kto")


def test_imported_pairs_can_be_labelled_afresh_without_a_hint(path: Path) -> None:
    given, report = unlabelled_pairs(HH)
    assert report.kept == 20
    assert {"good" in row["response_a"] for row in given} == {True, False}
    session = PreferenceSession(given, path, "me")
    label_with(session, lambda p: ("a" if "good" in p.response_a else "b", 3))
    import_labels(HH, path, "hh")
    from course_utils.labeling.agreement import cohen_kappa

    assert cohen_kappa(PreferenceLog(path).labels(), "me", "hh").value == 1.0  # the same pairs


# The round trip

QUESTIONS = 12


@pytest.mark.heavy
@pytest.mark.parametrize("inverted", [False, True], ids=["as chosen", "inverted"])
def test_a_reward_model_prefers_what_was_clicked(
    inverted: bool,
    path: Path,
    tmp_path: Path,
    tokenizer: Any,
    new_model: Callable[..., Any],
    course: Any,
) -> None:
    pytest.importorskip("ipywidgets")
    from course_utils import models, reward
    from course_utils.labeling.widgets import PreferenceLabeler

    polite = "It lives in the reeds."
    pairs = []
    for i in range(QUESTIONS):  # which content is a and which is b is mixed
        answers = [f"{polite} Small fish {i}.", f"Noon! The ferry crosses {i}!"]
        a, b = answers if i % 3 else reversed(answers)
        pairs.append({"prompt": f"Where {i}?\n", "response_a": a, "response_b": b})
    labeler = PreferenceLabeler(pairs, path, min_seconds=0)
    while labeler.session.current:
        left_is_polite = labeler.session.current.left_text.startswith(polite)
        labeler.buttons["left-3" if left_is_polite != inverted else "right-3"].click()
    data, report = to_preferences(path)
    assert report.kept == QUESTIONS
    assert all(row["chosen"].startswith(polite) != inverted for row in data)

    models.save(new_model(), tokenizer, tmp_path / "lm")
    model, _ = reward.new_reward_model(tmp_path / "lm", course)
    settings = reward.RewardSettings(epochs=6, learning_rate=1e-2, batch_size=4, max_length=64)
    reward.train(course, model, tokenizer, data, settings)
    # on a question nobody labelled
    polite_score, other_score = (
        reward.get_reward(model, tokenizer, "Where 99?\n", text)
        for text in (f"{polite} Small fish 99.", "Noon! The ferry crosses 99!")
    )
    assert (polite_score > other_score) is not inverted
    assert reward.accuracy(reward.pair_margins(model, tokenizer, data)) == 1.0
