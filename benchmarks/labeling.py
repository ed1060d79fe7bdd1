"""Milliseconds per click with 10,000 labels in the log, and seconds to open 100,000 events.

    python benchmarks/labeling.py [--quick] [--out benchmarks/results/labeling.json]

click      one press of a button of `PreferenceLabeler` in this process, from `click()` until the
           counter has moved: the write, the fsync, the next pair rendered, fresh inputs. There is
           no browser and no network in it. The log holds 10,000 labels, the session 12,000 pairs.
floor      what any program pays for the receipt: one write of the same size and one fsync
open       `PreferenceLog.read` of 100,000 events, one in ten an undo or an amendment, with texts of
           some 400 characters
open_floor `json.loads` of the same lines, and nothing else
session    a `PreferenceSession` over 12,000 pairs that resumes 10,000 labels
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LABELS, PAIRS, EVENTS, CLICKS = 10_000, 12_000, 100_000, 100
QUICK = {"labels": 200, "pairs": 260, "events": 1_000, "clicks": 10}


def make_pairs(count: int) -> list[dict[str, str]]:
    """Pairs of some 400 characters."""
    return [
        {
            "prompt": f"Question {i}: where does the bell heron live?",
            "response_a": f"Answer {i}. " + "It lives in the **reeds**. " * 6,
            "response_b": f"Answer {i}. " + "It eats small fish. " * 8,
        }
        for i in range(count)
    ]


def fill(path: Path, pairs: list[dict[str, str]], count: int, changes: bool) -> None:
    """`count` events; with `changes` every tenth is an undo or an amendment of the one before."""
    from course_utils.labeling import Pair, PreferenceLog

    log, events = PreferenceLog(path), []
    for i in range(count):
        event: dict[str, Any] = {"event_id": f"{i:032x}", "annotator": "me"}
        if changes and i % 20 == 10:
            event |= {"type": "undo", "target": f"{i - 1:032x}"}
        elif changes and i % 20 == 0 and i:
            change = {"rationale": "late"}
            event |= {"type": "amend", "target": f"{i - 1:032x}", "changes": change}
        else:
            pair = Pair(**pairs[i % len(pairs)])
            event |= {
                "type": "label",
                "pair_id": pair.pair_id,
                "choice": "ab"[i % 2],
                "strength": 2,
                "levels": 3,
                "left": "a",
                "rationale": "",
                "criteria": {},
                "via": "button",
                "seconds": 3.2,
                "n_shown": i,
                "gold": None,
                **pair.texts,
                "meta": {},
            }
        events.append(event)
    log.append_all(events)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def milliseconds(times: list[float]) -> dict[str, float]:
    """Median, 95th percentile and worst."""
    ordered = sorted(1000 * t for t in times)
    return {
        "median": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
        "worst": round(ordered[-1], 2),
    }


def measure_clicks(folder: Path, labels: int, pairs: int, clicks: int) -> dict[str, Any]:
    """Clicks, the floor, and opening the session."""
    from course_utils.labeling import PreferenceLabeler, PreferenceSession

    rows, path = make_pairs(pairs), folder / "clicks.jsonl"
    fill(path, rows, labels, changes=False)
    opened = seconds(lambda: PreferenceSession(rows, path))
    labeler = PreferenceLabeler(rows, path, min_seconds=0)
    assert labeler.progress.value == labels
    button = labeler.buttons["left-2"]
    times = [seconds(button.click) for _ in range(clicks)]
    assert labeler.progress.value == labels + clicks
    size = path.stat().st_size // (labels + clicks)
    with (folder / "floor").open("ab", buffering=0) as file:

        def receipt() -> None:
            file.write(b"x" * size)
            os.fsync(file.fileno())

        floor = [seconds(receipt) for _ in range(clicks)]
    return {
        "labels": labels,
        "pairs": pairs,
        "clicks": clicks,
        "click_ms": milliseconds(times),
        "floor_ms": milliseconds(floor),
        "session_seconds": round(opened, 3),
    }


def measure_opening(folder: Path, events: int, rounds: int = 3) -> dict[str, Any]:
    """Opening a log, and its floor, in turns."""
    from course_utils.labeling import PreferenceLog

    path = folder / "open.jsonl"
    fill(path, make_pairs(5_000), events, changes=True)
    log = PreferenceLog(path)
    assert log.report().events == events

    def floor() -> None:
        for line in path.read_bytes().split(b"\n"):
            if line:
                json.loads(line)

    ours, bare, cpu = [], [], []
    for _ in range(rounds):
        start = time.process_time()
        ours.append(seconds(log.read))
        cpu.append(time.process_time() - start)
        bare.append(seconds(floor))
    return {
        "events": events,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "open_seconds": [round(s, 3) for s in ours],
        "open_cpu_seconds": [round(s, 3) for s in cpu],
        "floor_seconds": [round(s, 3) for s in bare],
        "open/floor": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 2),
    }


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures and what they were measured with."""
    import ipywidgets

    sizes = (
        QUICK
        if quick
        else {
            "labels": LABELS,
            "pairs": PAIRS,
            "events": EVENTS,
            "clicks": CLICKS,
        }
    )
    events = sizes.pop("events")
    with tempfile.TemporaryDirectory(prefix="labeling-") as folder:
        return {
            "click": measure_clicks(Path(folder), **sizes),
            "open": measure_opening(Path(folder), events),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "versions": {"python": platform.python_version(), "ipywidgets": ipywidgets.__version__},
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Clicks and opening of the labelling log.")
    results = Path(__file__).parent / "results" / "labeling.json"
    parser.add_argument("--out", type=Path, help="default results/labeling.json; none with --quick")
    parser.add_argument("--quick", action="store_true", help="small, and writes nothing")
    args = parser.parse_args()
    result = measure(args.quick)
    out = args.out or (None if args.quick else results)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    click, opened = result["click"], result["open"]
    print(
        f"click {click['click_ms']} ms (floor {click['floor_ms']} ms) with {click['labels']} labels"
    )
    print(
        f"open {opened['events']} events: {opened['open_seconds']} s "
        f"(json alone: {opened['floor_seconds']} s)"
    )


if __name__ == "__main__":
    main()
