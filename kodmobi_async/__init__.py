"""asyncio-native SDK for kod.mobi: re-send one-time login codes, and never two in one window.

async with KodmobiClient() as client:  # key from KODMOBI_API_KEY
    result = await client.send("01K8N1VMPN0EE389K72YW0CBM2", Channel.TELEGRAM)
    print(result.channel.timeout, result.session_expired_at)
"""

from __future__ import annotations

from kodmobi_async._bulk import SendMany
from kodmobi_async._client import KodmobiClient
from kodmobi_async._cooldown import CooldownTracker, MemoryCooldownTracker, Reservation
from kodmobi_async._errors import (
    AuthenticationError,
    BadRequestError,
    BalanceError,
    BulkStoppedError,
    ChallengeError,
    ChannelUnavailableError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    InvalidRequestError,
    KodmobiError,
    NotFoundError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    RecipientBlockedError,
    ResponseError,
    SendInterruptedError,
    ServerError,
    SessionExpiredError,
    TransportError,
    UnreadableResponseError,
    WrongLoopError,
)
from kodmobi_async._hooks import (
    AttemptFinished,
    CooldownHit,
    GateClosed,
    Hook,
    Phase,
    Record,
    RetryScheduled,
    SendFinished,
    SendStarted,
    TrackerDegraded,
)
from kodmobi_async._models import Channel, SendOutcome, SendRequest, SendResult, SessionChannel
from kodmobi_async._settings import Limits, RetryPolicy, Timeout
from kodmobi_async._version import __version__

__all__ = (
    "AttemptFinished",
    "AuthenticationError",
    "BadRequestError",
    "BalanceError",
    "BulkStoppedError",
    "ChallengeError",
    "Channel",
    "ChannelUnavailableError",
    "ClientClosedError",
    "ConfigurationError",
    "CooldownError",
    "CooldownHit",
    "CooldownTracker",
    "CooldownUnavailableError",
    "GateClosed",
    "Hook",
    "InvalidRequestError",
    "KodmobiClient",
    "KodmobiError",
    "Limits",
    "MemoryCooldownTracker",
    "NotFoundError",
    "Outcome",
    "OutcomeUnknownError",
    "Phase",
    "RateLimitedError",
    "RecipientBlockedError",
    "Record",
    "Reservation",
    "ResponseError",
    "RetryPolicy",
    "RetryScheduled",
    "SendFinished",
    "SendInterruptedError",
    "SendMany",
    "SendOutcome",
    "SendRequest",
    "SendResult",
    "SendStarted",
    "ServerError",
    "SessionChannel",
    "SessionExpiredError",
    "Timeout",
    "TrackerDegraded",
    "TransportError",
    "UnreadableResponseError",
    "WrongLoopError",
    "__version__",
)
