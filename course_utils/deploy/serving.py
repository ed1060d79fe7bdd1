"""`transformers serve` on this machine, for this machine only: started, watched, ended.

The server listens on 127.0.0.1 and asks no hub. It answers one request at a time. It ends with the
``with`` block, with `Server.stop`, or with the kernel, however that ends (see `_child`).

What was found in transformers 5.23 and is worth knowing:

1. ``logprobs``, ``n`` and ``response_format`` are accepted and ignored;
2. without ``max_tokens`` an answer may have 1024 tokens, whatever the model's settings say;
3. a request that the client has given up keeps running.
"""

from __future__ import annotations

import atexit
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from course_utils.errors import CourseError

from .exporting import load_export

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0
LOG_LINES = 12
NEEDED = ("fastapi", "uvicorn")
CHILD = Path(__file__).with_name("_child.py")


class Server:
    """A running server, made by `serve`; a context manager that stops it.

    Attributes:
        model: what a client asks for: the export's name.
        port: on 127.0.0.1.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        model: str,
        port: int,
        log: Path,
        scratch: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.model, self.port = model, port
        self._process, self._log = process, log
        self._scratch = scratch  # holds the log, and goes with this object
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        """Base URL for a client."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def log_end(self, lines: int = LOG_LINES) -> str:
        """The last lines of what the server has said."""
        try:
            said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(said[-lines:])

    def require_alive(self) -> None:
        """Raise CourseError, with the end of the log, when the server has died."""
        code = self._process.poll()
        if code is not None:
            raise CourseError(
                f"The server has ended (exit code {code}): start it again with serve(). "
                f"The end of its log:\n{self.log_end() or '(nothing)'}"
            )

    def wait_for_end(self, seconds: float = 1.0) -> None:
        """Give a dying process a moment, so that its end is known; see `require_alive`."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def stop(self) -> None:
        """End the server and wait until it is gone; a second call does nothing."""
        atexit.unregister(self.stop)
        process = self._process
        if process.stdin is not None:
            process.stdin.close()  # the child ends by itself when it sees this
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Server({self.model!r}, {self.url}, {'running' if self.alive else 'ended'})"


def serve(
    folder: Path,
    port: int | None = None,
    *,
    device: str = "cpu",
    timeout: float = START_SECONDS,
) -> Server:
    """Serve an export on this machine and return when it answers.

    Args:
        folder: of an export; its files are checked first.
        port: None takes a free one.
        device: as in torch.
        timeout: seconds until it must answer.

    Raises:
        CourseError: a package is missing, the export is damaged, the port is taken, or the server
            ended or said nothing in time; then with the end of its log.
    """
    require_packages()
    ready = load_export(folder)
    port = _free_port(port)
    scratch = tempfile.TemporaryDirectory(prefix="serve-", ignore_cleanup_errors=True)
    log = Path(scratch.name) / "server.log"
    arguments = command(ready.name, port, device=device)[1:]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD), *arguments],
            cwd=ready.folder.parent,  # so that the model's name is no path of this machine
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # interrupting a cell must not reach it
        )
    server = Server(process, ready.name, port, log, scratch)
    try:
        _wait(server, timeout)
    except BaseException:  # Ctrl-C included
        server.stop()
        raise
    return server


def command(model: str, port: int, *, device: str = "cpu") -> list[str]:
    """What to type in the folder of the exports to start the same server by hand."""
    return [
        *("transformers", "serve", model),
        *("--host", HOST, "--port", str(port), "--device", device),
    ]


def vllm_command(model: str, port: int = 8000) -> str:
    """The same endpoint by vLLM, which answers many requests at once on a GPU, to be typed.

    Its own default would listen on every network.
    """
    return f"vllm serve ./{model} --served-model-name {model} --host {HOST} --port {port}"


def require_packages() -> None:
    """Raise CourseError where what `transformers serve` imports is not installed."""
    from course_utils.profiles import is_installed

    absent = [name for name in NEEDED if not is_installed(name)]
    if absent:
        raise CourseError(
            f"Serving needs the Python packages {', '.join(absent)}: "
            f"run `pip install {' '.join(absent)}`."
        )


def _free_port(wanted: int | None) -> int:
    """A port nobody listens on: the one wanted, or any."""
    if wanted is not None and not 1 <= wanted <= 65535:
        raise CourseError(f"port is {wanted}: use 1 to 65535, or None for a free one.")
    with socket.socket() as probe:
        if os.name == "posix":
            # As the server itself does: a port just given up counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise CourseError(
                f"Port {wanted} cannot be used ({error.strerror}): stop what listens there, or "
                "leave `port` out to get a free one."
            ) from error
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """The server's: nothing is asked of any hub."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **quiet}


def _wait(server: Server, timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        server.require_alive()
        if _healthy(server.port):
            server.require_alive()  # it was this one that answered
            return
        time.sleep(0.1)
    raise CourseError(
        f"The server has not answered within {timeout:.0f} s: raise `timeout`. "
        f"The end of its log:\n{server.log_end() or '(nothing)'}"
    )


def _healthy(port: int) -> bool:
    # http.client knows no proxies: this never leaves the machine.
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
