"""The widgets of chapters 08 and 12 in a real JupyterLab and a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_pages import PATIENCE, browser_page, lab, run_all, wait_for, write_notebook

from course_utils.labeling.log import PreferenceLog

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVIL = '<img src=x onerror="window.pwned=1"> ![x](https://evil.example/x.png)'
CELLS = [
    "from course_utils.constitution.batch import Revision, Round\n"
    "from course_utils.constitution import RevisionReader\n"
    "from course_utils.deploy.widget import Chat\n"
    "from course_utils.labeling.log import PreferenceLog\n"
    f"evil = {EVIL!r}\n"
    "items = [\n"
    "    Revision(0, 'first question', 'a rude answer ' + evil,\n"
    "        (Round(('kind',), 'It is rude. ' + evil, 'a kind answer'),\n"
    "         Round(('kind',), 'It is good.', 'a kinder answer'))),\n"
    "    Revision(1, 'second question', 'another answer', (Round(('all',), 'Fine.', 'same'),)),\n"
    "]",
    "RevisionReader(items, 'critic: a test')",
    "Chat(lambda text: f'You said {text}. {evil}', PreferenceLog('thumbs.jsonl'), "
    "annotator='ana', model='a test')",
]


def test_reading_revisions_and_giving_thumbs(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    write_notebook(folder, CELLS)
    with lab(folder, tmp_path) as address, browser_page() as page:
        run_all(page, address)
        page.wait_for_selector(".rlhf-chat", timeout=PATIENCE * 1000)

        # chapter 08: the reader steps through items and rounds
        def shown(*texts: str) -> bool:
            text = " ".join(page.locator(".jp-Cell-outputArea").all_inner_texts())
            return all(piece in text for piece in texts)

        wait_for(lambda: shown("a rude answer", "It is rude.", "a kind answer"), "round 1", 20)
        assert not shown("a kinder answer")
        slider = page.locator(".widget-slider [role=slider]").first
        slider.focus()
        page.keyboard.press("ArrowRight")
        wait_for(lambda: shown("It is good.", "a kinder answer"), "round 2", 20)
        page.get_by_role("button", name="Next", exact=True).click()
        wait_for(lambda: shown("another answer", "Fine."), "the second item", 20)
        page.get_by_role("button", name="Previous", exact=True).click()
        wait_for(lambda: shown("a rude answer", "It is rude."), "the first item again", 20)

        # chapter 12: a question, its answer, a thumb that is on disk before it is counted
        page.fill(".rlhf-entry textarea", "hello")
        page.click("button.rlhf-send")
        page.wait_for_selector("button.rlhf-up")
        page.click("button.rlhf-up")
        log = PreferenceLog(folder / "thumbs.jsonl")
        wait_for(lambda: shown("1 thumbs saved for ana"), "the counter", 20)
        (thumb,) = log.labels("rating")
        assert thumb["choice"] == "up" and thumb["response"].startswith("You said hello.")
        page.click("button.rlhf-down")  # a changed mind replaces it
        wait_for(lambda: shown("2 thumbs saved for ana"), "the counter", 20)
        assert [thumb["choice"] for thumb in log.labels("rating")] == ["down"]

        # what models wrote was shown, and did nothing
        assert page.evaluate("window.pwned") is None
        assert page.locator(".widget-html-content :is(img, script, [onerror])").count() == 0
