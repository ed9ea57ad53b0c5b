"""asyncio-native SDK for kod.mobi: re-send one-time login codes, and never two in one window.

async with KodmobiClient() as client:  # key from KODMOBI_API_KEY
    result = await client.send("01K8N1VMPN0EE389K72YW0CBM2", Channel.TELEGRAM)
    print(result.channel.timeout, result.session_expired_at)

Each name is imported when it is first used, so that a door, such as the emulator, costs no more than itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from kodmobi_async._version import __version__

if TYPE_CHECKING:
    from kodmobi_async._calls.bulk import SendMany
    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._rules.cooldown import CooldownTracker, MemoryCooldownTracker, Reservation
    from kodmobi_async._rules.normalize import normalize_code, normalize_phone
    from kodmobi_async._rules.requests import normalize_channel, normalize_session_id
    from kodmobi_async._values.channel import Channel
    from kodmobi_async._values.errors import (
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
        LimitsUnavailableError,
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
        WrongCodeError,
        WrongLoopError,
    )
    from kodmobi_async._values.header_hooks import HeaderHook
    from kodmobi_async._values.hooks import (
        AttemptFinished,
        CallFinished,
        CallKind,
        CallRecord,
        CallStarted,
        CooldownHit,
        GateClosed,
        Hook,
        LimitsDegraded,
        Phase,
        Record,
        RetryScheduled,
        SendFinished,
        SendStarted,
        TrackerDegraded,
    )
    from kodmobi_async._values.models import (
        ChallengeSettings,
        CheckResult,
        CodeFormat,
        ProjectSettings,
        SendOutcome,
        SendRequest,
        SendResult,
        Session,
        SessionChannel,
        VerifiedUser,
    )
    from kodmobi_async._values.settings import Limits, RetryPolicy, Timeout
    from kodmobi_async._values.shared_limits import SharedLimits

__all__ = (
    "AttemptFinished",
    "AuthenticationError",
    "BadRequestError",
    "BalanceError",
    "BulkStoppedError",
    "CallFinished",
    "CallKind",
    "CallRecord",
    "CallStarted",
    "ChallengeError",
    "ChallengeSettings",
    "Channel",
    "ChannelUnavailableError",
    "CheckResult",
    "ClientClosedError",
    "CodeFormat",
    "ConfigurationError",
    "CooldownError",
    "CooldownHit",
    "CooldownTracker",
    "CooldownUnavailableError",
    "GateClosed",
    "HeaderHook",
    "Hook",
    "InvalidRequestError",
    "KodmobiClient",
    "KodmobiError",
    "Limits",
    "LimitsDegraded",
    "LimitsUnavailableError",
    "MemoryCooldownTracker",
    "NotFoundError",
    "Outcome",
    "OutcomeUnknownError",
    "Phase",
    "ProjectSettings",
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
    "Session",
    "SessionChannel",
    "SessionExpiredError",
    "SharedLimits",
    "Timeout",
    "TrackerDegraded",
    "TransportError",
    "UnreadableResponseError",
    "VerifiedUser",
    "WrongCodeError",
    "WrongLoopError",
    "__version__",
    "normalize_channel",
    "normalize_code",
    "normalize_phone",
    "normalize_session_id",
)

# Where each public name stands.
_HOMES: Final = {
    "_calls.bulk": "SendMany",
    "_calls.client": "KodmobiClient",
    "_rules.cooldown": "CooldownTracker MemoryCooldownTracker Reservation",
    "_rules.normalize": "normalize_code normalize_phone",
    "_rules.requests": "normalize_channel normalize_session_id",
    "_values.channel": "Channel",
    "_values.errors": (
        "AuthenticationError BadRequestError BalanceError BulkStoppedError ChallengeError "
        "ChannelUnavailableError ClientClosedError ConfigurationError CooldownError CooldownUnavailableError "
        "InvalidRequestError KodmobiError LimitsUnavailableError NotFoundError Outcome OutcomeUnknownError "
        "RateLimitedError RecipientBlockedError ResponseError SendInterruptedError ServerError SessionExpiredError "
        "TransportError UnreadableResponseError WrongCodeError WrongLoopError"
    ),
    "_values.header_hooks": "HeaderHook",
    "_values.hooks": (
        "AttemptFinished CallFinished CallKind CallRecord CallStarted CooldownHit GateClosed Hook "
        "LimitsDegraded Phase Record RetryScheduled SendFinished SendStarted TrackerDegraded"
    ),
    "_values.models": (
        "ChallengeSettings CheckResult CodeFormat ProjectSettings SendOutcome SendRequest SendResult Session "
        "SessionChannel VerifiedUser"
    ),
    "_values.settings": "Limits RetryPolicy Timeout",
    "_values.shared_limits": "SharedLimits",
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # to a type checker, a name that does not exist stays an error

    def __getattr__(name: str) -> object:
        """Import a public name, once."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
