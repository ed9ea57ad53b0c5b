"""``kodmobi bulk --queue``: rows go to a fleet of workers through Redis Streams, and their outcomes come back.

The workers' side is `kodmobi_async.integrations.taskiq.add_resend`. A row has the same id however often it is handed
over, so one that was in the queue when a run ended is asked for again, not sent again. One whose outcome is known, and
that is to be sent again, gets another.

A row goes: its turn by ``--rate`` → its intent on the disk, if there is a journal → the queue. With a journal, intents
of many rows are written together.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from kodmobi_async import (
    AuthenticationError,
    BalanceError,
    BulkStoppedError,
    ConfigurationError,
    Outcome,
    RateLimitedError,
    SendInterruptedError,
    SendOutcome,
)
from kodmobi_async.cli._sending import Turns, entry_of
from kodmobi_async.journal import State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable

    from kodmobi_async import KodmobiError
    from kodmobi_async.cli._bulk_options import Options
    from kodmobi_async.cli._progress import Tally
    from kodmobi_async.cli._rows import Row
    from kodmobi_async.journal import Journal

__all__ = ("FleetSending", "fleet")

_EXTRAS: Final = frozenset({"taskiq", "taskiq_redis", "redis"})
_ROWS_AT_A_TIME: Final = 256
"""Rows whose intents are written together."""
_OF_THE_ACCOUNT: Final = (AuthenticationError, BalanceError, RateLimitedError)


class HandOver(Protocol):
    """Hands rows over, and yields their outcomes."""

    def __call__(self, rows: AsyncIterable[Row], *, outstanding: int, tally: Tally) -> AsyncGenerator[SendOutcome]:
        """Do so.

        Args:
            rows: What to hand over.
            outstanding: Rows at most that are out.
            tally: Is told about workers.
        """
        ...


@contextlib.asynccontextmanager
async def fleet(url: str, run: str) -> AsyncGenerator[HandOver]:
    """Connect to the queue, and yield what hands rows over.

    Args:
        url: Of the Redis or Valkey server.
        run: What the ids of the rows begin with; the same for a run that goes on.

    Raises:
        ConfigurationError: The extra is missing, or the server is unavailable.
    """
    try:
        from taskiq.serializers import JSONSerializer  # noqa: PLC0415 of an extra
        from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker  # noqa: PLC0415 of an extra

        from kodmobi_async.integrations.taskiq import add_resend, send_through  # noqa: PLC0415 needs an extra
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRAS:
            raise
        raise ConfigurationError("--queue needs its extra: pip install 'kodmobi_async[cli,queue]'") from None
    try:
        results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(url, serializer=JSONSerializer())
        broker = RedisStreamBroker(url).with_result_backend(results)
        resend = add_resend(broker)
        await broker.startup()
    except Exception as error:  # noqa: BLE001 of the address, of the network, of the server: all mean the same here
        raise ConfigurationError(f"--queue: the server is unavailable ({type(error).__name__})") from None

    def task_id(row: Any) -> str:
        return f"{run}:{row.line}:{row.tries}"

    def hand_over(rows: AsyncIterable[Row], *, outstanding: int, tally: Tally) -> AsyncGenerator[SendOutcome]:
        return send_through(resend, rows, outstanding=outstanding, task_id=task_id, on_progress=tally.note_worker)

    try:
        yield hand_over
    finally:
        await broker.shutdown()


class FleetSending:
    """Has workers send rows; they are the ones to wait for cooldowns, and for limits of the account.

    Args:
        hand_over: Hands rows over.
        journal: Of the run, if one is kept.
        tally: Is told what is out.
        stopping: Set when nothing more is to be handed over.
        rate: Rows a second; ``None`` = as they come.
    """

    def __init__(
        self,
        hand_over: HandOver,
        *,
        journal: Journal | None,
        tally: Tally,
        stopping: asyncio.Event,
        rate: float | None,
    ) -> None:
        self._hand_over = hand_over
        self._journal = journal
        self._tally = tally
        self._stopping = stopping
        self._turns = Turns(rate, stopping)
        self._rows_at_a_time = _ROWS_AT_A_TIME if rate is None else 1
        self._taken: dict[int, Row] = {}
        self._out: dict[int, Row] = {}
        self._account: KodmobiError | None = None
        self._done = 0

    def many(self, rows: AsyncIterable[Row], options: Options) -> FleetSending:
        """Return what sends many rows."""
        self._outcomes = self._all(rows, options.concurrency)
        return self

    def __aiter__(self) -> AsyncGenerator[SendOutcome]:
        return self._outcomes

    async def _all(self, rows: AsyncIterable[Row], outstanding: int) -> AsyncGenerator[SendOutcome]:
        handed_over = self._hand_over(self._intended(rows), outstanding=outstanding, tally=self._tally)
        async with contextlib.aclosing(handed_over) as outcomes:
            async for outcome in outcomes:
                del self._out[cast("Row", outcome.request).line]
                self._tally.in_flight -= 1
                self._done += 1
                if isinstance(outcome.error, _OF_THE_ACCOUNT) and self._account is None:
                    self._account = outcome.error
                    self.stop()
                yield outcome
        if self._account is not None:
            words = f"stopped after {self._done} rows: {self._account}"
            raise BulkStoppedError(words, done=self._done, error=self._account)

    async def _intended(self, rows: AsyncIterable[Row]) -> AsyncGenerator[Row]:
        """Yield rows as they may be handed over, until the run stops."""
        async for row in rows:
            self._taken[row.line] = row
            if len(self._taken) >= self._rows_at_a_time:
                async for each in self._intend():
                    yield each
            if self._stopping.is_set():
                return
        async for each in self._intend():
            yield each

    async def _intend(self) -> AsyncGenerator[Row]:
        """Yield what was taken, once its turn has come and its intents are on the disk."""
        await self._turns.wait()
        if self._journal is not None and not self._stopping.is_set():
            await asyncio.gather(*(self._journal.intend(entry_of(row)) for row in self._taken.values()))
        for row in tuple(self._taken.values()):
            if self._stopping.is_set():
                return
            del self._taken[row.line]
            self._out[row.line] = row
            self._tally.in_flight += 1
            yield row

    @property
    def paused_for(self) -> float:
        """Nothing: it is the workers that pause."""
        return 0.0

    @property
    def unread(self) -> tuple[SendOutcome, ...]:
        """Rows without an outcome: those that are out may have been sent."""
        taken, out = tuple(self._taken.values()), tuple(self._out.values())
        for row in taken:
            if self._journal is not None:
                self._journal.settle(entry_of(row), State.LEFT)
        not_sent = SendInterruptedError("the run was ended before the row was handed over")
        unknown = SendInterruptedError("the run was ended while the row was out", outcome=Outcome.UNKNOWN)
        return (
            *(SendOutcome(row, error=not_sent) for row in taken),
            *(SendOutcome(row, error=unknown) for row in out),
        )

    def stop(self) -> None:
        """Hand nothing more over."""
        self._stopping.set()

    async def aclose(self) -> None:
        """Leave what is out to the workers."""
        await self._outcomes.aclose()
