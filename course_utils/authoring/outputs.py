"""Make recorded outputs fit to commit: no machine paths, no progress bars, no widget state."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from course_utils.paths import PACKAGE

WIDGET = "application/vnd.jupyter.widget-view+json"
# the Hugging Face trainer's bar: the table of losses below it is kept
_HTML_BAR = re.compile(r"<div>\s*(?:<style>.*?</style>\s*)?<progress.*?</progress>.*?</div>", re.S)
_ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}\b")
_TQDM = re.compile(r"^.*\d+%\|.*\|.*(?:it/s|s/it|\?it).*$\n?", re.M)


def clean(nb: NotebookNode, replace: dict[str, str] | None = None) -> None:
    """Clean a notebook in place.

    Args:
        nb: an executed notebook.
        replace: further texts (paths) to replace, beside this machine's own.
    """
    table = sorted({**(replace or {}), **_machine_paths()}.items(), key=lambda pair: -len(pair[0]))
    nb.metadata.pop("widgets", None)
    nb.metadata["language_info"] = {"name": "python"}
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = _merge([out for out in cell.outputs if _keep(out, table)])


def _machine_paths() -> dict[str, str]:
    paths = {
        str(PACKAGE.parent): "rlhf-course",
        str(Path(sys.prefix)): ".venv",
        str(Path.home()): "~",
        tempfile.gettempdir(): "/tmp",
    }
    return {path: name for path, name in paths.items() if len(path) > 3}


def _keep(output: NotebookNode, table: list[tuple[str, str]]) -> bool:
    """Clean one output; False when nothing of it should stay."""
    if output.output_type == "stream":
        if output.name == "stderr":
            return False
        output.text = _text(output.text, table)
        return bool(output.text)
    if output.output_type == "error":
        output.traceback = [_text(line, table) for line in output.traceback]
        output.evalue = _text(output.evalue, table)
        return True
    output.metadata = {}
    if output.output_type == "execute_result":
        output.execution_count = None
    return _keep_data(output.data, table)


def _keep_data(data: NotebookNode, table: list[tuple[str, str]]) -> bool:
    was_widget = data.pop(WIDGET, None) is not None
    for kind in [kind for kind in data if kind.startswith("text/") or "svg" in kind]:
        data[kind] = _text(data[kind], table)
    if "<progress" in data.get("text/html", ""):
        data["text/html"] = _HTML_BAR.sub("", data["text/html"]).strip()
        if not data["text/html"]:
            return False
    # a live widget's text is a stale bar or a repr; its static picture is HTML or an image
    return not was_widget or any(kind != "text/plain" for kind in data)


def _text(text: str, table: list[tuple[str, str]]) -> str:
    lines = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    text = _ADDRESS.sub("0x…", _TQDM.sub("", "\n".join(lines)))
    for old, new in table:
        # whole path parts only: "/root" must not touch "/rooted"
        text = re.sub(rf"{re.escape(old)}(?![\w-])", new, text)
    return text


def _merge(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of stdout: where the kernel cut them is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and last.output_type == output.output_type == "stream":
            last.text += output.text
        else:
            merged.append(output)
    return merged
