"""An event loop for tests: its clock jumps instead of waiting.

Whenever nothing is ready to run and no socket has news, the loop moves its clock straight to the next timer. A
60-second cooldown then passes in a millisecond, with real sockets and with every timer in its right order. It holds
as long as all that the test talks to lives on this same loop: the emulator does; another process, such as a Redis
server, does not, and would see timeouts expire before it could answer.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from typing import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

__all__ = ("VirtualClockLoop",)

T = TypeVar("T")

# How long, in real seconds, the kernel may take to carry a byte over loopback before the clock jumps past it.
_LOOPBACK_GRACE = 0.001


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Run timers in order, without waiting for them.

    Use it where a loop factory is taken: ``asyncio.Runner(loop_factory=VirtualClockLoop)``, or pytest-asyncio's
    ``pytest_asyncio_loop_factories`` hook. While a thread works for the loop (``run_in_executor``), time stands still.

    Args:
        start: What the clock shows at first, in seconds.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = start
        self._threads_at_work = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Move the clock forward by ``seconds``; timers that fall due run at the loop's next turn.

        Raises:
            ValueError: ``seconds`` is negative: time does not go back.
        """
        if seconds < 0:
            raise ValueError("the clock of a loop does not go back")
        self._now += seconds

    @property
    def waits_for_threads(self) -> bool:
        """Whether a thread is at work, so that real time has to pass."""
        return self._threads_at_work > 0

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run ``func`` in a thread, as every loop does, with the clock at rest until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Join the threads, as every loop does, with the clock at rest: its timeout is in real time."""
        self._threads_at_work += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._threads_at_work -= 1

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._threads_at_work -= 1


class _JumpingSelector(selectors.BaseSelector):
    """The platform's selector, except that a wait nothing ends becomes a jump of the clock."""

    def __init__(self, loop: VirtualClockLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self._loop.waits_for_threads:
            return self._real.select(timeout)
        if timeout <= 0:
            return self._real.select(0)
        ready = self._real.select(_LOOPBACK_GRACE)
        if not ready:
            self._loop.jump(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
