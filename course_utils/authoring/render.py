"""Executed chapters as HTML pages that open offline, and the page that lists them."""

from __future__ import annotations

import contextlib
import html
import re
from typing import Any

from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

convert: Any = None  # formulas as MathML need no network; without it they stay TeX for MathJax
with contextlib.suppress(ImportError):
    from latex2mathml.converter import convert

_MATHJAX = re.compile(r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.S)
_REQUIRE = re.compile(r'<script src="https?://[^"]*require[^"]*"[^>]*>\s*</script>')
_MERMAID = re.compile(r'<script type="module">(?:(?!</script>).)*mermaid.*?</script>', re.S)


class _Renderer(IPythonRenderer):
    """Markdown with formulas as MathML; `left` counts those that stay TeX."""

    left = 0

    def block_math(self, body: str) -> str:
        return self._math(body, "block") or super().block_math(body)

    def inline_math(self, body: str) -> str:
        return self._math(body, "inline") or super().inline_math(body)

    def latex_environment(self, name: str, body: str) -> str:
        whole = f"\\begin{{{name}}}{body}\\end{{{name}}}"
        return self._math(whole, "block") or super().latex_environment(name, body)

    def _math(self, tex: str, display: str) -> str:
        found = _mathml(tex, display)
        self.left += not found
        return found


class _Exporter(HTMLExporter):
    tex_left = 0

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        renderer = _Renderer(escape=False, anchor_link_text=self.anchor_link_text)
        text = str(MarkdownWithMath(renderer=renderer).render(source))
        self.tex_left += renderer.left
        return text


def _mathml(tex: str, display: str) -> str:
    if convert is None:
        return ""
    tex = tex.strip().replace("{aligned}", "{align*}")  # the name latex2mathml knows
    try:
        found = str(convert(tex, display=display))
    except Exception:  # TeX it does not know
        return ""
    # environments it does not know come out with bare ampersands
    return "" if "<mi>&</mi>" in found else found


def page(nb: NotebookNode, title: str) -> str:
    """One chapter as a self-contained HTML page: images inline, nothing fetched.

    Only where a formula could not become MathML does the page load MathJax, from the network.
    """
    exporter = _Exporter(exclude_input_prompt=True, exclude_output_prompt=True)
    text, _ = exporter.from_notebook_node(nb, {"metadata": {"name": title}})
    text = _MERMAID.sub("", _REQUIRE.sub("", text))
    return text if exporter.tex_left else _MATHJAX.sub("", text)


_STYLE = """
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #6b7280; --ok: #1b7f4b; --bad: #b3261e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } p { color: var(--soft); margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; } th, td { padding: .55rem .8rem .55rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; } .ok { color: var(--ok); } .failed { color: var(--bad); }
.soft, dt { color: var(--soft); } dl { margin: 0; display: grid; gap: 0 1rem;
  grid-template-columns: max-content auto; } dd { margin: 0; } .error { color: var(--bad); }
@media (prefers-color-scheme: dark) { :root { --line: #3a404b; --soft: #9aa3b2; --ok: #5ec98f;
  --bad: #ff8a80; } }
"""


def index(summary: dict[str, Any], titles: dict[str, str]) -> str:
    """The report over all chapters.

    Args:
        summary: what ``build/summary.json`` holds.
        titles: every chapter asked for, by stem; one without a summary is shown as not run.
    """
    rows = "\n".join(
        _row(stem, title, summary["chapters"].get(stem)) for stem, title in titles.items()
    )
    done = [entry["status"] for entry in summary["chapters"].values()]
    versions = " · ".join(f"{name} {number}" for name, number in summary["versions"].items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Course report</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><h1>Course report</h1>
<p>{done.count("ok")} of {len(titles)} chapters ran · {summary["seconds"]:.0f} s · profile
{html.escape(summary["profile"])}<br>{html.escape(versions)}</p>
<table><thead><tr><th>Chapter</th><th>Status</th><th class="number">Seconds</th>
<th class="number">Peak memory</th><th>Headline numbers</th></tr></thead>
<tbody>
{rows}
</tbody></table>
</body></html>
"""


def _row(stem: str, title: str, entry: dict[str, Any] | None) -> str:
    name = html.escape(title)
    if entry is None:
        return f'<tr><td>{name}</td><td class="soft">not run</td><td></td><td></td><td></td></tr>'
    error = ""
    if "error" in entry:
        error = (
            f'<div class="error">{html.escape(entry["cell"])}: {html.escape(entry["error"])}</div>'
        )
    numbers = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(_shown(value))}</dd>"
        for key, value in entry["metrics"].items()
    )
    return (
        f'<tr><td><a href="html/{stem}.html">{name}</a><br><a class="soft" '
        f'href="executed/{stem}.ipynb">notebook</a></td>'
        f'<td class="{entry["status"]}">{entry["status"]}</td>'
        f'<td class="number">{entry["seconds"]:.1f}</td>'
        f'<td class="number">{entry["peak_rss_mb"]:.0f} MiB</td>'
        f"<td>{error}<dl>{numbers}</dl></td></tr>"
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_shown(part) for part in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
