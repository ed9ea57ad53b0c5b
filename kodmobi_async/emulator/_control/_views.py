"""What the control interface shows: the state as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from kodmobi_async.emulator import _requests
from kodmobi_async.emulator._control._faults import describe_fault
from kodmobi_async.emulator._json import to_timestamp
from kodmobi_async.emulator._project import Project
from kodmobi_async.emulator._state import State

if TYPE_CHECKING:
    from kodmobi_async.emulator._events import Event
    from kodmobi_async.emulator._json import JsonObject
    from kodmobi_async.emulator._requests import Exchanged
    from kodmobi_async.emulator._sessions import Delivery, Session

__all__ = ("Views",)


@attrs.frozen(eq=False, repr=False)
class Views:
    """Describe parts of the state, as the OpenAPI document has them."""

    _state: State
    _project: Project

    def delivery(self, number: int, delivery: Delivery) -> JsonObject:
        """Return a ``Delivery``."""
        session = self._state.sessions.get(delivery.session_id)
        return {
            "id": number,
            "session_id": delivery.session_id,
            "to": delivery.to,
            "channel": delivery.channel,
            "code": delivery.code,
            "at": self._date(delivery.at),
            "timeout": session.seconds_left(delivery.channel, self._state.clock.time()) if session else 0,
        }

    def session(self, session: Session) -> JsonObject:
        """Return a ``Session``."""
        now = self._state.clock.time()
        live = now < session.expires_at
        return {
            "session_id": session.id,
            "to": session.user.to,
            "state": "live" if live else "confirmed" if session.confirmed else "over",
            "session_expired_at": self._date(session.expires_at),
            "expires_in": round(max(0.0, session.expires_at - now), 3),
            "wrong_codes": session.wrong_codes,
            "blocked": session.user.blocked,
            "channels": [
                {name: channel[name] for name in ("type", "is_active", "timeout")}
                for channel in self._project.list_channels(session, now)
            ],
        }

    def request(self, number: int, exchanged: Exchanged) -> JsonObject:
        """Return a ``Request``."""
        return _requests.describe(number, exchanged, self._date(exchanged.at), self._state.settings)

    def faults(self) -> JsonObject:
        """Return the ``Faults``."""
        return {"faults": [describe_fault(entry) for entry in self._state.script]}

    def clock(self) -> JsonObject:
        """Return the ``Clock``."""
        return {"now": self._date(self._state.clock.time()), "speed": self._state.clock.speed}

    def health(self) -> JsonObject:
        """Return the ``Health``."""
        settings = self._state.settings
        return {
            "status": "ok",
            **self.clock(),
            "window": settings.window,
            "session_lifetime": settings.session_lifetime,
            "channels": settings.channels,
            "sessions": len(self._state.sessions),
            "delivered": len(self._state.sessions.ledger),
            "requests": len(self._state.requests),
            "pending_faults": len(self._state.script),
        }

    def event(self, event: Event) -> JsonObject:
        """Return what an event is about."""
        if event.kind == "delivery":
            return self.delivery(*cast("tuple[int, Delivery]", event.subject))
        if event.kind == "request":
            return self.request(*cast("tuple[int, Exchanged]", event.subject))
        if event.kind == "session":
            return self.session(cast("Session", event.subject))
        return {"faults": self.faults, "clock": self.clock}.get(event.kind, dict)()

    def _date(self, at: float) -> str:
        return to_timestamp(self._state.clock.date(at))
