"""A real JupyterLab and a real browser, for tests that click through a notebook."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from course_utils.paths import PACKAGE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
]
TOKEN = "only-for-this-test"
PATIENCE = 90  # seconds for a page or a kernel to come up
NOTEBOOK = "page.ipynb"


def unavailable(why: str) -> None:
    """Skip, or fail where a browser is promised."""
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, but {why}")
    pytest.skip(why)


def browser_path() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        unavailable("there is no Chromium on this machine (apt-get install chromium)")
    return str(found)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s still not: {what}")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def write_notebook(folder: Path, cells: Sequence[str]) -> None:
    """A notebook of these code cells in `folder`, which is made."""
    nbformat = pytest.importorskip("nbformat")
    folder.mkdir()
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(made, folder / NOTEBOOK)


@contextlib.contextmanager
def jupyter(program: str, folder: Path, home: Path, *options: str, **env: str) -> Iterator[int]:
    """A server of Jupyter's `program` in `folder`, without anybody's settings: its port.

    Args:
        home: its home folder; its log is written there.
        options: of the command, after those that every server needs.
        env: further variables, or others than usual.
    """
    usual = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    usual |= {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(PACKAGE.parent),
        "OMP_NUM_THREADS": "1",
    }
    port, log = free_port(), home / "jupyter.log"
    command = [
        *(sys.executable, "-m", program, "--no-browser", "--allow-root"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"),
        *(f"--IdentityProvider.token={TOKEN}", *options),
    ]
    with log.open("wb") as sink:
        server = subprocess.Popen(command, cwd=folder, env=usual | env, stdout=sink, stderr=sink)
    try:

        def up() -> bool:
            assert server.poll() is None, log.read_text()[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_for(up, f"{program} answers")
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.send_signal(signal.SIGTERM)  # a second signal skips the question
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def lab(folder: Path, tmp_path: Path) -> Iterator[str]:
    """A JupyterLab of its own in `folder`: the address of the page with its notebook."""
    pytest.importorskip("jupyterlab")
    home = tmp_path / "home"
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    # or a question about news lies over the page
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    options = (
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    )
    with jupyter("jupyterlab", folder, home, *options) as port:
        yield f"http://127.0.0.1:{port}/doc/tree/{NOTEBOOK}?token={TOKEN}"


@contextlib.contextmanager
def browser_page() -> Iterator[Any]:
    """An empty page; at the end no request of it may have left for a host of the test's texts."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("the package playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
        yield page
        assert not [url for url in asked if "evil" in url]
        browser.close()


def run_all(page: Any, address: str | None = None) -> None:
    """Open the notebook where an address is given, and run all its cells."""
    if address is not None:
        page.goto(address)
        page.wait_for_function(
            "window.jupyterapp?.shell.currentWidget?.context?.isReady", timeout=PATIENCE * 1000
        )
    page.evaluate(
        """async () => {
            const w = window.jupyterapp.shell.currentWidget;
            await w.context.ready; await w.revealed; await w.sessionContext.ready;
            await window.jupyterapp.commands.execute('notebook:run-all-cells');
        }"""
    )
