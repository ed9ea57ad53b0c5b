"""The requests of a run with a journal: read along with it, and sent with an intent each."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async._calls.postponed import Item
from kodmobi_async._calls.source import END, Source
from kodmobi_async._rules.requests import normalize_session_id
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import (
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    InvalidRequestError,
    KodmobiError,
    Outcome,
    RateLimitedError,
)
from kodmobi_async._values.redaction import shorten
from kodmobi_async.journal._entries import Entry, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._calls.run import Requests
    from kodmobi_async._rules.cooldown import CooldownTracker
    from kodmobi_async._values.models import SendRequest, SendResult
    from kodmobi_async.journal._journal import Journal

_REQUESTS_A_TURN: Final = 500
"""Requests that are read in a row, before the event loop gets its turn."""


class JournaledSends:
    """Sends requests, each with its intent on the disk before.

    Args:
        journal: Of the run; ``None`` = none is kept.
        remaining: Says for how many seconds a channel of a session is blocked.
    """

    def __init__(self, journal: Journal | None, remaining: Callable[[str, str], Awaitable[float]]) -> None:
        self._journal = journal
        self._remaining = remaining
        self._pairs: set[tuple[str, str]] = set()

    @contextlib.asynccontextmanager
    async def alone(self, entry: Entry) -> AsyncGenerator[None]:
        """Let nobody else of the run send to the channel of the session meanwhile.

        Raises:
            CooldownError: Somebody does, or it is blocked. An intent would say that a code may have been sent.
        """
        pair = entry.session_id, entry.channel.lower()
        if pair in self._pairs:
            raise _refusal(entry, WINDOW)
        self._pairs.add(pair)
        try:
            blocked_for = await self._remaining(entry.session_id, entry.channel)
            if blocked_for > 0:
                raise _refusal(entry, blocked_for)
            yield
        finally:
            self._pairs.discard(pair)

    async def send(self, entry: Entry, send: Callable[[], Awaitable[SendResult]]) -> SendResult:
        """Write the intent, and send. What provably sent nothing, and may be tried again, is taken back.

        Raises:
            JournalError: The intent is not on the disk; nothing was sent.
            KodmobiError: What ``send`` raises.
        """
        if self._journal is None:
            return await send()
        await self._journal.intend(entry)
        try:
            return await send()
        except (CooldownError, RateLimitedError) as error:
            if error.outcome is not Outcome.ACCEPTED:
                self._journal.settle(entry, State.LEFT)  # it must not look as if it had been sent
            raise


def _refusal(entry: Entry, blocked_for: float) -> CooldownError:
    return CooldownError(
        f"{entry.channel} was sent to too recently for session {shorten(entry.session_id)}; the next send may go in"
        f" {blocked_for:.1f} s",
        retry_after=blocked_for,
        session_id=entry.session_id,
        channel=entry.channel,
    )


class JournaledItem(Item):
    """A request, and what the journal knows of it.

    Args:
        given: What the input gave.
        entry: Its entry.
        journal: The journal.
        sends: Those of the run.
    """

    __slots__ = ("_entry", "_journal", "_sends")

    def __init__(self, given: object, entry: Entry, journal: Journal, sends: JournaledSends) -> None:
        super().__init__(given)
        self._entry = entry
        self._journal = journal
        self._sends = sends

    async def sent_by(self, send: Callable[[SendRequest], Awaitable[SendResult]]) -> SendResult:
        """Send it, with its intent before and its outcome after."""
        request, entry = self.checked(), self._entry
        if self._journal.run is not self._sends:
            raise ConfigurationError("another run has begun with the journal: this one sends nothing more")
        normalize_session_id(request.session_id)
        async with self._sends.alone(entry):
            try:
                result = await self._sends.send(entry, lambda: send(request))
            except (CooldownError, RateLimitedError) as error:
                if error.outcome is Outcome.ACCEPTED:
                    self._journal.settle(entry, State.SENT, _detail(error))
                raise
            except KodmobiError as error:
                state = State.of(error)
                # one that was cut off stays an intent: the next run asks about it
                if state is not State.UNKNOWN or not isinstance(error, ClientClosedError):
                    self._journal.settle(entry, state, _detail(error))
                raise
        told: dict[str, object] = {"confirmed": True} if result.confirmed else {}
        if result.channel.type.lower() != request.channel.lower():
            told["sent_to"] = result.channel.type
        self._journal.settle(entry, State.SENT, json.dumps(told) if told else None)
        return result


def items(
    journal: Journal,
    requests: Requests,
    *,
    client: KodmobiClient,
    cooldowns: CooldownTracker,
    concurrency: int,
    retry_failed: bool,
) -> AsyncIterator[Item]:
    """Return the requests that are to be sent, read along with the journal.

    Raises:
        ConfigurationError: These are nothing to iterate over. Later: the journal is of another run.
    """
    source = Source(requests)
    retried = (State.LEFT, *((State.REFUSED, State.NOT_SENT, State.BLOCKED) if retry_failed else ()))

    async def read() -> AsyncGenerator[Item]:
        if not journal.is_open:
            raise ConfigurationError("the journal is closed: keep it open for as long as the run lasts")
        journal.run = sends = JournaledSends(journal, client.remaining)
        await journal.bind("the service", client.base_url)
        await journal.flush()
        await journal.resolve(client, cooldowns=cooldowns, concurrency=concurrency)
        cursor, number = journal.cursor(), 0
        while (given := await source.anext() if source.is_async else source.next()) is not END:
            number += 1
            if number % _REQUESTS_A_TURN == 0:
                await asyncio.sleep(0)
            known, entry = await cursor.find(number), _entry(number, given)
            if known is not None:
                _compare(known, entry)
                if known.state not in retried:
                    continue
                entry = attrs.evolve(entry, tries=known.tries + 1)
            yield JournaledItem(given, entry, journal, sends)

    return read()


def _entry(number: int, given: object) -> Entry:
    request = Item(given).request
    session_id, channel = getattr(request, "session_id", ""), getattr(request, "channel", "")
    with contextlib.suppress(InvalidRequestError):
        session_id = normalize_session_id(session_id)
    return Entry(number, str(session_id), str.__str__(channel) if isinstance(channel, str) else "")


def _compare(known: Entry, entry: Entry) -> None:
    for name in ("session", "channel"):
        attribute = "session_id" if name == "session" else name
        if getattr(known, attribute).lower() != getattr(entry, attribute).lower():
            raise ConfigurationError(
                f"the journal is of another run: request {entry.number} has another {name} than before; take the same"
                " requests again, in the same order, or a new journal"
            )


def _detail(error: KodmobiError) -> str:
    return json.dumps({"error": error.to_dict()})
