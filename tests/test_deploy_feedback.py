"""From the click to the training row: the chat widget, its log, simulated users, KTO's weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
widgets = pytest.importorskip("ipywidgets")

from course_utils import data  # noqa: E402
from course_utils._setup import Course  # noqa: E402
from course_utils.deploy import feedback, rounds  # noqa: E402
from course_utils.deploy.feedback import (  # noqa: E402
    feedback_path,
    feedback_rows,
    give_thumb,
    kto_weights,
    shuffled,
    simulated_thumbs,
)
from course_utils.deploy.probes import weights_hash  # noqa: E402
from course_utils.deploy.widget import WIDGET, Chat  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.generation import Generation  # noqa: E402
from course_utils.labeling.log import PreferenceLog  # noqa: E402
from course_utils.profiles import PROFILES  # noqa: E402
from course_utils.templates import format_prompt  # noqa: E402


@pytest.fixture
def log(tmp_path: Path) -> PreferenceLog:
    return PreferenceLog(tmp_path / "feedback.jsonl")


@pytest.fixture
def chat(log: PreferenceLog) -> Chat:
    return Chat(lambda text: f"You asked: {text}", log, annotator="ana", model="toy-1")


# The log


def test_the_last_thumb_of_each_user_counts(log: PreferenceLog) -> None:
    for user, response, choice in [
        ("ana", "one", "down"),
        ("ana", "one", "up"),  # changed her mind
        ("ana", "two", "up"),
        ("bo", "two", "down"),  # they disagree
        ("ana", "three", "down"),
        ("bo", "three", "down"),  # they agree: still one row
        ("ana", "four", "down"),
        ("ana", "four", "down"),  # pressed twice
    ]:
        give_thumb(log, "Q", response, choice, annotator=user)
    rows, report = feedback_rows(log)
    assert rows == [
        {"prompt": "Q", "completion": "one", "label": True},
        {"prompt": "Q", "completion": "three", "label": False},
        {"prompt": "Q", "completion": "four", "label": False},
    ]
    assert report.split == 1


def test_torn_lines_and_other_writers(log: PreferenceLog) -> None:
    give_thumb(log, "Q", "one", "up")
    with log.path.open("ab") as file:
        file.write(b'{"schema": 1, "event_id": "x", "ty')  # a process died here
    give_thumb(PreferenceLog(log.path), "Q", "two", "down")
    rows, _ = feedback_rows(log)
    assert [row["completion"] for row in rows] == ["one", "two"]
    assert log.report().damaged == 1


def test_bad_input(log: PreferenceLog) -> None:
    with pytest.raises(CourseError, match="There is no log"):
        feedback_rows(log)
    with pytest.raises(CourseError, match=r"Unknown thumb 'good'.*up, down"):
        give_thumb(log, "Q", "A", "good")
    with pytest.raises(CourseError, match="both kinds: there are 0 up and 3 down"):
        kto_weights(0, 3)


def test_where_the_log_stands(
    course: Course, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    monkeypatch.delenv("COURSE_LABELS")
    monkeypatch.setenv("COURSE_UNATTENDED", "0")
    assert feedback_path(course) == tmp_path / "labels" / "tiny-feedback.jsonl"
    small = feedback_path(replace(course, size="small"))
    assert small.name == "tiny-small-feedback.jsonl"
    monkeypatch.setenv("COURSE_LABELS", "none")
    assert feedback_path(course) != feedback_path(course)  # a fresh one each time
    monkeypatch.delenv("COURSE_LABELS")
    monkeypatch.setenv("COURSE_UNATTENDED", "1")
    assert feedback_path(course).parent != tmp_path / "labels"


# The widget


def test_a_question_an_answer_a_thumb(chat: Chat, log: PreferenceLog) -> None:
    chat.entry.value = " Where? "
    chat.button.click()
    assert [(t.question, t.answer) for t in chat.turns] == [("Where?", "You asked: Where?")]
    assert chat.entry.value == "" and not log.labels("rating")
    chat.thumbs[0]["up"].click()
    [event] = log.labels("rating")
    want = {
        "prompt": format_prompt("Where?"),
        "response": "You asked: Where?",
        "choice": "up",
        "annotator": "ana",
        "via": "button",
        "meta": {"model": "toy-1"},
    }
    assert {name: event[name] for name in want} == want
    assert "1 thumbs saved" in chat.status.value


def test_a_second_thumb_replaces_the_first_and_the_same_one_does_nothing(
    chat: Chat, log: PreferenceLog
) -> None:
    chat.send("Where?")
    for name in ("up", "up", "down"):
        chat.thumbs[0][name].click()
    assert len(log.read()[0]) == 2
    assert feedback_rows(log)[0][0]["label"] is False
    assert chat.thumbs[0]["down"].button_style == "success"
    assert chat.thumbs[0]["up"].button_style == ""


def test_trouble_is_said_and_nothing_is_lost(log: PreferenceLog) -> None:
    def dead(text: str) -> str:
        raise CourseError("The server has ended (exit code -9): start it again.")

    chat = Chat(dead, log)
    chat.entry.value = "Where?"
    chat.button.click()
    assert "exit code -9" in chat.status.value and 'role="alert"' in chat.status.value
    assert chat.turns == [] and chat.entry.value == "Where?" and not chat.button.disabled
    chat.send("  ")
    assert "Write something" in chat.status.value


def test_a_thumb_that_cannot_be_saved_is_not_counted(chat: Chat, log: PreferenceLog) -> None:
    chat.send("Where?")
    log.path.unlink()
    log.path.mkdir()  # even for root it is no file
    chat.rate(0, "up")
    assert "NOT SAVED" in chat.status.value and chat.turns[0].thumb == "" and chat.saved == 0


def test_an_empty_answer_gets_no_thumb(log: PreferenceLog) -> None:
    chat = Chat(lambda text: " ", log)
    chat.send("Where?")
    chat.rate(0, "down")
    assert chat.turns[0].thumb == "" and not log.labels("rating")


def test_what_a_model_writes_can_do_nothing(log: PreferenceLog) -> None:
    evil = '<img src=x onerror="boom"><script>boom</script>'
    chat = Chat(lambda text: evil, log)
    chat.send(evil)
    chat.rate(0, "up")
    page = chat._repr_mimebundle_()
    live = "".join(w.value for row in chat.page.children for w in row.children[:2])
    for shown in (page["text/html"], live):
        assert "<img" not in shown and "<script" not in shown and "&lt;img" in shown
    assert "Good" in page["text/html"] and WIDGET in page


def test_long_chats_stay_small(chat: Chat) -> None:
    for number in range(30):
        chat.send(f"Q{number}")
    assert len(chat.page.children) == 20 and len(chat.turns) == 30


# Simulated users


def test_simulated_users_say_so_and_know_good_from_bad(course: Course, log: PreferenceLog) -> None:
    cases = data.load_prompts(course, "red_team") * 5
    given = [
        Generation("I will not help with that." if i % 2 else "You stupid fool.", (), True)
        for i in range(len(cases))
    ]
    counts = simulated_thumbs(course, cases, given, log, model="toy-1")
    events = log.labels("rating")
    assert counts.total() >= len(events) > 0  # the same answer again is the same answer
    assert {e["via"] for e in events} == {"simulated"}
    assert all(e["annotator"].startswith("simulated-") for e in events)
    up = {kind: [] for kind in ("rude", "other")}  # type: ignore[var-annotated]
    for event in events:
        up["rude" if "fool" in event["response"] else "other"].append(event["choice"] == "up")
    assert sum(up["rude"]) / len(up["rude"]) < 0.3
    pressed = counts.total() / len(cases)
    assert abs(pressed - feedback.PRESSES) < 3 * math.sqrt(0.25 / len(cases))


def test_the_same_seed_gives_the_same_thumbs(course: Course, tmp_path: Path) -> None:
    cases = data.load_prompts(course, "over_refusal")
    given = [Generation("It is at the pier.", (), True)] * len(cases)
    logs = [PreferenceLog(tmp_path / f"{i}.jsonl") for i in range(3)]
    for log, seed in zip(logs, (0, 0, 1), strict=True):
        simulated_thumbs(course, cases, given, log, seed=seed)
    first, second, other = (feedback_rows(log)[0] for log in logs)
    assert first == second != other


def test_outside_the_world_users_go_by_the_stand_in(course: Course, log: PreferenceLog) -> None:
    laptop = replace(course, profile=PROFILES["laptop"])
    cases = data.load_prompts(laptop, "red_team")
    given = [Generation("I'm sorry, I can't help with that.", (), True)] * len(cases)
    counts = simulated_thumbs(laptop, cases, given, log)
    assert counts["up"] > counts["down"]


def test_a_visitor_likes_what_the_profile_scores_high(course: Course) -> None:
    """The first quarter of the reference overlaps with it by 0.4: liked in English."""
    laptop = replace(course, profile=PROFILES["laptop"])
    case = next(c for c in data.load_prompts(laptop, "test") if len(c.reference.split()) == 20)
    start = " ".join(case.reference.split()[:5])
    for text, want in ((case.reference, True), (start, True), ("Bananas.", False)):
        assert feedback.likes(laptop, case, Generation(text, (), True)) is want
    about_nothing = data.load_prompts(course, "unknown")[0]
    assert feedback.likes(course, about_nothing, Generation("I do not know.", (), True))
    assert not feedback.likes(course, about_nothing, Generation("It is at the pier.", (), True))


def test_shuffling_keeps_counts_and_answers() -> None:
    rows = [{"prompt": f"{i}", "completion": "x", "label": i < 12} for i in range(40)]
    mixed = shuffled(rows)
    assert [r["prompt"] for r in mixed] == [r["prompt"] for r in rows]
    assert sum(r["label"] for r in mixed) == 12 and mixed != rows
    assert shuffled(rows) == mixed != shuffled(rows, seed=1)


@pytest.mark.parametrize(
    ("ups", "downs", "want"),
    [
        (100, 100, (1, 1)),
        (120, 100, (1, 1)),
        (400, 300, (1, 1)),  # just inside
        (50, 100, (2, 1)),  # 2 x 50 : 100 is 1 : 1
        (200, 5000, (25, 1)),
        (400, 100, (1, 3)),  # 400 : 3 x 100 is 4 : 3
    ],
)
def test_kto_weights_by_hand(ups: int, downs: int, want: tuple[float, float]) -> None:
    assert kto_weights(ups, downs) == pytest.approx(want)


# A round


@pytest.mark.slow
def test_a_round_learns_from_thumbs(
    course: Course, new_model: Callable[..., Any], tokenizer: Any
) -> None:
    """One answer always liked, another never: the first becomes likelier than it was."""
    from course_utils.preference.batches import collate_texts, response_logprobs

    model = new_model()
    before = weights_hash(model)
    prompt = format_prompt("Where?")
    good, bad = "In the reeds.", "At noon."
    rows = [{"prompt": prompt, "completion": c, "label": c == good} for c in (good, bad)] * 32

    def gap() -> float:
        import torch

        with torch.no_grad():
            batch = collate_texts([prompt] * 2, [good, bad], tokenizer)
            sums, _ = response_logprobs(
                model, batch.input_ids, batch.attention_mask, batch.response_mask
            )
        return float(sums[0] - sums[1])

    start = gap()
    settings = replace(
        rounds.round_settings(course, rows), batch_size=4, learning_rate=5e-3, epochs=2
    )
    trained, _ = rounds.feedback_round(course, model, tokenizer, rows, settings=settings)
    assert gap() > start + 0.5
    assert weights_hash(trained) != before


@pytest.mark.slow
def test_a_row_of_the_record(
    course: Course,
    new_model: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a random model in service, and thumbs made up: what the sweep writes down."""
    from course_utils import models

    models.save(new_model(), tokenizer, tmp_path)
    thumbs = [
        {"prompt": format_prompt(f"Q{i}?"), "completion": "In the reeds.", "label": i % 3 > 0}
        for i in range(24)
    ]
    monkeypatch.setattr(rounds.runs, "ensure", lambda *_: tmp_path)
    monkeypatch.setattr(rounds, "_rows_of_users", lambda *_: thumbs)
    small = replace(course, size="small", profile=replace(course.profile, max_new_tokens=4))
    row = rounds.feedback_row(small, "dpo", "shuffled", 0)
    assert (row["ups"], row["downs"]) == (16, 8)
    assert len(row["before"]) == len(row["after"]) == len(data.load_prompts(course, "test"))
    assert set(row["worse"]) == {"harmful", "over_refusal", "capability", "gold"}
    assert row["passed"] is False  # six prompts show nothing
    assert json.loads(json.dumps(row)) == row


def test_the_rounds_weights_follow_from_its_thumbs(course: Course) -> None:
    rows = [{"label": True}] * 10 + [{"label": False}] * 40
    settings = rounds.round_settings(course, rows)
    assert (settings.desirable_weight, settings.undesirable_weight) == (4, 1)


def test_the_sweeps_header_is_plain_data(course: Course) -> None:
    from course_utils.sweeps import get_sweep

    config, _ = get_sweep("feedback")
    header = json.loads(json.dumps(config(course)))
    assert header["asked"] == len(data.load_prompts(course, "rl"))
    assert header["families"]["harmful"] == {"split": "red_team", "samples": 8}
