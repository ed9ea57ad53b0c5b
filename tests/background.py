"""An emulator on a loop and a thread of its own, for clients that run loops of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from kodmobi_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Background:
    """A running emulator, and the way to touch it from another thread."""

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self.emulator = emulator
        self._loop = loop

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

    def add_session(self) -> str:
        session: str = self.call(self.emulator.add_session)
        return session


@contextlib.contextmanager
def emulator_in_background(
    *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None, **settings: Any
) -> Iterator[Background]:
    started = threading.Event()
    running: list[Background] = []
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        async with Emulator(**settings) as emulator:
            running.append(Background(emulator, loop))
            stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
            started.set()
            await stopped.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(timeout=30)
    try:
        yield running[0]
    finally:
        stop[0]()
        thread.join()
