"""Judging 200 pairs (400 calls) against a slow server: concurrently, one at a time, from the cache.

    python benchmarks/judge.py [--out benchmarks/results/judge.json]

The server stands in this process on loopback and answers every call after 200 ms. "One at a time"
is the plain `openai` client in a loop, over every tenth of the same questions (a tenth of the
minute and a half that all would take); it is the peer. The floor is the latency itself:
calls / concurrency * 0.2 s.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import logging
import os
import statistics
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

LATENCY, PAIRS, ROUNDS, SAMPLE = 0.2, 200, 3, 40
REPLY = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "slow",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": '{"why": "first", "winner": "A"}'},
        }
    ],
    "usage": {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320},
}


class Slow(BaseHTTPRequestHandler):
    """Answers after LATENCY seconds, and counts."""

    protocol_version = "HTTP/1.1"
    calls = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with Slow.lock:
            Slow.calls += 1
        time.sleep(LATENCY)
        body = json.dumps(REPLY).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


@contextmanager
def slow_server() -> Any:
    """The base URL of a running server."""
    server = Server(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


def one_at_a_time(url: str, pairs: list[tuple[str, str, str]]) -> float:
    """Seconds for SAMPLE of the same questions through the plain client, in a loop."""
    from openai import OpenAI

    from course_utils.judge.prompts import RUBRICS, pair_messages

    client = OpenAI(base_url=url, api_key="none")
    began = time.perf_counter()
    for prompt, a, b in pairs[: SAMPLE // 2]:
        for first, second in ((a, b), (b, a)):
            messages: Any = list(pair_messages(RUBRICS["general"], prompt, first, second, True))
            client.chat.completions.create(model="slow", messages=messages, max_tokens=300)
    return time.perf_counter() - began


def judged(url: str, path: Path, pairs: list[tuple[str, str, str]]) -> float:
    """Seconds for all the pairs at the default concurrency, with a transcript in a file."""
    from course_utils.judge import PairJudge, make_backend

    began = time.perf_counter()
    backend = make_backend("live", model="slow", base_url=url, transcript=path, quiet=True)
    verdicts = PairJudge(backend).compare(pairs)
    seconds = time.perf_counter() - began
    assert len(verdicts) == PAIRS and not verdicts.errors
    return seconds


def measure() -> dict[str, Any]:
    """The figures and what they were measured with."""
    from course_utils.judge.backend import Backend

    concurrency = Backend.__dataclass_fields__["concurrency"].default
    pairs = [(f"Question {i}?", f"Answer {i}. " * 20, f"Other {i}. " * 20) for i in range(PAIRS)]
    alone, together, cached = [], [], []
    with slow_server() as url, TemporaryDirectory() as folder:
        judged(url, Path(folder) / "warm.jsonl", pairs)  # imports, first connections
        for number in range(ROUNDS):
            path = Path(folder) / f"{number}.jsonl"
            alone.append(one_at_a_time(url, pairs) * 2 * PAIRS / SAMPLE)
            before = Slow.calls
            together.append(judged(url, path, pairs))
            calls = Slow.calls - before
            before = Slow.calls
            cached.append(judged(url, path, pairs))
            cached_calls = Slow.calls - before
    one, many = statistics.median(alone), statistics.median(together)
    return {
        "ratio": round(one / many, 1),
        "one_at_a_time_s": round(one, 2),
        "concurrent_s": round(many, 2),
        "floor_s": round(2 * PAIRS / concurrency * LATENCY, 2),
        "concurrency": concurrency,
        "second_run_s": round(statistics.median(cached), 3),
        "calls": calls,
        "second_run_calls": cached_calls,
        "rounds": {
            "one_at_a_time": [round(s, 2) for s in alone],
            "concurrent": [round(s, 2) for s in together],
            "second_run": [round(s, 3) for s in cached],
        },
        "one_at_a_time_sample": SAMPLE,
        "latency_s": LATENCY,
        "pairs": PAIRS,
        "cores": os.cpu_count(),
        "openai": importlib.metadata.version("openai"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Concurrent judging against one call at a time.")
    results = Path(__file__).parent / "results" / "judge.json"
    parser.add_argument("--out", type=Path, default=results)
    args = parser.parse_args()
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    result = measure()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"one at a time {result['one_at_a_time_s']} s · concurrent {result['concurrent_s']} s · "
        f"ratio {result['ratio']} · second run {result['second_run_s']} s"
    )


if __name__ == "__main__":
    main()
