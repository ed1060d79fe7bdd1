"""A tiny random model really served on loopback, asked, killed, and nothing left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
psutil = pytest.importorskip("psutil")

from course_utils._setup import Course  # noqa: E402
from course_utils.deploy import exporting, serving, talk  # noqa: E402
from course_utils.deploy.gating import waive  # noqa: E402
from course_utils.deploy.probes import Probe, weights_hash  # noqa: E402
from course_utils.deploy.serving import HOST, command, serve, vllm_command  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.paths import PACKAGE  # noqa: E402
from course_utils.templates import format_prompt  # noqa: E402


@pytest.fixture(scope="module")
def folder(
    course: Course,
    new_model: Callable[..., Any],
    tokenizer: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    model = new_model()
    return exporting.export(
        course,
        model,
        tokenizer,
        gate=waive(Probe("toy", {}, "p", weights_hash(model)), "a test"),
        source="test",
        folder=tmp_path_factory.mktemp("exports"),
    ).folder


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s still not: {what}")


def taken(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex((HOST, port)) == 0


# Without a server


def test_what_to_type() -> None:
    line = " ".join(command("dpo-1", 8000))
    assert line == "transformers serve dpo-1 --host 127.0.0.1 --port 8000 --device cpu"
    gpu = vllm_command("dpo-1")
    assert gpu.startswith("vllm serve ./dpo-1 ") and "--host 127.0.0.1" in gpu


def test_a_port_that_is_taken(folder: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CourseError, match=f"Port {port} cannot be used"):
            serve(folder, port)
    with pytest.raises(CourseError, match="1 to 65535"):
        serve(folder, 70_000)


def test_only_exports_are_served(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"no readable export\.json"):
        serve(tmp_path)


def test_missing_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "NEEDED", ("fastapi", "no_such_package"))
    with pytest.raises(CourseError, match="pip install no_such_package"):
        serve(folder)


def test_a_server_that_cannot_start_says_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import sys\nprint('no such device')\nsys.exit(3)\n")
    monkeypatch.setattr(serving, "CHILD", child)
    with pytest.raises(CourseError, match=r"(?s)exit code 3.*log:\nno such device"):
        serve(folder)


def test_a_server_that_says_nothing_is_ended(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(serving, "CHILD", child)
    with pytest.raises(CourseError, match="not answered within 2 s"):
        serve(folder, timeout=2)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


# One server for several questions


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[serving.Server]:
    with serve(folder) as running:
        yield running
    assert not running.alive and not taken(running.port)


@pytest.mark.slow
@pytest.mark.heavy
def test_a_conversation(server: serving.Server, tokenizer: Any) -> None:
    answer = talk.ask(server, "Where?", max_tokens=8, seed=1)
    assert answer == talk.ask(server, "Where?", max_tokens=8, seed=1)  # the seed counts
    assert 0 < answer.tokens <= 8 and answer.finished == (answer.tokens < 8)
    for question in (("Where?", ""), ("Where does it live?", "In the reeds.")):
        want = len(tokenizer(format_prompt(*question))["input_ids"])
        assert talk.ask(server, *question, max_tokens=1).prompt_tokens == want


@pytest.mark.slow
@pytest.mark.heavy
def test_the_official_client(server: serving.Server) -> None:
    with talk.client(server) as client:
        reply = client.chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": "Where?"}],
            max_tokens=4,
            logprobs=True,
            n=2,
        )
    assert reply.model.startswith("toy-")  # a name, and no path of this machine
    assert len(reply.choices) == 1 and reply.choices[0].logprobs is None  # ignored, as documented


@pytest.mark.slow
@pytest.mark.heavy
def test_it_listens_here_only_and_serves_this_model_only(server: serving.Server) -> None:
    listening = [
        c.laddr for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"
    ]
    assert [tuple(address) for address in listening] == [(HOST, server.port)]
    with (
        pytest.raises(CourseError, match=r"refuses the request.*pinned"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(server, "model", "another")
        talk.ask(server, "Where?")


@pytest.mark.slow
@pytest.mark.heavy
def test_proxies_are_not_asked(server: serving.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert talk.ask(server, "Where?", max_tokens=2).tokens > 0


# Ends


@pytest.mark.slow
@pytest.mark.heavy
def test_death_in_the_middle_of_a_conversation(folder: Path) -> None:
    with serve(folder) as server:
        talk.ask(server, "Where?", max_tokens=2)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(CourseError, match=r"(?s)has ended \(exit code -9\).*log:\n.*Uvicorn"):
            talk.ask(server, "Where?")
    server.stop()  # a second time, and of a dead one: nothing happens


def test_death_while_it_answers() -> None:
    """The connection breaks off, and a moment later the process is known to be gone."""
    source = textwrap.dedent(
        """
        import os, socket
        s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1])
        import sys; sys.stdout.flush()
        c, _ = s.accept(); c.recv(10); print("out of memory", file=sys.stderr, flush=True)
        c.close(); import time; time.sleep(0.3); os._exit(9)
        """
    )
    log = Path(os.devnull)
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert process.stdout is not None
    server = serving.Server(process, "toy", int(process.stdout.readline()), log)
    with pytest.raises(CourseError, match="exit code 9"):
        talk.ask(server, "Where?")
    process.stdout.close()
    server.stop()


@pytest.mark.slow
@pytest.mark.heavy
def test_nothing_outlives_a_killed_kernel(folder: Path, tmp_path: Path) -> None:
    """The process that began the server dies without a word."""
    source = textwrap.dedent(
        f"""
        import pathlib, time
        from course_utils.deploy.serving import serve
        server = serve(pathlib.Path({str(folder)!r}))
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(server.pid))
        time.sleep(60)
        """
    )
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    kernel = subprocess.Popen([sys.executable, "-c", source], env=env)
    pid_file = tmp_path / "pid"
    wait_for(lambda: pid_file.exists() and pid_file.read_text() != "", "the server runs", 100)
    pid = int(pid_file.read_text())
    assert psutil.pid_exists(pid)
    kernel.kill()
    kernel.wait()
    wait_for(lambda: not _running(pid), "the server is gone")


def _running(pid: int) -> bool:
    """Whether it runs; a zombie nobody waits for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
