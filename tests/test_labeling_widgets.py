"""The widgets without a front end: a button's `click` and a text box's `value` drive them."""

from __future__ import annotations

import html.parser
from pathlib import Path
from typing import Any

import pytest

widgets = pytest.importorskip("ipywidgets")

from course_utils.errors import CourseError  # noqa: E402
from course_utils.labeling import render  # noqa: E402
from course_utils.labeling.log import PreferenceLog  # noqa: E402
from course_utils.labeling.session import PreferenceSession, RatingSession  # noqa: E402
from course_utils.labeling.widgets import WIDGET, PreferenceLabeler, RatingLabeler  # noqa: E402


def rows(count: int = 6) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Q{i}", "response_a": f"first {i}", "response_b": f"second {i}"}
        for i in range(count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


@pytest.fixture
def labeler(path: Path) -> PreferenceLabeler:
    return PreferenceLabeler(rows(), path, min_seconds=0)


def stored(path: Path) -> list[dict[str, Any]]:
    return PreferenceLog(path).labels()


def shown(labeler: PreferenceLabeler | RatingLabeler) -> str:
    """All HTML of the current item."""

    def values(widget: Any) -> str:
        if hasattr(widget, "children"):
            return "".join(map(values, widget.children))
        return str(getattr(widget, "value", ""))

    return values(labeler.item)


# Clicking


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("strength", [1, 2, 3])
def test_one_click_says_which_and_how_clearly(
    side: str, strength: int, labeler: PreferenceLabeler, path: Path
) -> None:
    current = labeler.session.current
    assert current is not None
    labeler.buttons[f"{side}-{strength}"].click()
    (label,) = stored(path)
    assert (label["choice"], label["strength"]) == (current.content(side), strength)
    assert (label["via"], label["left"]) == ("button", current.left)


def test_the_other_buttons(labeler: PreferenceLabeler, path: Path) -> None:
    for name in ("tie", "both_bad", "skip", "undo", "tie"):
        labeler.buttons[name].click()
    assert [e["choice"] for e in stored(path)] == ["tie", "both_bad", "tie"]


def test_one_level_has_three_buttons_on_its_scale(path: Path) -> None:
    labeler = PreferenceLabeler(rows(), path, levels=1, min_seconds=0)
    assert [n for n in labeler.buttons if n not in ("both_bad", "skip", "undo")] == [
        "left-1",
        "tie",
        "right-1",
    ]
    current = labeler.session.current
    assert current is not None
    labeler.keys.value = "3"
    assert stored(path)[0]["choice"] == current.right


def test_the_counter_moves_after_the_event_is_on_disk(
    labeler: PreferenceLabeler, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    order: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), real(file))[1])
    labeler.counter.observe(lambda change: order.append(change["new"]), "value")
    labeler.buttons["tie"].click()
    assert order[0] == "fsync" and "1 of 6 saved for me" in order[1]
    assert (labeler.progress.value, labeler.progress.max) == (1, 6)


def test_what_is_not_saved_is_said_and_not_counted(
    labeler: PreferenceLabeler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise CourseError("the disk <is> full")

    before = labeler.session.current
    with monkeypatch.context() as patch:
        patch.setattr(labeler.session.log, "append", fail)
        labeler.buttons["left-3"].click()
    assert "NOT SAVED. the disk &lt;is&gt; full" in labeler.status.value
    assert 'role="alert"' in labeler.status.value
    assert labeler.progress.value == 0 and labeler.session.current == before
    labeler.buttons["left-3"].click()
    assert labeler.progress.value == 1 and "NOT SAVED" not in labeler.status.value


def test_the_second_click_of_a_double_click_does_nothing(path: Path) -> None:
    now = [0.0]
    session = PreferenceSession(rows(), path, clock=lambda: now[0])
    labeler = PreferenceLabeler(session)
    now[0] = 1.0
    labeler.buttons["tie"].click()
    now[0] = 1.2
    labeler.buttons["tie"].click()
    labeler.buttons["undo"].click()
    assert "only just appeared" in labeler.status.value
    now[0] = 1.31
    labeler.buttons["skip"].click()
    assert [e["choice"] for e in stored(path)] == ["tie", "skip"]
    assert [e["seconds"] for e in stored(path)] == [1.0, 0.31]


def test_time_starts_when_the_widget_is_shown(path: Path) -> None:
    now = [0.0]
    labeler = PreferenceLabeler(PreferenceSession(rows(), path, clock=lambda: now[0]))
    now[0] = 50.0
    labeler._repr_mimebundle_()
    now[0] = 52.0
    labeler.buttons["tie"].click()
    assert stored(path)[0]["seconds"] == 2.0


def test_the_end_leaves_undo_alone(labeler: PreferenceLabeler, path: Path) -> None:
    for _ in range(6):
        labeler.buttons["tie"].click()
    assert "All 6 pairs are labelled" in shown(labeler)
    assert {name for name, b in labeler.buttons.items() if not b.disabled} == {"undo"}
    labeler.keys.value += "7"
    assert len(stored(path)) == 6 and "Everything is labelled" in labeler.status.value
    labeler.buttons["undo"].click()
    assert not labeler.buttons["tie"].disabled and "All 6" not in shown(labeler)


def test_it_resumes_and_says_so(labeler: PreferenceLabeler, path: Path) -> None:
    labeler.buttons["tie"].click()
    path.write_bytes(path.read_bytes() + b'{"torn')
    again = PreferenceLabeler([*rows(), {**rows()[0]}], path)
    assert "1 of 6 saved" in again.counter.value
    for text in ("Taken up: 1 labels", "1 seen before", "1 damaged"):
        assert text in again.status.value


# Keys


def test_keys_are_read_once_however_they_arrive(labeler: PreferenceLabeler, path: Path) -> None:
    sides = []
    for value in ("1", "17", "17t", "17t4bs"):  # the last two keys came in one message
        current = labeler.session.current
        assert current is not None
        sides.append(current)
        labeler.keys.value = value
    assert [(e["choice"], e["strength"]) for e in stored(path)] == [
        (sides[0].left, 3),
        (sides[1].right, 3),
        ("tie", None),
        ("both_bad", None),
        ("skip", None),
    ]
    assert {e["via"] for e in stored(path)} == {"key"}
    labeler.keys.value = "17t4b"  # a deletion is no key
    assert len(stored(path)) == 5
    labeler.keys.value = "17t4bu"
    assert len(stored(path)) == 4


def test_unknown_keys_are_named(labeler: PreferenceLabeler, path: Path) -> None:
    labeler.keys.value = "x"
    assert "No action has the key x" in labeler.status.value and stored(path) == []


def test_capital_letters_and_differences(labeler: PreferenceLabeler, path: Path) -> None:
    labeler.keys.value = "D"
    assert labeler.differences.value
    labeler.keys.value = "DS"
    assert stored(path)[0]["choice"] == "skip"


def test_without_shortcuts_there_is_no_key_box(path: Path) -> None:
    labeler = PreferenceLabeler(rows(), path, shortcuts=False, min_seconds=0)

    def everything(widget: Any) -> list[Any]:
        return [widget, *(w for c in getattr(widget, "children", ()) for w in everything(c))]

    assert labeler.keys not in everything(labeler.root)
    assert "key" not in labeler.buttons["tie"].tooltip
    labeler.keys.value = "4"
    assert stored(path) == []
    labeler.buttons["tie"].click()
    assert len(stored(path)) == 1


@pytest.mark.parametrize("act", ["button", "criterion", "differences"])
def test_the_key_box_gets_the_focus_back(
    act: str, labeler: PreferenceLabeler, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(widgets.Text, "focus"):
        pytest.skip("ipywidgets 7 cannot move the focus")
    sent: list[Any] = []
    monkeypatch.setattr(type(labeler.keys), "send", lambda self, content: sent.append(content))
    if act == "button":
        labeler.buttons["tie"].click()
    elif act == "criterion":
        labeler.criteria["honest"].value = "a"
    else:
        labeler.differences.value = True
    assert sent == [{"do": "focus"}]


# Text and criteria


def test_text_and_criteria_go_with_the_label(labeler: PreferenceLabeler, path: Path) -> None:
    current = labeler.session.current
    assert current is not None
    assert all(w.value is None for w in labeler.criteria.values())  # nothing is preselected
    labeler.rationale.value = "shorter"
    helpful = labeler.criteria["helpful"]
    helpful.value = dict(helpful.options)["helpful: left"]
    labeler.buttons["right-1"].click()
    (label,) = stored(path)
    assert label["rationale"] == "shorter"
    assert label["criteria"] == {"helpful": current.left}
    assert labeler.rationale.value == ""
    assert all(w.value is None for w in labeler.criteria.values())


def test_text_that_comes_after_the_click_amends_its_own_label(
    labeler: PreferenceLabeler, path: Path
) -> None:
    old = labeler.rationale
    old.value = "too l"
    labeler.buttons["tie"].click()
    old.value = "too long"  # overtaken by the click
    labeler.rationale.value = "next"
    labeler.buttons["skip"].click()
    assert [e["rationale"] for e in stored(path)] == ["too long", "next"]
    labeler.buttons["undo"].click()
    assert labeler.rationale.value == "next"  # what was typed is not lost
    assert PreferenceLog(path).report().unmatched == 0


def test_a_long_session_does_not_pile_widgets_up(path: Path) -> None:
    instances = getattr(widgets.widget, "_instances", None)
    if instances is None:
        pytest.skip("this version of ipywidgets keeps its list elsewhere")
    labeler = PreferenceLabeler(rows(40), path, min_seconds=0)
    for _ in range(3):
        labeler.buttons["tie"].click()
    before = len(instances)
    for _ in range(30):
        labeler.buttons["tie"].click()
    assert len(instances) <= before
    labeler.close()
    assert len(instances) < before


# What is shown


class Tags(html.parser.HTMLParser):
    """Every tag and attribute of some HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


EVIL = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "![x](https://evil.example/track.png)",
    "![x](javascript:alert(1))",
    '[click](javascript:alert(1) "t\\" onclick=alert(1)")',
    "[click](https://evil.example)",
    "<https://evil.example>",
    '```"><script>alert(1)</script>\ncode\n```',
    "`<svg onload=alert(1)>`",
    '[r]\n\n[r]: https://x"onmouseover="alert(1)',
    "| a |\n|---|\n| <iframe src=//evil.example></iframe> |",
    "# <style>*{display:none}</style>",
    "</div></div><form action=//evil.example><button>Left better</button></form>",
    "text <b onclick=alert(1)>x</b> &lt;script&gt;",
    "> <details open ontoggle=alert(1)>",
    "$$\\href{javascript:alert(1)}{x}$$",
]
HARMLESS = {
    *("p", "br", "em", "strong", "del", "code", "pre", "hr", "u", "ul", "ol", "li", "blockquote"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "div", "details", "summary", "mark"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}


def assert_inert(text: str) -> None:
    for tag, attributes in Tags(text).found:
        assert tag in HARMLESS, (tag, text)
        assert set(attributes) <= {"style", "role", "aria-label", "aria-hidden", "tabindex"} | {
            "dir",
            "class",
            "scope",
            "start",
        }, attributes
        assert "url" not in (attributes.get("style") or "")


@pytest.mark.parametrize("text", EVIL)
def test_what_a_model_writes_can_do_nothing(text: str, path: Path) -> None:
    for made in (
        render.markdown(text),
        render.text_box(text, "Left"),
        *render.differences(text, "other"),
        *render.differences("<b>other", text),
        render.plain(text),
    ):
        assert_inert(made)
    row = {"prompt": text, "response_a": text, "response_b": "plain"}
    labeler = PreferenceLabeler([row], path, min_seconds=0)
    assert_inert(shown(labeler))
    labeler.differences.value = True
    assert_inert(shown(labeler))
    assert_inert(labeler._repr_mimebundle_()["text/html"])
    rating = RatingLabeler([{"prompt": text, "response": text}], path)
    assert_inert(shown(rating) + rating._repr_mimebundle_()["text/html"])


def test_markdown_is_rendered_and_line_ends_are_kept() -> None:
    made = render.markdown("**bold** and\nnext\n\n- item\n\n```\nx < y\n```")
    for part in ("<strong>bold</strong>", "<br />", "<li>item</li>", "<code>x &lt; y"):
        assert part in made
    assert "https://a.example" in render.markdown("[link](https://a.example)")
    assert "[image: cat]" in render.markdown("![cat](https://a.example/c.png)")


def test_text_of_every_direction_and_length_is_shown() -> None:
    box = render.text_box("\u202eمرحبا", "Left")
    assert 'dir="auto"' in box and "مرحبا" in box
    long = "word " * 10_000
    box = render.text_box(long, "Left")
    assert "<details><summary>30,000 more characters</summary>" in box
    assert box.count("word") == 10_000 and "overflow:auto" in box and 'tabindex="0"' in box
    assert "�" not in render.text_box("\ud83d", "Left")
    render.text_box("\ud83d", "Left").encode()
    assert "Too long to compare" in render.differences(long, "short")[0]
    render.markdown("> " * 5_000 + "deep" + "[" * 5_000)


def test_differences_are_marked_and_nothing_is_lost() -> None:
    left, right = render.differences("The cat sat.", "The dog sat down.")
    marked = [part.split("</mark>")[0].split(">")[-1] for part in left.split("<mark")[1:]]
    assert [word.strip() for word in marked] == ["cat"]
    marked = [part.split("</mark>")[0].split(">")[-1] for part in right.split("<mark")[1:]]
    assert [word.strip() for word in marked] == ["dog", "down"]
    assert "underline" in left  # colour is not the only sign
    import re

    assert re.sub("<[^>]*>", "", right) == "The dog sat down."
    assert "<mark" not in "".join(render.differences("same text", "same  text"))


def test_differences_are_shown_on_demand_only(labeler: PreferenceLabeler) -> None:
    assert "<mark" not in shown(labeler)
    labeler.differences.value = True
    assert "<mark" in shown(labeler) and labeler.differences.description == "Hide differences"
    labeler.buttons["tie"].click()
    assert "<mark" in shown(labeler)
    labeler.differences.value = False
    assert "<mark" not in shown(labeler)


def test_sources_and_gold_are_never_shown(path: Path) -> None:
    row = {**rows()[0], "source": "SECRET", "meta": {"model": "SECRET"}, "gold": "both_bad"}
    labeler = PreferenceLabeler([row], path)
    bundle = labeler._repr_mimebundle_()
    assert "SECRET" not in shown(labeler) + bundle["text/html"] + bundle["text/plain"]


def test_every_control_has_a_name_for_screen_readers(labeler: PreferenceLabeler) -> None:
    names = [button.description for button in labeler.buttons.values()]
    assert all(names) and len(set(names)) == len(names)
    assert labeler.buttons["left-3"].tooltip == "Left much better (key 1)"
    for widget in (labeler.keys, labeler.rationale, labeler.differences):
        assert widget.description
    for name, widget in labeler.criteria.items():
        assert [text for text, _ in widget.options] == [
            f"{name}: left",
            f"{name}: same",
            f"{name}: right",
        ]
    for box in ("Prompt", "Left answer", "Right answer"):
        assert f'role="region" aria-label="{box}"' in shown(labeler)
    assert "rlhf-left-3" in labeler.buttons["left-3"]._dom_classes


def test_a_page_without_live_widgets_shows_a_table(labeler: PreferenceLabeler) -> None:
    labeler.buttons["tie"].click()
    bundle = labeler._repr_mimebundle_()
    assert bundle[WIDGET]["model_id"] == labeler.root.model_id
    current = labeler.session.current
    assert current is not None
    for text in (current.pair.prompt, current.left_text, current.right_text, "1 of 6 saved"):
        assert text in bundle["text/html"]
    assert str(labeler.session.log.path) not in str(bundle)  # no machine paths in notebooks
    for _ in range(5):
        labeler.buttons["tie"].click()
    assert "All 6 pairs are labelled" in labeler._repr_mimebundle_()["text/html"]


def test_it_is_displayed_by_a_notebook(labeler: PreferenceLabeler) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    data, _ = formatters.DisplayFormatter().format(labeler)
    assert WIDGET in data and "<table>" in data["text/html"]


# Making one


def test_a_session_brings_its_own_settings(path: Path) -> None:
    session = PreferenceSession(rows(), path, "ana", levels=1)
    assert PreferenceLabeler(session).session is session
    with pytest.raises(CourseError, match="A session decides annotator, levels itself"):
        PreferenceLabeler(session, annotator="bo", levels=3)
    with pytest.raises(CourseError, match="Say where labels are saved"):
        PreferenceLabeler(rows())
    labeler = PreferenceLabeler(rows(), path, "bo", seed=3, levels=1, criteria=())
    assert (labeler.session.annotator, labeler.session.levels, labeler.criteria) == ("bo", 1, {})


# Ratings


def test_thumbs(path: Path) -> None:
    answers = [{"prompt": f"Q{i}", "response": f"**A{i}**"} for i in range(4)]
    labeler = RatingLabeler(answers, path, min_seconds=0)
    assert "<strong>A" in shown(labeler)
    labeler.rationale.value = "clear"
    labeler.buttons["up"].click()
    labeler.keys.value = "bsuz"
    found = PreferenceLog(path).labels("rating")
    assert [(e["choice"], e["rationale"], e["via"]) for e in found] == [
        ("up", "clear", "button"),
        ("down", "", "key"),
    ]
    assert "No action has the key z" in labeler.status.value
    assert "2 of 4 saved" in labeler.counter.value
    assert "Answer" in labeler._repr_mimebundle_()["text/html"]
    assert "Good · Bad · Skip · Undo" in labeler._repr_mimebundle_()["text/html"]
    labeler.keys.value += "gg"
    assert "All 4 answers are rated" in shown(labeler)
    assert "All 4 answers are rated" in labeler._repr_mimebundle_()["text/html"]
    assert RatingLabeler(RatingSession(answers, path)).session.finished
