"""Reservations of slots that are shared, and the refusals of those that cannot be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kodmobi_async._rules.cooldown import Reservation
from kodmobi_async._values.errors import ConfigurationError, CooldownError, CooldownUnavailableError
from kodmobi_async._values.redaction import shorten

if TYPE_CHECKING:
    from kodmobi_async._values.models import WindowScope


class SharedReservation(Reservation):
    """A slot that is held in this process, and by its token in the store.

    Attributes:
        local: The reservation in this process.
        pair: The session and the channel.
        token: What the reservation is called in the store.
        is_stored: Whether the store holds the token, or may hold it.
        is_settled: Whether it was started or released.
    """

    __slots__ = ("degraded", "is_settled", "is_stored", "local", "pair", "token", "window")

    def __init__(self, local: Reservation, pair: tuple[str, str], key: str, token: str) -> None:
        super().__init__(key, local.until)
        self.local = local
        self.pair = pair
        self.token = token
        self.is_stored = False
        self.is_settled = False
        self.window: WindowScope = "shared"
        self.degraded: str | None = None

    def degrade(self, reason: str) -> None:
        """Note that the store is unavailable: only this process knows of the slot."""
        self.window, self.degraded = "local", reason


def shared(reservation: Reservation) -> SharedReservation:
    """Return a reservation as ours.

    Raises:
        ConfigurationError: Another kind of tracker has made it.
    """
    if not isinstance(reservation, SharedReservation):
        raise ConfigurationError("this reservation belongs to another tracker")
    return reservation


def refusal(session_id: str, channel: str, retry_after: float) -> CooldownError:
    """Return the error for a slot that is reserved or blocked."""
    return CooldownError(
        f"{channel} was sent to too recently for session {shorten(session_id)}, perhaps by another process;"
        f" the next send may go in {retry_after:.1f} s",
        retry_after=retry_after,
        session_id=session_id,
        channel=channel,
    )


def unavailable(reason: str) -> CooldownUnavailableError:
    """Return the error for a slot that must not be reserved without the store."""
    return CooldownUnavailableError(
        f"the shared cooldowns are unavailable ({reason}): nothing was sent. Try again when they are back"
    )
