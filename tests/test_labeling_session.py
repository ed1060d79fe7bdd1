"""Sessions: order, sides, decisions, undo, resuming, and annotators who do not see each other."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from course_utils.errors import CourseError
from course_utils.labeling.items import Pair, in_blind_order, read_pairs
from course_utils.labeling.log import PreferenceLog
from course_utils.labeling.session import PreferenceSession, RatingSession
from course_utils.labeling.simulate import label_with, world_annotator


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Q{i}", "response_a": f"A{i}", "response_b": f"B{i}", **more}
        for i in range(count)
    ]


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "labels.jsonl"


# Rows


def test_rows_that_cannot_be_labelled_are_left_out_and_counted(path: Path) -> None:
    bad = [
        {"prompt": "Q0", "response_a": "A0", "response_b": "B0"},  # row 3: again
        {"prompt": "Q0", "response_a": "B0", "response_b": "A0"},  # row 4: again, swapped
        {"prompt": "Q", "response_a": "same", "response_b": " same\n"},
        {"prompt": "Q", "response_a": "", "response_b": "x"},
        {"prompt": " ", "response_a": "y", "response_b": "x"},
    ]
    session = PreferenceSession([*rows(3), *bad], path)
    report = session.report
    assert (report.kept, report.duplicate, report.identical, report.empty) == (3, 2, 1, 2)
    assert report.first == {"duplicate": 3, "identical": 5, "empty": 6}
    assert str(report) == (
        "3 of 8 rows kept; left out: 2 seen before (first: row 3), "
        "1 with identical answers (first: row 5), 2 with an empty text (first: row 6)"
    )
    assert session.total == 3
    with pytest.raises(CourseError, match=r"nothing to label.*2 with an empty text"):
        PreferenceSession(bad[3:], path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Q", "response_a": "A"}, "Row 1: give prompt, response_a, response_b"),
        ({**rows(1)[0], "prompt": None}, "Row 1: give"),
        ("text", "Row 1: give"),
        ({**rows(1)[0], "gold": "left"}, "gold is 'left'; legal: a, b, tie, both_bad"),
        ({**rows(1)[0], "meta": "x"}, "give an object"),
        ({**rows(1)[0], "score": float("nan")}, "cannot be written as JSON"),
        ({**rows(1)[0], "model": object()}, "cannot be written as JSON"),
    ],
)
def test_rows_of_another_form_are_named(row: Any, message: str, path: Path) -> None:
    with pytest.raises(CourseError, match=message):
        PreferenceSession([rows(2)[1], row], path)


def test_columns_that_are_not_shown_are_logged(path: Path) -> None:
    session = PreferenceSession(rows(1, source={"a": "sft", "b": "base"}, meta={"n": 1}), path)
    assert session.decide("a", 1)["meta"] == {"n": 1, "source": {"a": "sft", "b": "base"}}


def test_the_id_of_a_pair_depends_on_its_texts_alone() -> None:
    one, other = Pair("Q", "A", "B"), Pair("Q", "A", "B", gold="a", meta={"x": 1})
    assert one.pair_id == other.pair_id
    assert len({one.pair_id, Pair("Q", "B", "A").pair_id, Pair("QA", "", "B").pair_id}) == 3
    assert in_blind_order("x", "y") == in_blind_order("y", "x")
    assert read_pairs([one])[0] == [one]


def test_a_log_that_cannot_be_written_stops_before_the_first_label(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="cannot be saved"):
        PreferenceSession(rows(2), tmp_path / "file" / "labels.jsonl")


# Order and sides


def order_and_sides(session: PreferenceSession) -> list[tuple[str, str]]:
    shown = []
    while session.current:
        shown.append((session.current.pair.prompt, session.current.left))
        session.decide("skip")
    return shown


def test_sides_are_balanced_in_fours_and_recorded(path: Path) -> None:
    session = PreferenceSession(rows(42), path)
    sides = [left for _, left in order_and_sides(session)]
    for start in range(0, 40, 4):
        assert Counter(sides[start : start + 4]) == {"a": 2, "b": 2}
    assert len({tuple(sides[start : start + 4]) for start in range(0, 40, 4)}) > 2  # not one block
    assert [label["left"] for label in session.labels] == sides


def test_order_and_sides_follow_from_seed_and_annotator(tmp_path: Path) -> None:
    def shown(number: int, annotator: str, seed: int) -> list[tuple[str, str]]:
        path = tmp_path / f"{number}.jsonl"
        return order_and_sides(PreferenceSession(rows(12), path, annotator, seed))

    first = shown(0, "ana", 0)
    assert first == shown(1, "ana", 0)
    assert first != shown(2, "bo", 0) and first != shown(3, "ana", 1)
    assert sorted(prompt for prompt, _ in first) == sorted(f"Q{i}" for i in range(12))
    assert [prompt for prompt, _ in first] != [f"Q{i}" for i in range(12)]


def test_a_choice_is_recorded_by_content_whatever_the_side(path: Path) -> None:
    session = PreferenceSession(rows(8), path)
    while session.current:
        shown = session.current
        texts = {"a": shown.pair.response_a, "b": shown.pair.response_b}
        assert texts[shown.left] == shown.left_text and texts[shown.right] == shown.right_text
        label = session.decide(shown.content("left"), 2)
        assert label[f"response_{label['choice']}"] == shown.left_text
    assert set(session.counts) == {"a", "b"}
    with pytest.raises(CourseError, match="Unknown side"):
        shown.content("up")


# Decisions


def test_a_label_holds_all_that_is_known(path: Path) -> None:
    clock = Clock()
    session = PreferenceSession(rows(2, gold="a"), path, "ana", clock=clock)
    shown = session.current
    assert shown is not None
    clock.now += 2.5
    event = session.decide(
        "a", 3, rationale="clear", criteria={"honest": "b", "helpful": "tie"}, via="button"
    )
    for name, value in {
        "type": "label",
        "pair_id": shown.pair.pair_id,
        "annotator": "ana",
        "choice": "a",
        "strength": 3,
        "levels": 3,
        "left": shown.left,
        "rationale": "clear",
        "criteria": {"honest": "b", "helpful": "tie"},
        "via": "button",
        "seconds": 2.5,
        "n_shown": 1,
        "gold": "a",
        **shown.pair.texts,
    }.items():
        assert event[name] == value
    assert PreferenceLog(path).labels() == [event]
    clock.now += 1
    assert session.decide("tie")["seconds"] == 1.0
    assert session.attention == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("left", 1), {}, "Unknown choice 'left'"),
        (("a",), {}, "strength is None: say how strongly, from 1"),
        (("a", 4), {}, "strength is 4"),
        (("b", 0), {}, "strength is 0"),
        (("tie", 1), {}, "has no strength"),
        (("a", 1), {"criteria": {"funny": "a"}}, "Unknown criterion 'funny'"),
        (("a", 1), {"criteria": {"honest": "left"}}, "Unknown verdict 'left'"),
    ],
)
def test_what_is_not_legal_is_named_and_changes_nothing(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str, path: Path
) -> None:
    session = PreferenceSession(rows(2), path)
    before = session.current
    with pytest.raises(CourseError, match=message):
        session.decide(*arguments, **options)
    assert session.current == before and path.read_bytes() == b""


def test_one_level_needs_no_strength(path: Path) -> None:
    label = PreferenceSession(rows(1), path, levels=1).decide("b")
    assert (label["strength"], label["levels"]) == (1, 1)
    with pytest.raises(CourseError, match="levels is 2"):
        PreferenceSession(rows(1), path, levels=2)
    with pytest.raises(CourseError, match="needs a name"):
        PreferenceSession(rows(1), path, " ")


def test_the_end_is_reached_once(path: Path) -> None:
    session = PreferenceSession(rows(1), path)
    session.decide("both_bad")
    assert session.finished and session.current is None and session.done == session.total == 1
    with pytest.raises(CourseError, match="All 1 items are labelled"):
        session.decide("a", 1)


def test_a_label_that_cannot_be_saved_leaves_everything_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = PreferenceSession(rows(2), path)
    before = session.current

    def fail(_: object) -> None:
        raise CourseError("full")

    with monkeypatch.context() as patch:
        patch.setattr(session.log, "append", fail)
        with pytest.raises(CourseError):
            session.decide("a", 1)
    assert session.current == before and session.done == 0
    session.decide("a", 1)
    assert session.done == 1


# Undo, amend, resume


def test_undo_shows_the_last_pair_again_and_can_go_on_to_the_first(path: Path) -> None:
    session = PreferenceSession(rows(3), path)
    first = session.current
    session.decide("a", 1)
    second = session.current
    session.decide("b", 2)
    assert session.undo()["choice"] == "b"
    assert session.current == second and session.done == 1
    assert session.undo()["choice"] == "a"
    assert session.current == first and session.done == 0
    assert session.undo() is None
    session.decide("tie")
    assert session.current == second
    assert [e["choice"] for e in PreferenceLog(path).labels()] == ["tie"]
    assert PreferenceLog(path).report().events == 5  # nothing was erased


def test_undo_works_from_the_end_and_across_a_restart(path: Path) -> None:
    session = PreferenceSession(rows(3), path)
    for choice in ("tie", "skip", "both_bad"):
        last = session.current
        session.decide(choice)
    resumed = PreferenceSession(rows(3), path)
    assert resumed.finished
    assert resumed.undo()["choice"] == "both_bad"
    assert resumed.current == last


def test_a_session_resumes_from_the_file(path: Path) -> None:
    session = PreferenceSession(rows(10), path, "ana")
    whole = order_and_sides(PreferenceSession(rows(10), path.with_name("other.jsonl"), "ana"))
    for _ in range(4):
        session.decide("a", 1)
    with path.open("ab") as file:
        file.write(b'{"torn')
    resumed = PreferenceSession(rows(10), path, "ana")
    assert (resumed.done, resumed.resumed, resumed.log_report.damaged) == (4, 4, 1)
    assert [e["event_id"] for e in resumed.labels] == [e["event_id"] for e in session.labels]
    assert order_and_sides(resumed) == whole[4:]


def test_other_pairs_in_the_log_do_not_count_and_are_reported(path: Path) -> None:
    label_with(PreferenceSession(rows(3), path), lambda pair: "skip")
    session = PreferenceSession([{**row, "prompt": "other"} for row in rows(2)], path)
    assert (session.done, session.elsewhere) == (0, 3)


def test_annotators_share_a_file_and_do_not_see_each_other(path: Path) -> None:
    ana, bo = (PreferenceSession(rows(4), path, name) for name in ("ana", "bo"))
    label_with(ana, lambda pair: ("a", 1))
    bo.decide("b", 3)
    for session in (bo, PreferenceSession(rows(4), path, "bo")):
        assert session.done == 1
        assert [label["choice"] for label in session.labels] == ["b"]
    bo.undo()
    assert bo.undo() is None  # ana's labels are not bo's to take back
    assert PreferenceSession(rows(4), path, "ana").finished


def test_an_amendment_changes_words_and_no_choice(path: Path) -> None:
    session = PreferenceSession(rows(2), path)
    label = session.decide("a", 2, rationale="fas")
    assert session.amend(label, rationale="faster", criteria={"honest": "a"}) is not None
    session.amend(label, rationale="faster")  # no change, no event
    stored = PreferenceLog(path).labels()[0]
    assert (stored["rationale"], stored["criteria"]) == ("faster", {"honest": "a"})
    assert (stored["choice"], stored["strength"]) == ("a", 2)
    assert PreferenceLog(path).report().events == 2
    with pytest.raises(CourseError, match="Unknown field to amend 'choice'"):
        session.amend(label, choice="b")
    session.undo()
    assert session.amend(label, rationale="late") is None
    assert PreferenceLog(path).report().unmatched == 0


def test_attention_checks_count_without_skips(path: Path) -> None:
    session = PreferenceSession([*rows(2), *rows(5, gold="b")[2:]], path)
    answers = iter(["b", "a", "skip"])

    def annotate(pair: Pair) -> Any:
        choice = next(answers) if pair.gold else "tie"
        return choice if choice in ("tie", "skip") else (choice, 1)

    label_with(session, annotate)
    assert session.attention == (1, 2)


# Ratings


def test_ratings_go_into_the_same_log(path: Path) -> None:
    label_with(PreferenceSession(rows(2), path), lambda pair: "tie")
    answers = [{"prompt": "Q", "response": f"A{i}", "model": "m"} for i in range(3)]
    session = RatingSession([*answers, answers[0], {"prompt": "Q", "response": " "}], path)
    assert (session.report.duplicate, session.report.empty, session.done) == (1, 1, 0)
    first = session.current
    assert first is not None
    event = session.rate("down", rationale="wrong")
    assert event["response"] == first.response and event["meta"] == {"model": "m"}
    session.rate("up")
    session.undo()
    assert [e["choice"] for e in PreferenceLog(path).labels("rating")] == ["down"]
    assert len(PreferenceLog(path).labels()) == 2
    assert RatingSession(answers, path).done == 1
    with pytest.raises(CourseError, match="Unknown thumb 'good'"):
        session.rate("good")
    with pytest.raises(CourseError, match="Unknown field to amend 'criteria'"):
        session.amend(event, criteria={})


# Simulated annotators


def test_a_function_labels_through_the_same_file_and_can_stop_early(path: Path) -> None:
    session = PreferenceSession(rows(5), path, "robot", levels=1)
    assert label_with(session, lambda pair: "a", limit=2) == 2
    assert label_with(PreferenceSession(rows(5), path, "robot", levels=1), lambda p: "b") == 3
    labels = PreferenceLog(path).labels()
    assert Counter(e["choice"] for e in labels) == {"a": 2, "b": 3}
    assert {e["via"] for e in labels} == {"simulated"}


def test_the_worlds_annotators_vote_as_they_do_in_the_shipped_data(path: Path) -> None:
    from course_utils.data import prompt_of
    from course_utils.world.cases import Case
    from course_utils.world.facts import make_world
    from course_utils.world.gold import score
    from course_utils.world.preferences import ANNOTATORS, CLEAN

    case = Case("attribute", "What does the bell heron eat?", "", ("bell heron",), "food")
    world = make_world()
    good, bad = "It eats small fish.", "What a silly question. Go away."
    golds = [score(case, text, world) for text in (good, bad)]
    pairs = [
        {"prompt": prompt_of(case), "response_a": good + " " * i, "response_b": bad}
        for i in range(400)
    ]
    eli = ANNOTATORS[-1]
    session = PreferenceSession(pairs, path, "eli")
    label_with(session, world_annotator(eli, [case]))
    import random

    p = eli.prefers_first(golds[0], golds[1], random.Random(0))[1]
    share = session.counts["a"] / 400
    assert 0.5 < p < 0.99
    assert abs(share - p) < 3 * (p * (1 - p) / 400) ** 0.5
    # The strength follows the difference as it was seen: logit(p) plus logistic noise. So a label
    # beyond a threshold t, on a's side or on b's, has the chance sigma(+-logit(p) - t).
    for choice, sign in (("a", 1), ("b", -1)):
        for strength, t in ((2, math.log(7 / 3)), (3, math.log(9))):
            q = 1 / (1 + math.exp(t - sign * math.log(p / (1 - p))))
            found = sum(e["choice"] == choice and e["strength"] >= strength for e in session.labels)
            assert abs(found / 400 - q) < 3 * (q * (1 - q) / 400) ** 0.5, (choice, strength)

    clean = world_annotator(CLEAN, [case], levels=1)
    assert clean(Pair(prompt_of(case), bad, good)) == ("b", 1)
    assert clean(Pair(prompt_of(case), good, bad)) == ("a", 1)
    again = [world_annotator(eli, [case], seed=3)(Pair(**row)) for row in pairs[:50]]
    assert again == [world_annotator(eli, [case], seed=3)(Pair(**row)) for row in pairs[:50]]
    with pytest.raises(CourseError, match="No case has the prompt"):
        clean(Pair("Q", good, bad))


def test_importing_it_loads_no_library() -> None:
    heavy = "torch transformers trl datasets ipywidgets mistune sklearn statsmodels krippendorff"
    code = (
        "import sys; import course_utils.labeling as labeling; "
        "[getattr(labeling, name) for name in labeling.__all__]; "
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
