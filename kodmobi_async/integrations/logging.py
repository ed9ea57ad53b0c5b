"""A hook that writes to the standard library's logging.

    KodmobiClient(hooks=[LoggingHook()])

What concerns one call is logged at DEBUG, with the session id shortened, in the service's own words too. Above DEBUG no
line names a session: an unknown outcome and a limited account are warnings, and say no more than the channel.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from kodmobi_async._values.errors import ConfigurationError, Outcome
from kodmobi_async._values.hooks import (
    AttemptFinished,
    CallFinished,
    CallStarted,
    CooldownHit,
    GateClosed,
    LimitsDegraded,
    RetryScheduled,
    TrackerDegraded,
)
from kodmobi_async._values.redaction import shorten

if TYPE_CHECKING:
    from kodmobi_async._values.hooks import Record

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
        if isinstance(record, CallFinished) and record.outcome is Outcome.UNKNOWN:
            self._logger.warning("the outcome of a %s is unknown%s", record.kind, _over(record.channel))
        if self._logger.isEnabledFor(logging.DEBUG):
            text = _describe(record)
            about = [record.to] if record.to else []
            if record.session_id is not None:
                short = shorten(record.session_id)
                about.append(f"session {short}")
                text = re.sub(record.session_id, short, text, flags=re.IGNORECASE)
            if record.channel is not None:
                about.append(record.channel)
            self._logger.debug("%s %d%s: %s", record.kind, record.call, "".join(f", {each}" for each in about), text)


def _over(channel: str | None) -> str:
    return f" over {channel}" if channel else ""


def _describe(  # noqa: PLR0911 one for each kind
    record: CallStarted
    | CooldownHit
    | AttemptFinished
    | RetryScheduled
    | TrackerDegraded
    | LimitsDegraded
    | CallFinished,
) -> str:
    match record:
        case CallStarted():
            return "started"
        case CooldownHit(retry_after=seconds, by_service=by_service):
            return f"too soon, says {'the service' if by_service else 'the client'}; again in {seconds:.1f} s"
        case AttemptFinished(number=number, outcome=outcome, phase=phase, status=status, duration=seconds):
            response = phase.value if status is None else f"HTTP {status}"
            return f"attempt {number}: {outcome.value} ({response}) after {seconds:.3f} s"
        case RetryScheduled(pause=seconds, reason=reason):
            return f"again in {seconds:.3f} s: {reason}"
        case TrackerDegraded(reason=reason):
            return f"by this process's own windows alone: the shared ones are unavailable ({reason})"
        case LimitsDegraded(reason=reason):
            return f"by this process's own share of the rate: the shared limits are unavailable ({reason})"
        case _:
            error = record.error
            end = "done" if error is None else "cancelled" if record.cancelled else type(error).__name__
            sent_to = None if record.sent_to == record.channel else record.sent_to
            return f"{end}, {record.outcome.value}{_over(sent_to)}; attempts: {record.attempts}"
