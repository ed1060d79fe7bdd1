"""A widget for reading: a response, its critique and its revision side by side, round by round.

Core ipywidgets, no JavaScript of our own. What models wrote is shown as inert text. A page without
live widgets shows the first item as a table (`labeling.render`).
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError
from course_utils.labeling import render
from course_utils.world_judge.template import question_text

from .batch import Revision

if TYPE_CHECKING:
    import ipywidgets as widgets

WIDGET = "application/vnd.jupyter.widget-view+json"


class RevisionReader:
    """Step through revisions; the last line of a cell shows it.

    Args:
        revisions: at least one.
        title: says who criticised; a backend's `title` will do.

    Attributes:
        item, round: the boxes that choose what is shown; both can be set from Python.

    Raises:
        CourseError: there is nothing to show.
    """

    def __init__(self, revisions: Iterable[Revision], title: str = "") -> None:
        import ipywidgets as widgets

        self.revisions = list(revisions)
        if not self.revisions:
            raise CourseError("There is no revision to read: give the items of revise_many.")
        self.title = title
        options = [
            (f"{number}: {question_text(r.prompt)[:70]}", number - 1)
            for number, r in enumerate(self.revisions, start=1)
        ]
        wide = {"width": "560px"}
        self.item = widgets.Dropdown(options=options, description="Prompt", layout=wide)
        self.round = widgets.IntSlider(value=1, min=1, max=1, description="Round", layout=wide)
        self.page = widgets.HTML()
        buttons = [self._button("Previous", -1), self._button("Next", 1)]
        head = widgets.HTML(f"<b>{html.escape(title)}</b>")
        self.root = widgets.VBox([head, widgets.HBox([self.item, *buttons]), self.round, self.page])
        self.item.observe(self._on_item, "value")
        self.round.observe(self._show, "value")
        self._on_item()

    def _button(self, text: str, step: int) -> widgets.Button:
        import ipywidgets as widgets

        button = widgets.Button(description=text, layout={"width": "auto"})

        def pressed(_: object) -> None:
            self.item.value = (self.item.value + step) % len(self.revisions)

        button.on_click(pressed)
        return button

    def _on_item(self, _: object = None) -> None:
        rounds = len(self.revisions[self.item.value].rounds)
        self.round.max = max(1, rounds)
        self.round.value = 1
        self.round.disabled = rounds < 2
        self._show()

    def _show(self, _: object = None) -> None:
        revision = self.revisions[self.item.value]
        self.page.value = columns(revision, self.round.value)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """The live widget, and a table of what it shows for pages without one."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.root.model_id}
        caption = f"{len(self.revisions)} revisions; {self.title}"
        table = render.table(static_rows(self.revisions[self.item.value]), caption)
        return {"text/plain": caption, "text/html": table, WIDGET: view}


def columns(revision: Revision, number: int) -> str:
    """Round `number` (from 1) as three columns of HTML: before, critique, after."""
    question = render.text_box(question_text(revision.prompt), "Question")
    if len(revision.rounds) < number:
        why = revision.error or "the run stopped before this round"
        before = render.text_box(revision.final, "Response")
        return question + before + render.text_box(why, "No critique and no revision")
    made = revision.rounds[number - 1]
    before, after = revision.responses[number - 1], made.response
    left, right = render.differences(before, after)
    by = f"Critique by: {', '.join(made.principles)}"
    same = " (as before)" if before.strip() == after.strip() else ""
    boxes = (
        render.text_box(before, "Response before", left),
        render.text_box(made.critique, by),
        render.text_box(after, f"Response after{same}", right),
    )
    cells = "".join(f'<div style="flex:1 1 14em;min-width:0">{box}</div>' for box in boxes)
    return f'{question}<div style="display:flex;flex-wrap:wrap;gap:12px">{cells}</div>'


def static_rows(revision: Revision) -> list[tuple[str, str]]:
    """(heading, safe HTML) of one item with all its rounds."""
    rows = [("question", render.plain(question_text(revision.prompt)))]
    rows.append(("first response", render.plain(revision.initial)))
    for number, made in enumerate(revision.rounds, start=1):
        rows.append((f"critique {number}", render.plain(made.critique)))
        rows.append((f"revision {number}", render.plain(made.response)))
    if revision.error:
        rows.append(("error", render.plain(revision.error)))
    return rows
