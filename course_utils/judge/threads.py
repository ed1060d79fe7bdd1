"""Running a coroutine from ordinary code, in a notebook too, where a loop runs already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.2  # how often Ctrl-C is looked for where waiting cannot be interrupted
FAREWELL_SECONDS = 5.0


def run_sync(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of the coroutine that `make` returns, run in a thread and loop of its own.

    Ctrl-C (in Jupyter: the stop button) cancels it and is passed on.
    """
    result: Future[T] = Future()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await make()

    def work() -> None:
        try:
            result.set_result(asyncio.run(main()))
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=work, name="judge", daemon=True)
    thread.start()
    try:
        while not result.done():
            wait([result], timeout=POLL_SECONDS)
    except KeyboardInterrupt:
        for loop, task in running:
            loop.call_soon_threadsafe(task.cancel)
        thread.join(FAREWELL_SECONDS)
        raise
    return result.result()
