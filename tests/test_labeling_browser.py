"""The labelling widget in a real JupyterLab and a real browser, the log checked line by line."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_pages import PATIENCE, browser_page, lab, run_all, wait_for, write_notebook

from course_utils.labeling.items import Pair
from course_utils.labeling.log import PreferenceLog
from course_utils.paths import build_dir

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVIL = (
    '<img src=x onerror="window.pwned=1"> <script>window.pwned=1</script>\n\n'
    "![x](https://evil.example/x.png) [link](javascript:window.pwned=1)\n\n"
    '<b onmouseover="window.pwned=1">hover</b> **bold** $\\href{javascript:window.pwned=1}{x}$'
)
ROWS = [
    {
        "prompt": f"Question {i}: where does the bell heron live?",
        "response_a": f"**Answer {i}:** it lives in the reeds of the Upper Mere.\n\n" + EVIL,
        "response_b": f"Answer {i}: it lives in a boot.\n\n- small fish\n- مرحبا بالعالم",
        "source": "never shown",
    }
    for i in range(12)
]
CELLS = [
    "import os, json, pathlib\n"
    "pathlib.Path('pid').write_text(str(os.getpid()))\n"
    "rows = json.loads(pathlib.Path('rows.json').read_text())",
    "from course_utils.labeling import PreferenceLabeler\n"
    "labeler = PreferenceLabeler(rows, 'labels.jsonl', 'ana')\n"
    "labeler",
    "1 + 1",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the notebook runs."""
    folder = tmp_path / "work"
    write_notebook(folder, CELLS)
    (folder / "rows.json").write_text(json.dumps(ROWS))
    return folder


class Notebook:
    """The page, with what a person does on it."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self.log = page, PreferenceLog(folder / "labels.jsonl")
        self.folder = folder

    def run_all(self, address: str | None = None) -> None:
        run_all(self.page, address)
        self.page.wait_for_selector(".rlhf-item .rlhf-left", timeout=PATIENCE * 1000)

    def cells(self) -> list[str]:
        cells = "window.jupyterapp.shell.currentWidget.content.widgets"
        return list(self.page.evaluate(f"{cells}.map(cell => cell.model.sharedModel.source)"))

    def lines(self) -> list[dict[str, Any]]:
        """Every line of the log."""
        if not self.log.path.exists():
            return []
        text = self.log.path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def wait_for_lines(self, count: int) -> list[dict[str, Any]]:
        wait_for(lambda: len(self.lines()) >= count, f"{count} lines in the log", 20)
        time.sleep(0.1)  # one line too many would show
        found = self.lines()
        assert len(found) == count, found[count:]
        return found

    def settle(self, done: int) -> None:
        """Wait until the counter has moved and the next item may be labelled."""
        self.page.wait_for_function(
            "n => document.querySelector('.rlhf-counter')?.innerText.startsWith(n + ' of 12')",
            arg=done,
            timeout=20_000,
        )
        time.sleep(0.4)

    def click(self, name: str) -> None:
        self.page.click(f"button.rlhf-{name}")

    def has_focus(self, name: str) -> bool:
        inside = f"document.querySelector('.rlhf-{name}').contains(document.activeElement)"
        return bool(self.page.evaluate(inside))


@pytest.fixture
def notebook(folder: Path, tmp_path: Path) -> Iterator[Notebook]:
    with lab(folder, tmp_path) as address, browser_page() as page:
        made = Notebook(page, folder)
        made.run_all(address)
        yield made


def right_of(event: dict[str, Any]) -> str:
    return "b" if event["left"] == "a" else "a"


def test_labelling_by_mouse_and_keyboard(notebook: Notebook) -> None:
    page, before = notebook.page, notebook.cells()
    time.sleep(0.4)

    notebook.click("left-3")
    (event,) = notebook.wait_for_lines(1)
    assert (event["type"], event["choice"], event["strength"]) == ("label", event["left"], 3)
    assert (
        event["pair_id"]
        == Pair(*(event[k] for k in ("prompt", "response_a", "response_b"))).pair_id
    )
    assert (event["via"], event["annotator"], event["n_shown"]) == ("button", "ana", 1)
    assert event["seconds"] > 0.3 and event["meta"] == {"source": "never shown"}
    notebook.settle(1)

    # typed text and a criterion go with the label; typing does not press hotkeys
    page.click(".rlhf-rationale textarea")
    page.keyboard.type("because u asked 7 times")
    page.click(".rlhf-criterion-honest button:has-text('honest: right')")
    notebook.click("right-1")
    event = notebook.wait_for_lines(2)[-1]
    assert (event["choice"], event["strength"]) == (right_of(event), 1)
    assert event["rationale"] == "because u asked 7 times"
    assert event["criteria"] == {"honest": right_of(event)}
    notebook.settle(2)
    assert page.input_value(".rlhf-rationale textarea") == ""
    assert page.locator(".rlhf-inputs button.mod-active").count() == 0

    for number, name in enumerate(("tie", "skip", "both_bad")):
        notebook.click(name)
        assert notebook.wait_for_lines(3 + number)[-1]["choice"] == name
        notebook.settle(3 + number)

    notebook.click("undo")
    events = notebook.wait_for_lines(6)
    assert (events[-1]["type"], events[-1]["target"]) == ("undo", events[-2]["event_id"])
    notebook.settle(4)

    # the focus stands in the key box, so keys label and do not edit the notebook
    assert notebook.has_focus("keys")
    page.keyboard.press("1")
    event = notebook.wait_for_lines(7)[-1]
    assert (event["via"], event["choice"], event["strength"]) == ("key", event["left"], 3)
    notebook.settle(5)
    for number, key in enumerate("bs4"):
        page.keyboard.press(key)
        notebook.wait_for_lines(8 + number)
        notebook.settle(6 + number)
    page.keyboard.press("u")
    notebook.wait_for_lines(11)
    notebook.settle(7)
    page.keyboard.press("d")
    page.wait_for_selector(".rlhf-item mark")
    for key in ("x", "a", "Escape"):  # in command mode: cut the cell, insert one above
        page.keyboard.press(key)
    page.click(".rlhf-criterion-helpful button:has-text('helpful: same')")
    wait_for(lambda: notebook.has_focus("keys"), "the focus in the key box", 10)
    page.keyboard.press("x")
    assert notebook.cells() == before

    # a double click labels one pair
    notebook.page.dblclick("button.rlhf-tie")
    notebook.wait_for_lines(12)
    notebook.settle(8)

    assert [e["choice"] for e in notebook.lines() if e["type"] == "label"] == [
        *(notebook.lines()[0]["left"], right_of(notebook.lines()[1])),
        *("tie", "skip", "both_bad"),
        notebook.lines()[6]["left"],
        *("both_bad", "skip", "tie", "tie"),
    ]
    report = notebook.log.report()
    assert (report.events, report.skipped, report.unmatched) == (12, 0, 0)
    assert len(notebook.log.labels()) == 8

    # what models wrote was shown, and did nothing
    boxes = page.locator(".rlhf-item .rlhf-text")
    assert boxes.count() == 3
    text = page.inner_text(".rlhf-item")
    assert "<script>" in text and "never shown" not in text
    page.hover(".rlhf-item")
    assert page.evaluate("window.pwned") is None
    inside = ".rlhf-item :is(img, script, a, svg, iframe, [onerror], [onmouseover])"
    assert page.locator(inside).count() == 0

    notebook.click("differences")
    page.wait_for_selector(".rlhf-item mark", state="detached")
    pictures = build_dir()
    pictures.mkdir(parents=True, exist_ok=True)
    page.locator(".rlhf-labeler").screenshot(path=str(pictures / "labeler.png"))
    # screen readers: roles and names as the browser computes them
    for name in ("Left much better", "About the same", "Undo"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    for name in ("Prompt", "Left answer", "Right answer"):
        assert page.get_by_role("region", name=name, exact=True).count() == 1
    assert page.get_by_role("textbox", name="Keys:").count() == 1
    assert page.get_by_role("textbox", name="Why:").count() == 1


def test_a_killed_kernel_loses_no_label_that_was_counted(notebook: Notebook) -> None:
    page = notebook.page
    time.sleep(0.4)
    for number, name in enumerate(("left-2", "tie", "right-3"), start=1):
        notebook.click(name)
        notebook.wait_for_lines(number)
        notebook.settle(number)
    shown = page.inner_text(".rlhf-counter")
    saved = notebook.log.labels()
    pid = int((notebook.folder / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    page.wait_for_selector(".jp-Dialog button.jp-mod-accept", timeout=PATIENCE * 1000)
    page.click(".jp-Dialog button.jp-mod-accept")
    page.wait_for_selector(".jp-Dialog", state="detached")
    notebook.click("tie")  # nobody is listening
    time.sleep(0.5)
    assert page.inner_text(".rlhf-counter") == shown and len(notebook.lines()) == 3

    notebook.run_all()
    assert int((notebook.folder / "pid").read_text()) != pid
    page.wait_for_function("document.querySelectorAll('.rlhf-counter').length === 1")
    assert page.inner_text(".rlhf-counter") == shown
    assert "Taken up: 3 labels" in page.inner_text(".rlhf-status")
    assert notebook.log.labels() == saved
    time.sleep(0.4)
    notebook.click("skip")
    event = notebook.wait_for_lines(4)[-1]
    notebook.settle(4)
    assert event["pair_id"] not in {label["pair_id"] for label in saved}
    notebook.click("undo")
    notebook.wait_for_lines(5)
    notebook.settle(3)
