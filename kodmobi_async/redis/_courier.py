"""Scripts on their way to the server and back.

What is posted in one turn of the event loop travels together, so that a burst of sends needs few connections and few
round trips. A trip is short: it is over after its bound, whatever the network does, and its connection with it; then
what it carried goes once more. No reply is ever an exception: what the server or the network says against it is the
reply.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
from redis.exceptions import NoScriptError, RedisError

if TYPE_CHECKING:
    from types import TracebackType

    from redis.asyncio import Redis

    from kodmobi_async.redis._scripts import Script

_log: Final = logging.getLogger("kodmobi_async")
_SAFE_POLICY: Final = "noeviction"
_STEPS: Final = 10


@attrs.frozen
class Unreachable:
    """Instead of a reply: the server was not asked, did not answer in time, or would not do it.

    Attributes:
        reason: A few words, which hold nothing of the address or of the reply.
    """

    reason: str


Reply: TypeAlias = list[int] | Unreachable


class _Letter:
    """One script to run, and who waits for its reply."""

    __slots__ = ("arguments", "key", "reply", "script", "trips")

    def __init__(
        self, script: Script, key: str, arguments: tuple[str | int, ...], reply: asyncio.Future[Reply]
    ) -> None:
        self.script = script
        self.key = key
        self.arguments = arguments
        self.reply = reply
        self.trips = 0


class Courier:
    """Carries scripts over a few connections.

    Args:
        client: Whose connections are used. It must not repeat anything by itself.
        timeout: Seconds after which every script posted has a reply, be it that there is none.
    """

    TRIPS: Final = 16
    """Trips under way at a time, a connection each."""

    LOAD: Final = 256
    """Scripts that one trip takes at most."""

    TRIES: Final = 2
    """Trips for one script, so that a lost reply is asked for once more."""

    def __init__(self, client: Redis, *, timeout: float) -> None:
        self._client = client
        self._trip_time = 0.9 * timeout / self.TRIES
        self._outbox: list[_Letter] = []
        self._leaving = False
        self._trips: set[asyncio.Task[None]] = set()
        self._policy_is_known = False

    def post(self, script: Script, key: str, *arguments: str | int) -> asyncio.Future[Reply]:
        """Send ``script`` off; the future is its reply. Cancelling that may come too late to stop it."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._put(_Letter(script, key, arguments, reply))
        return reply

    async def aclose(self) -> None:
        """End all trips."""
        for task in self._trips:
            task.cancel()
        if self._trips:
            await asyncio.wait(self._trips)

    def _put(self, letter: _Letter) -> None:
        self._outbox.append(letter)
        if not self._leaving:
            self._leaving = True
            asyncio.get_running_loop().call_soon(self._leave)

    def _leave(self) -> None:
        self._leaving = False
        while self._outbox and len(self._trips) < self.TRIPS:
            load, self._outbox = self._outbox[: self.LOAD], self._outbox[self.LOAD :]
            letters = [letter for letter in load if not letter.reply.done()]
            if letters:
                task = asyncio.create_task(self._carry(letters))
                self._trips.add(task)
                task.add_done_callback(self._back)

    def _back(self, task: asyncio.Task[None]) -> None:
        self._trips.discard(task)
        self._leave()

    async def _carry(self, letters: list[_Letter]) -> None:
        replies: list[Any] = [Unreachable("closed")] * len(letters)
        again = False
        try:
            async with _Steps(self._trip_time):
                replies = await self._ask(letters)
        except Exception as error:  # noqa: BLE001 whatever the library raises: the answer is that there is none
            replies = [Unreachable(type(error).__name__)] * len(letters)
            again = True
        finally:
            for letter, reply in zip(letters, replies, strict=True):
                letter.trips += 1
                if again and letter.trips < self.TRIES:
                    self._put(letter)
                else:
                    _hand_over(letter, reply)

    async def _ask(self, letters: list[_Letter]) -> list[Any]:
        replies = await self._exchange(letters, whole=False)
        # a server that was restarted, or is another one by now, does not know the scripts any more
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._exchange([letters[number] for number in unknown], whole=True)
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    async def _exchange(self, letters: list[_Letter], *, whole: bool) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for letter in letters:
            if whole:
                pipeline.eval(letter.script.text, 1, letter.key, *letter.arguments)
            else:
                pipeline.evalsha(letter.script.digest, 1, letter.key, *letter.arguments)
        if self._policy_is_known:
            return await pipeline.execute(raise_on_error=False)
        pipeline.execute_command("INFO", "memory")  # pyright: ignore[reportUnknownMemberType] half typed
        *replies, memory = await pipeline.execute(raise_on_error=False)
        self._policy_is_known = True
        _warn_of_eviction(memory)
        return replies


def _hand_over(letter: _Letter, reply: Any) -> None:
    if not letter.reply.done():  # done: its caller was cancelled
        letter.reply.set_result(Unreachable(type(reply).__name__) if isinstance(reply, RedisError) else reply)


class _Steps:
    """Give its body so many seconds, and at least so many turns of the loop that it could have come to an end.

    A loop that has a lot to do is late for everything, replies among it; that is no fault of the server's.

    Raises:
        TimeoutError: It did not come to an end.
    """

    __slots__ = ("_loop", "_scope", "_step", "_timer")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._step = seconds / _STEPS
        self._scope = asyncio.timeout(None)
        self._timer = self._loop.call_later(self._step, self._tick, _STEPS - 1)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _tick(self, left: int) -> None:
        if left > 0:
            self._timer = self._loop.call_later(self._step, self._tick, left - 1)
        else:
            self._scope.reschedule(self._loop.time())


def _warn_of_eviction(memory: Any) -> None:
    """Say so if the server may drop keys of ours. It may also keep its settings to itself."""
    policy = _SAFE_POLICY if isinstance(memory, Exception) else str(memory.get("maxmemory_policy", _SAFE_POLICY))
    if policy != _SAFE_POLICY:
        _log.warning(
            "the server of the shared cooldowns has maxmemory-policy %s: it may drop open windows when its memory runs"
            " out; give it %s",
            policy,
            _SAFE_POLICY,
        )
