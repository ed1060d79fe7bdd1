"""A chat in a notebook whose answers can be given a thumb: core ipywidgets, no JavaScript.

The model was trained on single questions, so each message is a conversation of its own: nothing
that was said before is sent along. What a model writes is shown as inert text (`labeling.render`).
The counter moves after a thumb is on disk.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError
from course_utils.labeling import render
from course_utils.labeling.log import PreferenceLog
from course_utils.templates import format_prompt

from .feedback import give_thumb

if TYPE_CHECKING:
    import ipywidgets as widgets

WIDGET = "application/vnd.jupyter.widget-view+json"
BUTTONS = {"up": "Good", "down": "Bad"}
SHOWN = 20  # turns that stay on the page; all thumbs are in the log


@dataclass
class Turn:
    """One question and its answer; `thumb` is up, down or empty."""

    question: str
    answer: str
    thumb: str = ""


class Chat:
    """A chat box; the last line of a cell shows it.

    Args:
        answer: question -> answer; for a served model ``lambda text: ask(server, text).text``.
        log: where thumbs go.
        annotator: whose they are.
        model: name of the model, for the log.

    Attributes:
        turns: what was said, oldest first.
        entry, button: the text box and the button that sends it.
        thumbs: per turn, the buttons by name, ``up`` and ``down``.
        saved: thumbs that are on disk, a changed mind counted anew.
    """

    def __init__(
        self,
        answer: Callable[[str], str],
        log: PreferenceLog,
        *,
        annotator: str = "me",
        model: str = "",
    ) -> None:
        import ipywidgets as widgets

        log.require_writable()
        self._answer, self._log = answer, log
        self.annotator, self.model = annotator, model
        self.turns: list[Turn] = []
        self.thumbs: list[dict[str, widgets.Button]] = []
        self.saved = 0
        self.entry = _classed(
            widgets.Textarea(placeholder="ask something", layout={"width": "75%"}), "entry"
        )
        self.button = _classed(widgets.Button(description="Send", button_style="info"), "send")
        self.button.on_click(lambda _: self.send(self.entry.value))
        self.status = _classed(widgets.HTML(), "status")
        self.page = _classed(widgets.VBox(), "turns")
        self.root = _classed(
            widgets.VBox([self.page, widgets.HBox([self.entry, self.button]), self.status]), "chat"
        )
        self._say(self._count())

    def send(self, question: str) -> None:
        """Ask, and show the answer with its thumbs. Trouble is said in the status line."""
        question = question.strip()
        if not question:
            return self._say("Write something first.")
        self.button.disabled = True  # a second click would ask twice
        self._say("The model is answering.")
        try:
            answer = self._answer(question)
        except CourseError as error:
            return self._say(str(error), alarm=True)
        finally:
            self.button.disabled = False
        self.turns.append(Turn(question, answer))
        self.thumbs.append(self._buttons(len(self.turns) - 1))
        self.entry.value = ""
        self._show()
        return self._say(self._count())

    def rate(self, number: int, choice: str, *, via: str = "api") -> None:
        """Give turn `number` (from 0) a thumb, ``up`` or ``down``; a later one replaces it."""
        turn = self.turns[number]
        if turn.thumb == choice:
            return
        if not turn.answer.strip():
            self._say("An empty answer gets no thumb: nothing can be learnt from it.")
            return
        prompt = format_prompt(turn.question)
        try:
            give_thumb(
                self._log,
                prompt,
                turn.answer,
                choice,
                annotator=self.annotator,
                model=self.model,
                via=via,
            )
        except CourseError as error:
            self._say(f"NOT SAVED. {error}", alarm=True)
            return
        turn.thumb = choice
        self.saved += 1
        for name, button in self.thumbs[number].items():
            button.button_style = "success" if name == choice else ""
        self._say(self._count())

    def _buttons(self, number: int) -> dict[str, widgets.Button]:
        import ipywidgets as widgets

        made = {}
        for choice, text in BUTTONS.items():
            button = widgets.Button(description=text, layout={"width": "auto"})
            press = partial(self.rate, number, choice, via="button")
            button.on_click(lambda _, press=press: press())
            made[choice] = _classed(button, choice)
        return made

    def _show(self) -> None:
        import ipywidgets as widgets

        rows = []
        for turn, buttons in list(zip(self.turns, self.thumbs, strict=True))[-SHOWN:]:
            boxes = [
                widgets.HTML(render.text_box(turn.question, "You")),
                widgets.HTML(render.text_box(turn.answer, "Model")),
                widgets.HBox(list(buttons.values())),
            ]
            rows.append(widgets.VBox(boxes, layout={"margin": "0 0 10px 0"}))
        self.page.children = rows

    def _count(self) -> str:
        return f"{self.saved} thumbs saved for {self.annotator}"

    def _say(self, text: str, alarm: bool = False) -> None:
        role = "alert" if alarm else "status"
        style = "color:var(--jp-error-color0,#b00);font-weight:600" if alarm else ""
        self.status.value = (
            f'<div role="{role}" style="white-space:pre-wrap;{style}">{html.escape(text)}</div>'
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """The live widget, and a table for pages without one."""
        caption = f"Chat with {self.model or 'the model'}: {self._count()}"
        rows = []
        for turn in self.turns[-SHOWN:]:
            rows.append(("You", render.markdown(turn.question)))
            thumb = f"<em>[{BUTTONS[turn.thumb]}]</em>" if turn.thumb else ""
            rows.append(("Model", render.markdown(turn.answer) + thumb))
        rows.append(("", "[ask something] Send · per answer: Good · Bad"))
        return {
            "text/plain": caption,
            "text/html": render.table(rows, caption),
            WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.root.model_id},
        }


def _classed(widget: Any, name: str) -> Any:
    """The widget, with a CSS class by which pages and tests can find it."""
    widget.add_class(f"rlhf-{name}")
    return widget
