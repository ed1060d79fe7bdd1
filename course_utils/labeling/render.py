"""Model text as HTML that cannot do anything: Markdown for reading, and word differences.

Whatever a model writes is data. Raw HTML is escaped, images are named and not loaded, links show
their address and cannot be followed. Text that runs from right to left is laid out so, and long
text scrolls; its far end is folded away.
"""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from course_utils.labeling.items import printable

if TYPE_CHECKING:
    import mistune

RENDERED = 20_000  # characters shown as Markdown; the rest is folded away, as plain text
COMPARED = 1_500  # words per answer up to which differences are worked out
_WORDS = re.compile(r"\s+|\w+\s*|[^\w\s]\s*")  # blanks stay with the word before them

BOX = (
    "border:1px solid var(--jp-border-color1,#bbb);border-radius:4px;padding:4px 10px;"
    "max-height:24em;overflow:auto;overflow-wrap:anywhere;line-height:1.4"
)


@lru_cache(maxsize=1)
def _markdown() -> Callable[[str], str]:
    import mistune

    class Inert(mistune.HTMLRenderer):
        """Markdown whose links and images are text."""

        def link(self, text: str, url: str, title: str | None = None) -> str:
            address = html.escape(url)
            return f"<u>{text}</u>" if address in text else f"<u>{text}</u> ({address})"

        def image(self, text: str, url: str, title: str | None = None) -> str:
            return f"[image: {text}] ({html.escape(url)})"

        def block_code(self, code: str, info: str | None = None) -> str:
            return f"<pre><code>{html.escape(code)}</code></pre>\n"

    render: mistune.Markdown = mistune.create_markdown(
        renderer=Inert(escape=True), hard_wrap=True, plugins=["strikethrough", "table"]
    )
    return lambda text: str(render(text))


def markdown(text: str) -> str:
    """Markdown as inert HTML; as it stands, escaped, where Markdown cannot be read."""
    try:
        return _markdown()(printable(text))
    except (RecursionError, ValueError):
        return plain(text)


def plain(text: str) -> str:
    """Text as it stands, escaped."""
    return f'<div style="white-space:pre-wrap">{html.escape(printable(text))}</div>'


def text_box(text: str, label: str, body: str | None = None) -> str:
    """Text in a box that scrolls, can be reached by keyboard and has a name for screen readers.

    Args:
        text: what a model or a user wrote.
        label: the box's heading and name.
        body: HTML to show in place of the text as Markdown; must be safe.
    """
    if body is None:
        body = markdown(text[:RENDERED]) + _folded(text[RENDERED:])
    name = html.escape(label)
    return (
        f'<div style="font-weight:600;margin:4px 0 2px" aria-hidden="true">{name}</div>'
        f'<div role="region" aria-label="{name}" tabindex="0" dir="auto" '
        f'class="rlhf-text" style="{BOX}">{body}</div>'
    )


def _folded(rest: str) -> str:
    if not rest:
        return ""
    summary = f"<summary>{len(rest):,} more characters</summary>"
    return f"<details>{summary}{plain(rest)}</details>"


def differences(left: str, right: str) -> tuple[str, str]:
    """Both texts as they stand, with what the other one does not have marked, as HTML.

    Marked words are underlined and bold as well as coloured. Long texts are not compared.
    """
    words = [_WORDS.findall(text) for text in (left, right)]
    if max(map(len, words)) > COMPARED:
        note = f"<p>(Too long to compare: more than {COMPARED:,} words.)</p>"
        return note + plain(left), note + plain(right)
    # Its shortcut for frequent words stays on: without it, repetitive texts take minutes.
    first, second = ([word.strip() for word in side] for side in words)  # blanks do not count
    opcodes = difflib.SequenceMatcher(None, first, second).get_opcodes()
    sides = (
        [(tag, words[0][i1:i2]) for tag, i1, i2, _, _ in opcodes],
        [(tag, words[1][j1:j2]) for tag, _, _, j1, j2 in opcodes],
    )
    shown = ["".join(_marked(tag, "".join(part)) for tag, part in side) for side in sides]
    left_html, right_html = (f'<div style="white-space:pre-wrap">{text}</div>' for text in shown)
    return left_html, right_html


def _marked(tag: str, text: str) -> str:
    escaped = html.escape(printable(text))
    if tag == "equal" or not text:
        return escaped
    style = "background:#ffe58a;color:#000;text-decoration:underline;font-weight:600"
    return f'<mark style="{style}">{escaped}</mark>'


def table(rows: list[tuple[str, str]], caption: str) -> str:
    """A table of (heading, HTML) rows, for pages without live widgets; the HTML must be safe."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left;vertical-align:top">{html.escape(head)}</th>'
        f'<td dir="auto" style="text-align:left">{body}</td></tr>'
        for head, body in rows
    )
    return f"<table><caption>{html.escape(caption)}</caption><tbody>{lines}</tbody></table>"
