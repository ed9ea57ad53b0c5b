"""A hook that writes to the standard library's logging.

    KodmobiClient(hooks=[LoggingHook()])

What concerns one call is logged at DEBUG, with the session id shortened, in the service's own words too. Above DEBUG no
line names a session: an unknown outcome and a limited account are warnings, and say no more than the channel.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from kodmobi_async._errors import ConfigurationError, Outcome
from kodmobi_async._hooks import (
    AttemptFinished,
    CooldownHit,
    GateClosed,
    RetryScheduled,
    SendFinished,
    SendStarted,
    TrackerDegraded,
)
from kodmobi_async._models import shorten

if TYPE_CHECKING:
    from kodmobi_async._hooks import Record

__all__ = ("LoggingHook",)


class LoggingHook:
    """Log what a client does.

    Args:
        logger: Where to; by default the logger named ``kodmobi_async``.

    Raises:
        ConfigurationError: This is no logger.
    """

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None) -> None:
        if logger is not None and not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError(f"LoggingHook takes a logging.Logger, not {type(logger).__name__}")
        self._logger = logging.getLogger("kodmobi_async") if logger is None else logger

    def __call__(self, record: Record, /) -> None:
        """Log ``record``."""
        if isinstance(record, GateClosed):
            self._logger.warning("the service limits this account: holding back for %.1f s", record.seconds)
            return
        if isinstance(record, SendFinished) and record.outcome is Outcome.UNKNOWN:
            self._logger.warning("it is unknown whether a code was sent over %s", record.channel)
        if self._logger.isEnabledFor(logging.DEBUG):
            short = shorten(record.session_id)
            words = re.sub(record.session_id, short, _words(record), flags=re.IGNORECASE)
            self._logger.debug("send %d, session %s, %s: %s", record.call, short, record.channel, words)


def _words(
    record: SendStarted | CooldownHit | AttemptFinished | RetryScheduled | TrackerDegraded | SendFinished,
) -> str:
    match record:
        case SendStarted():
            return "started"
        case CooldownHit(retry_after=seconds, by_service=by_service):
            return f"too soon, says {'the service' if by_service else 'the client'}; again in {seconds:.1f} s"
        case AttemptFinished(number=number, outcome=outcome, phase=phase, status=status, duration=seconds):
            answer = phase.value if status is None else f"HTTP {status}"
            return f"attempt {number}: {outcome.value} ({answer}) after {seconds:.3f} s"
        case RetryScheduled(pause=seconds, reason=reason):
            return f"again in {seconds:.3f} s: {reason}"
        case TrackerDegraded(reason=reason):
            return f"by this process's own windows alone: the shared ones are not to be had ({reason})"
        case _:
            error = record.error
            end = "done" if error is None else "cancelled" if record.cancelled else type(error).__name__
            over = "" if record.sent_to in (None, record.channel) else f" over {record.sent_to}"
            return f"{end}, {record.outcome.value}{over}; attempts: {record.attempts}"
