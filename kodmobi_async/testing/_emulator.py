"""An emulator on a thread and a loop of its own, for synchronous code and for clients on any loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from kodmobi_async.emulator import Emulator
from kodmobi_async.testing._real_service import no_real_service

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Generator, Iterable

    from ulid import ULID

    from kodmobi_async.emulator import Delivery, Fault

__all__ = ("RunningEmulator", "running_emulator")

T = TypeVar("T")


class RunningEmulator:
    """What a test does with an emulator that runs on another thread; every method may be called from any thread.

    The methods are those of `Emulator`, which documents their arguments and errors.
    """

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self._emulator = emulator
        self._loop = loop

    def __repr__(self) -> str:
        return f"<Running{self._call(lambda: repr(self._emulator))[1:]}"

    @property
    def api_key(self) -> str:
        """The public key, for ``KodmobiClient(api_key)``."""
        return self._emulator.api_key

    @property
    def secret_key(self) -> str:
        """The secret key, for ``KodmobiClient(secret_key=…)``."""
        return self._emulator.secret_key

    @property
    def base_url(self) -> str:
        """The base address of the API's calls, for ``KodmobiClient(base_url=…)``."""
        return self._emulator.base_url

    @property
    def requests(self) -> Counter[str]:
        """How many requests were read, by endpoint."""
        return self._call(self._emulator.requests.copy)

    @property
    def ledger(self) -> tuple[Delivery, ...]:
        """The codes delivered, in order: the newest ``keep``."""
        return self._call(lambda: self._emulator.ledger)

    @property
    def pending_faults(self) -> int:
        """How many requests a fault still waits for."""
        return self._call(lambda: self._emulator.pending_faults)

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions that are live, in the order in which they were opened."""
        return self._call(lambda: self._emulator.session_ids)

    def delivered(
        self, session_id: str | ULID | None = None, channel: str | None = None, *, to: str | None = None
    ) -> list[Delivery]:
        """Return the deliveries to a session, over a channel, to a recipient, or all of these."""
        return self._call(lambda: self._emulator.delivered(session_id, channel, to=to))

    def last_code(self, to: str) -> str:
        """Return the code that ``to`` received last."""
        return self._call(lambda: self._emulator.last_code(to))

    def add_session(
        self, session_id: str | ULID | None = None, *, to: str | None = None, active: Iterable[str] = ()
    ) -> str:
        """Open a session without a delivery, and return its id."""
        return self._call(lambda: self._emulator.add_session(session_id, to=to, active=active))

    def expire_session(self, session_id: str | ULID) -> None:
        """End a session now."""
        self._call(lambda: self._emulator.expire_session(session_id))

    def activate(self, session_id: str | ULID, channel: str) -> None:
        """Start the bot of a channel, as the session's user would."""
        self._call(lambda: self._emulator.activate(session_id, channel))

    def block(self, to: str) -> None:
        """Refuse to create sessions for ``to``, to send to it, and to check its codes."""
        self._call(lambda: self._emulator.block(to))

    def unblock(self, to: str) -> None:
        """End the block of ``to``, if there is one."""
        self._call(lambda: self._emulator.unblock(to))

    def script(self, fault: Fault, times: int = 1, endpoint: str | None = "send") -> None:
        """Let the next requests go wrong."""
        self._call(lambda: self._emulator.script(fault, times, endpoint))

    def clear_faults(self) -> None:
        """Remove the faults that are still pending."""
        self._call(self._emulator.clear_faults)

    def reset(self) -> None:
        """Forget sessions, deliveries, requests and faults, and begin anew."""
        self._call(self._emulator.reset)

    def _call(self, function: Callable[[], T]) -> T:
        async def on_its_loop() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(on_its_loop(), self._loop).result()


@contextmanager
def running_emulator(**settings: Any) -> Generator[RunningEmulator]:
    """Run an emulator on a thread of its own, for the length of the block.

    Requests of the client to the real service are refused meanwhile, as by `no_real_service`.

    Args:
        settings: Those of `Emulator`, such as ``window=5.0``.

    Raises:
        ValueError: A setting is invalid.
        OSError: The port is in use.
    """
    emulator = Emulator(**settings)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = Thread(target=_serve, args=(emulator, started), name="kodmobi-emulator", daemon=True)
    with no_real_service():
        thread.start()
        loop, stopping = started.result()
        try:
            yield RunningEmulator(emulator, loop)
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join()


def _serve(emulator: Emulator, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    async def serve() -> None:
        stopping = asyncio.Event()
        try:
            await emulator.start()
        except BaseException as error:  # noqa: BLE001 it belongs to the thread that waits for the start
            started.set_exception(error)
            return
        try:
            started.set_result((asyncio.get_running_loop(), stopping))
            await stopping.wait()
        finally:
            await emulator.aclose()

    # a loop of asyncio's own, whatever the program's policy is: the test's clock has to reach it
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(serve())
