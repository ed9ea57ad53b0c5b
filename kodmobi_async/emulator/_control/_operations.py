"""The operations of the control interface, each with the name that it has in the OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from ulid import ULID

from kodmobi_async.emulator._control._faults import read_fault
from kodmobi_async.emulator._control._schema import InvalidInputError, document
from kodmobi_async.emulator._control._views import Views
from kodmobi_async.emulator._identifiers import canonical
from kodmobi_async.emulator._state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kodmobi_async.emulator._json import JsonObject

__all__ = ("NotFoundError", "Operations")


class NotFoundError(Exception):
    """There is no such thing; the text says what."""


@attrs.frozen(eq=False, repr=False)
class Operations:
    """What the control interface does. Arguments are validated by the document before they get here."""

    _state: State
    _views: Views

    async def health(self) -> JsonObject:
        """Return how the emulator is doing."""
        return self._views.health()

    async def openapi(self) -> JsonObject:
        """Return the OpenAPI document."""
        return document()

    async def list_deliveries(
        self,
        *,
        wait: float,
        after: int,
        limit: int,
        session_id: str | None = None,
        to: str | None = None,
        channel: str | None = None,
    ) -> JsonObject:
        """Return deliveries; wait for one, if none matches yet."""
        wanted = None if session_id is None else canonical(session_id)

        def matching() -> list[JsonObject]:
            found = (
                self._views.delivery(number, delivery)
                for number, delivery in self._state.sessions.ledger.newest(after)
                if wanted in {None, delivery.session_id}
                and to in {None, delivery.to}
                and channel in {None, delivery.channel}
            )
            return list(islice(found, limit))[::-1]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while not matching():
                    await self._state.events.change()
        return {"deliveries": matching()}

    async def list_sessions(self, *, limit: int, to: str | None = None) -> JsonObject:
        """Return sessions, the newest first."""
        found = (session for session in self._state.sessions.newest() if to in {None, session.user.to})
        return {"sessions": [self._views.session(session) for session in islice(found, limit)]}

    async def add_session(self, body: Mapping[str, Any]) -> JsonObject:
        """Open a session."""
        sessions = self._state.sessions
        session_id = canonical(body.get("session_id", "")) or str(ULID())
        to: str = body.get("to") or sessions.new_recipient()
        return self._views.session(sessions.add(session_id, to, body["active"], self._state.clock.time()))

    async def expire_session(self, session_id: str) -> JsonObject:
        """End a session."""
        session = self._state.sessions.get(canonical(session_id) or "")
        if session is None:
            raise NotFoundError("there is no such session")
        self._state.sessions.end(session, self._state.clock.time())
        return self._views.session(session)

    async def list_requests(self, *, after: int, limit: int, endpoint: str | None = None) -> JsonObject:
        """Return requests and their responses."""
        found = (
            self._views.request(number, exchanged)
            for number, exchanged in self._state.requests.newest(after)
            if endpoint in {None, exchanged.endpoint}
        )
        return {"requests": list(islice(found, limit))[::-1]}

    async def list_faults(self) -> JsonObject:
        """Return the faults that wait for a request."""
        return self._views.faults()

    async def add_fault(self, body: Mapping[str, Any]) -> JsonObject:
        """Script a fault."""
        self._state.script.add(read_fault(body), body["times"], body["endpoint"])
        return self._views.faults()

    async def clear_faults(self) -> JsonObject:
        """Remove the faults that wait for a request."""
        self._state.script.clear()
        return self._views.faults()

    async def show_clock(self) -> JsonObject:
        """Return the time."""
        return self._views.clock()

    async def change_clock(self, body: Mapping[str, Any]) -> JsonObject:
        """Move the time forward, or change its speed."""
        clock = self._state.clock
        if "advance" in body:
            try:
                clock.advance(body["advance"])
            except ValueError as error:
                raise InvalidInputError(str(error)) from None
        if "speed" in body:
            clock.speed = body["speed"]
        return self._views.clock()

    async def reset(self) -> JsonObject:
        """Forget everything but the time."""
        self._state.reset()
        return self._views.health()
