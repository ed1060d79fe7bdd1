"""The labelling widgets: core ipywidgets around a session, no JavaScript of their own.

`PreferenceLabeler` shows pairs, `RatingLabeler` single answers. Every button can be pressed without
hotkeys, since not every front end passes keys on. The counter moves after the event is on disk
and is the annotator's receipt: what it has counted cannot be lost.

What was learnt from real browsers:

1. keys typed while a button has the focus edit the notebook, so a text box takes hotkeys and gets
   the focus back after each click;
2. that box is never cleared, or fast keys count twice: only what is new at its end is read;
3. a click can overtake typed text, so every item has inputs of its own, and text that arrives late
   amends the label it belongs to;
4. the second click of a double click would label a pair nobody has seen: for the first
   `min_seconds` an item cannot be labelled.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from course_utils import colab
from course_utils.errors import CourseError
from course_utils.labeling import render
from course_utils.labeling.items import Answer, Pair
from course_utils.labeling.log import Event
from course_utils.labeling.session import PreferenceSession, RatingSession

if TYPE_CHECKING:
    import ipywidgets as widgets

MIN_SECONDS = 0.3
WIDGET = "application/vnd.jupyter.widget-view+json"
DEGREES = {1: {1: "better"}, 3: {3: "much better", 2: "better", 1: "slightly better"}}
SCALE = {1: "123", 3: "1234567"}  # keys of the scale, from left to right
CLASS = "rlhf-"


class _Labeler:
    """What both widgets share: layout, hotkeys, receipt, static view."""

    title = ""

    def __init__(
        self, session: PreferenceSession | RatingSession, shortcuts: bool, min_seconds: float
    ) -> None:
        import ipywidgets as widgets

        self._session, self._shortcuts, self._min_seconds = session, shortcuts, min_seconds
        self.buttons: dict[str, widgets.Button] = {}
        self._by_key: dict[str, Callable[[str], None]] = {}
        self._inputs: list[_Inputs] = []  # of the item shown and of the one before it
        self.progress = _classed(
            widgets.IntProgress(max=session.total, layout={"width": "220px"}), "progress"
        )
        self.counter = _classed(widgets.HTML(), "counter")
        self.status = _classed(widgets.HTML(), "status")
        self.item = _classed(widgets.VBox(layout={"margin": "0 0 8px 0"}), "item")
        self.inputs = _classed(widgets.VBox(), "inputs")
        self.keys = _classed(
            widgets.Text(
                description="Keys:",
                placeholder="type here to label by keyboard",
                layout={"width": "320px"},
            ),
            "keys",
        )
        self._keys_read = ""
        self.keys.observe(self._on_keys, "value")
        self.root = _classed(widgets.VBox(self._rows()), "labeler")
        self._show()
        self._say(self._notes())

    # What it looks like

    def _rows(self) -> list[widgets.Widget]:
        import ipywidgets as widgets

        head = widgets.HBox([self.progress, self.counter])
        if colab.on_colab():  # its disk is emptied when the session ends
            head.children = [*head.children, self._download_button()]
        last = [_row(*self._help())] if self._shortcuts else []
        return [head, self.item, *self._button_rows(), self.inputs, *last, self.status]

    def _download_button(self) -> widgets.Button:
        import ipywidgets as widgets

        button = widgets.Button(description="Download labels", layout={"width": "auto"})
        button.on_click(lambda _: self._download())
        return _classed(button, "download")

    def _download(self) -> None:
        try:
            colab.download(self._session.log.path)
        except Exception as error:  # the browser's no, as Colab passes it on
            self._say(f"The labels could not be downloaded ({error}).", alarm=True)

    def _button_rows(self) -> list[widgets.Widget]:
        raise NotImplementedError

    def _help(self) -> list[widgets.Widget]:
        import ipywidgets as widgets

        keys = html.escape(self._key_help())
        return [self.keys, widgets.HTML(f'<span style="font-size:90%">{keys}</span>')]

    def _key_help(self) -> str:
        raise NotImplementedError

    def _button(
        self, name: str, text: str, key: str, act: Callable[[str], None], style: str = ""
    ) -> widgets.Button:
        """A button, with its key; `act` is called with how it was pressed."""
        import ipywidgets as widgets

        hint = f"{text} (key {key})" if self._shortcuts else text
        button = widgets.Button(
            description=text, tooltip=hint, button_style=style, layout={"width": "auto"}
        )
        button.on_click(lambda _: self._pressed(act))
        self._by_key[key] = act
        self.buttons[name] = button
        return _classed(button, name)

    # What happens

    def _pressed(self, act: Callable[[str], None]) -> None:
        act("button")
        self._focus()

    def _focus(self) -> None:
        """Put the cursor back where keys cannot edit the notebook. ipywidgets 7 cannot do it."""
        focus = getattr(self.keys, "focus", None)
        if self._shortcuts and focus is not None:
            focus()

    def _on_keys(self, change: Mapping[str, Any]) -> None:
        value, seen = change["new"], self._keys_read
        self._keys_read = value
        if not self._shortcuts or not value.startswith(seen):
            return  # something was deleted or pasted over
        for key in value[len(seen) :]:
            act = self._by_key.get(key.lower())
            if act is not None:
                act("key")
            elif not key.isspace():
                self._say(f"No action has the key {key}. {self._key_help()}")

    def _save(self, write: Callable[[], Event]) -> None:
        """Write one event, unless the item has only just appeared; then go on."""
        if self._session.finished:
            return self._say("Everything is labelled. Undo takes the last label back.")
        if self._too_soon():
            return None
        try:
            event = write()
        except CourseError as error:
            return self._say(f"NOT SAVED. {error}", alarm=True)
        self._inputs[-1].label = event
        self._say("")
        self._show()
        return None

    def _too_soon(self) -> bool:
        """Whether this may be the second click of a double click; if so, say it did nothing."""
        soon = self._session.seconds_shown < self._min_seconds
        if soon:
            self._say("Not counted: this item had only just appeared.")
        return soon

    def undo(self, via: str = "api") -> None:
        """Take back the last label and show its item again."""
        if self._too_soon():
            return None
        try:
            taken = self._session.undo()
        except CourseError as error:
            return self._say(f"NOT SAVED. {error}", alarm=True)
        self._say("Taken back." if taken else "There is nothing to take back.")
        if taken:
            self._show(taken)
        return None

    def _amend(self, inputs: _Inputs) -> None:
        """Text that arrived after its label, from a keystroke that a click had overtaken."""
        if inputs.label is None:
            return
        try:
            self._session.amend(inputs.label, **inputs.answers())
        except CourseError as error:
            self._say(f"NOT SAVED. {error}", alarm=True)

    def _say(self, text: str, alarm: bool = False) -> None:
        role = "alert" if alarm else "status"
        style = "color:var(--jp-error-color0,#b00);font-weight:600" if alarm else ""
        self.status.value = f'<div role="{role}" style="{style}">{html.escape(text)}</div>'

    # What is shown

    def _show(self, taken: Event | None = None) -> None:
        """Show the session's current item with fresh inputs, and move the counter.

        Args:
            taken: a label just taken back; its text and criteria are offered again.
        """
        session = self._session
        self.progress.value = session.done
        self.counter.value = f'<span role="status">{html.escape(self._count())}</span>'
        self._fresh_inputs(taken)
        self._show_item()
        for name, button in self.buttons.items():
            button.disabled = session.finished and name != "undo"
        session.restart_clock()

    def _count(self) -> str:
        session = self._session
        return f"{session.done} of {session.total} saved for {session.annotator}"

    def _notes(self) -> str:
        """What there is to say at the beginning: labels taken up, and what is left out."""
        session = self._session
        notes = [f"Taken up: {session.resumed} labels made before."] if session.resumed else []
        if session.report.left_out:
            notes.append(f"{session.report}.")
        if session.log_report.skipped or session.log_report.unmatched:
            notes.append(f"Log: {session.log_report}.")
        return " ".join(notes)

    def _fresh_inputs(self, taken: Event | None) -> None:
        """Inputs for the next item; the last item's stay alive for text that arrives late."""
        for old in self._inputs[:-1]:
            old.close()
        fresh = self._new_inputs(taken)
        self._inputs = [*self._inputs[-1:], fresh]
        self.inputs.children = [] if self._session.finished else fresh.rows
        fresh.observe(partial(self._amend, fresh), self._focus)

    def _new_inputs(self, taken: Event | None) -> _Inputs:
        return _Inputs((), taken, {})

    @property
    def rationale(self) -> widgets.Textarea:
        """The current item's text box."""
        return self._inputs[-1].rationale

    def _show_item(self) -> None:
        old = self.item.children
        self.item.children = self._item_widgets()
        for widget in old:
            _close(widget)

    def _item_widgets(self) -> list[widgets.Widget]:
        raise NotImplementedError

    def _static_rows(self) -> list[tuple[str, str]]:
        """(heading, safe HTML) of the current item, for pages without live widgets."""
        raise NotImplementedError

    def _choices(self) -> str:
        """What the buttons say, as safe HTML."""
        return " · ".join(html.escape(button.description) for button in self.buttons.values())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """The live widget, and a table for pages without one. Showing it starts the clock."""
        self._session.restart_clock()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.root.model_id}
        caption = f"{self.title}: {self._count()}"
        return {
            "text/plain": caption,
            "text/html": render.table(self._static_rows(), caption),
            WIDGET: view,
        }

    def close(self) -> None:
        """Remove the widget from the page; the log stays."""
        for inputs in self._inputs:
            inputs.close()
        _close(self.root)


class PreferenceLabeler(_Labeler):
    """Pairs of answers to compare, in a notebook: the last line of a cell shows it.

    Args:
        pairs: rows with prompt, response_a, response_b, or a `PreferenceSession`, which then
            decides path, annotator, seed, levels and criteria.
        path: the log.
        annotator: whose labels these are; ``"me"`` if not given.
        levels: 3 is a seven-point scale in one click, 1 asks left, same or right.
        criteria: what may be judged by itself; none is chosen beforehand.
        shortcuts: show the box that takes hotkeys.
        min_seconds: for how long an item cannot be labelled after it appears.

    Attributes:
        session: the `PreferenceSession`.
        buttons: by name: ``left-3`` … ``left-1``, ``tie``, ``right-1`` … ``right-3``,
            ``both_bad``, ``skip``, ``undo``.
        keys, rationale, criteria, differences: the inputs.

    Raises:
        CourseError: see `PreferenceSession`.
    """

    title = "Which answer is better"

    def __init__(
        self,
        pairs: PreferenceSession | Iterable[Mapping[str, Any] | Pair],
        path: str | os.PathLike[str] | None = None,
        annotator: str | None = None,
        *,
        seed: int | None = None,
        levels: int | None = None,
        criteria: Sequence[str] | None = None,
        shortcuts: bool = True,
        min_seconds: float = MIN_SECONDS,
    ) -> None:
        import ipywidgets as widgets

        given = {
            "path": path,
            "annotator": annotator,
            "seed": seed,
            "levels": levels,
            "criteria": criteria,
        }
        self.session = _session(PreferenceSession, pairs, given)
        self.differences = _classed(
            widgets.ToggleButton(
                description="Show differences", layout={"width": "auto"}, value=False
            ),
            "differences",
        )
        self.differences.observe(self._on_differences, "value")
        super().__init__(self.session, shortcuts, min_seconds)

    @property
    def criteria(self) -> dict[str, widgets.ToggleButtons]:
        """The current item's criteria, each empty until it is answered."""
        return self._inputs[-1].criteria

    def _button_rows(self) -> list[widgets.Widget]:
        degrees = DEGREES[self.session.levels]
        keys = iter(SCALE[self.session.levels])
        scale = [
            self._side_button("left", strength, word, next(keys))
            for strength, word in degrees.items()
        ]
        scale.append(self._choice_button("tie", "About the same", next(keys)))
        scale += [
            self._side_button("right", strength, word, next(keys))
            for strength, word in reversed(degrees.items())
        ]
        other = [
            self._choice_button("both_bad", "Both bad", "b"),
            self._choice_button("skip", "Skip", "s"),
            self._button("undo", "Undo", "u", self.undo),
            self.differences,
        ]
        self._by_key["d"] = self._toggle_differences
        return [_row(*scale), _row(*other)]

    def _side_button(self, side: str, strength: int, word: str, key: str) -> widgets.Button:
        text = f"{side.capitalize()} {word}"
        act = partial(self.choose, side, strength)
        return self._button(f"{side}-{strength}", text, key, lambda via: act(via=via), "info")

    def _choice_button(self, choice: str, text: str, key: str) -> widgets.Button:
        act = partial(self.decide, choice)
        return self._button(choice, text, key, lambda via: act(via=via))

    def _key_help(self) -> str:
        scale = SCALE[self.session.levels]
        return (
            f"Keys: {scale[0]} (left) to {scale[-1]} (right), b both bad, s skip, u undo, "
            "d differences."
        )

    def choose(self, side: str, strength: int | None = None, *, via: str = "api") -> None:
        """Prefer the answer on the ``left`` or ``right``, as its button does."""
        shown = self.session.current
        self.decide(shown.content(side) if shown else "a", strength, via=via)

    def decide(self, choice: str, strength: int | None = None, *, via: str = "api") -> None:
        """Make a choice by content, as a button does."""
        self._save(
            lambda: self.session.decide(choice, strength, via=via, **self._inputs[-1].answers())
        )

    def _toggle_differences(self, via: str) -> None:
        self.differences.value = not self.differences.value

    def _on_differences(self, change: Mapping[str, Any]) -> None:
        self.differences.description = "Hide differences" if change["new"] else "Show differences"
        self._show_item()
        self._focus()

    def _new_inputs(self, taken: Event | None) -> _Inputs:
        shown = self.session.current
        if shown is None:
            return _Inputs((), taken, {})
        verdicts = {"left": shown.left, "same": "tie", "right": shown.right}
        return _Inputs(self.session.criteria, taken, verdicts)

    def _item_widgets(self) -> list[widgets.Widget]:
        import ipywidgets as widgets

        shown = self.session.current
        if shown is None:
            return [widgets.HTML(f"<p>{html.escape(self._finished())}</p>")]
        left, right = shown.left_text, shown.right_text
        marked: tuple[str | None, str | None] = (None, None)
        if self.differences.value:
            marked = render.differences(left, right)
        boxes = [
            _html(render.text_box(text, f"{side} answer", body), side.lower(), "1 1 280px")
            for side, text, body in zip(("Left", "Right"), (left, right), marked, strict=True)
        ]
        return [_html(render.text_box(shown.pair.prompt, "Prompt"), "prompt"), _row(*boxes)]

    def _finished(self) -> str:
        right, checks = self.session.attention
        text = f"All {self.session.total} pairs are labelled. Thank you."
        return f"{text} Attention checks: {right} of {checks} as expected." if checks else text

    def _static_rows(self) -> list[tuple[str, str]]:
        shown = self.session.current
        if shown is None:
            return [("Finished", html.escape(self._finished()))]
        texts = [("Prompt", shown.pair.prompt), ("Left", shown.left_text)]
        texts.append(("Right", shown.right_text))
        rows = [(head, render.markdown(text[: render.RENDERED])) for head, text in texts]
        return [*rows, ("Choices", self._choices())]


class RatingLabeler(_Labeler):
    """Single answers to rate with a thumb, for KTO; arguments as in `PreferenceLabeler`.

    Attributes:
        session: the `RatingSession`.
        buttons: ``up``, ``down``, ``skip``, ``undo``.
    """

    title = "Is this a good answer"

    def __init__(
        self,
        answers: RatingSession | Iterable[Mapping[str, Any] | Answer],
        path: str | os.PathLike[str] | None = None,
        annotator: str | None = None,
        *,
        seed: int | None = None,
        shortcuts: bool = True,
        min_seconds: float = MIN_SECONDS,
    ) -> None:
        given = {"path": path, "annotator": annotator, "seed": seed}
        self.session = _session(RatingSession, answers, given)
        super().__init__(self.session, shortcuts, min_seconds)

    def _button_rows(self) -> list[widgets.Widget]:
        choices = {"up": ("Good", "g"), "down": ("Bad", "b"), "skip": ("Skip", "s")}
        row = [
            self._button(choice, text, key, partial(self._rate_via, choice))
            for choice, (text, key) in choices.items()
        ]
        return [_row(*row, self._button("undo", "Undo", "u", self.undo))]

    def _key_help(self) -> str:
        return "Keys: g good, b bad, s skip, u undo."

    def rate(self, choice: str, *, via: str = "api") -> None:
        """Rate the current answer ``up``, ``down`` or ``skip``, as a button does."""
        self._save(lambda: self.session.rate(choice, via=via, **self._inputs[-1].answers()))

    def _rate_via(self, choice: str, via: str) -> None:
        self.rate(choice, via=via)

    def _item_widgets(self) -> list[widgets.Widget]:
        import ipywidgets as widgets

        shown = self.session.current
        if shown is None:
            return [widgets.HTML(f"<p>All {self.session.total} answers are rated. Thank you.</p>")]
        texts = {"Prompt": shown.prompt, "Answer": shown.response}
        return [_html(render.text_box(text, name), name.lower()) for name, text in texts.items()]

    def _static_rows(self) -> list[tuple[str, str]]:
        shown = self.session.current
        if shown is None:
            return [("Finished", f"All {self.session.total} answers are rated.")]
        texts = {"Prompt": shown.prompt, "Answer": shown.response}
        rows = [(name, render.markdown(t[: render.RENDERED])) for name, t in texts.items()]
        return [*rows, ("Choices", self._choices())]


class _Inputs:
    """The inputs of one item: why, and the criteria.

    Args:
        names: the criteria asked for; none makes no criteria and no sides.
        taken: a label taken back, whose answers are offered again.
        verdicts: what left, same and right mean for this item, by content.
    """

    def __init__(
        self, names: Sequence[str], taken: Event | None, verdicts: Mapping[str, str]
    ) -> None:
        import ipywidgets as widgets

        self.label: Event | None = None  # the label these answers went into
        self._with_criteria = bool(verdicts)
        self.rationale = _classed(
            widgets.Textarea(
                value=(taken or {}).get("rationale", ""),
                description="Why:",
                placeholder="optional: what decided it",
                layout={"width": "95%", "height": "3.6em"},
            ),
            "rationale",
        )
        before = (taken or {}).get("criteria", {})
        self.criteria = {
            name: _classed(
                widgets.ToggleButtons(
                    options=[(f"{name}: {side}", verdict) for side, verdict in verdicts.items()],
                    value=before.get(name),
                    style={"button_width": "auto"},
                    layout={"width": "auto", "margin": "0 12px 0 0"},
                ),
                f"criterion-{name}",
            )
            for name in names
        }
        self.answered = [*self.criteria.values(), self.rationale]
        self.rows = [self.rationale]
        if names:
            heading = widgets.HTML("Optional: which answer is more …")
            self.rows = [heading, _row(*self.criteria.values()), self.rationale]

    def answers(self) -> dict[str, Any]:
        """The fields of a label that these inputs fill."""
        given = {name: w.value for name, w in self.criteria.items() if w.value is not None}
        criteria = {"criteria": given} if self._with_criteria else {}
        return {"rationale": self.rationale.value, **criteria}

    def observe(self, changed: Callable[[], None], clicked: Callable[[], None]) -> None:
        """Have `changed` called when an input changes, and `clicked` after that for a criterion."""
        for widget in self.answered:
            widget.observe(lambda _: changed(), "value")
        for widget in self.criteria.values():
            widget.observe(lambda _: clicked(), "value")

    def close(self) -> None:
        for widget in self.rows:
            _close(widget)


# Small things


def _session(kind: type[Any], items: Any, given: dict[str, Any]) -> Any:
    """The session given, or a new one."""
    options = {name: value for name, value in given.items() if value is not None}
    if isinstance(items, kind):
        if options:
            raise CourseError(
                f"A session decides {', '.join(options)} itself: give it there, and not here."
            )
        return items
    if "path" not in options:
        raise CourseError("Say where labels are saved: path='labels/preferences.jsonl'.")
    return kind(items, **options)


def _classed(widget: Any, name: str) -> Any:
    """The widget, with a CSS class by which pages and tests can find it."""
    widget.add_class(f"{CLASS}{name}")
    return widget


def _row(*children: widgets.Widget) -> widgets.Widget:
    """Widgets side by side, which wrap where there is no room."""
    import ipywidgets as widgets

    return widgets.HBox(children, layout={"flex_flow": "row wrap", "width": "100%"})


def _html(value: str, name: str, flex: str = "0 0 auto") -> widgets.Widget:
    import ipywidgets as widgets

    layout = {"flex": flex, "min_width": "0", "margin": "2px 6px 2px 2px"}
    return _classed(widgets.HTML(value, layout=layout), name)


def _close(widget: Any) -> None:
    """Close a widget and what it holds, so that a long session does not pile widgets up."""
    for child in getattr(widget, "children", ()):
        _close(child)
    parts = [getattr(widget, name, None) for name in ("layout", "style")]  # widgets themselves
    widget.close()
    for part in parts:
        if part is not None:
            part.close()
