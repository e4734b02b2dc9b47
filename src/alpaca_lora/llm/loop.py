"""An event loop for one piece of work: beside a notebook's own, and told of SIGTERM and Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_in_a_loop(work: Callable[[], Coroutine[Any, Any, None]], interrupt: Callable[[int], None]) -> None:
    """Run `work` to its end.

    Args:
        work: What to run.
        interrupt: Called in the loop with the number of the first SIGTERM or SIGINT, after which `work` should end
            soon; a second signal does what it always did.
    """
    loop: asyncio.AbstractEventLoop
    before: dict[int, Any] = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    async def whole() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        with _on_signals(loop, interrupt, before):
            await work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(whole())
        return
    with ThreadPoolExecutor(1) as thread:  # a notebook's loop runs here already
        working = thread.submit(asyncio.run, whole())
        try:
            working.result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(interrupt, signal.SIGINT)
            working.result()


@contextmanager
def _on_signals(
    loop: asyncio.AbstractEventLoop, interrupt: Callable[[int], None], before: dict[int, Any]
) -> Iterator[None]:
    # Elsewhere than in the main thread Python allows no handlers.
    numbers = _SIGNALS if threading.current_thread() is threading.main_thread() else ()

    def leave() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)  # which leaves Python's default

    def heard(number: int) -> None:
        leave()
        interrupt(number)

    for number in numbers:
        loop.add_signal_handler(number, heard, number)
    try:
        yield
    finally:
        leave()
        for number in numbers:
            signal.signal(number, before[number])
