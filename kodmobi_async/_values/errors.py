"""What can go wrong, and what each error says about the code.

::

    KodmobiError                         .outcome .retryable
    ├── ConfigurationError               also a ValueError: bad key, address, setting
    ├── InvalidRequestError              also a ValueError: not a ULID, not a channel name; before any I/O
    ├── ClientClosedError                the client, or the session it borrows, is closed
    ├── WrongLoopError                   the client belongs to another event loop
    ├── CooldownError                    .retry_after .available_at .session_id .channel
    ├── CooldownUnavailableError         the shared windows are unavailable; nothing was sent
    ├── LimitsUnavailableError           the shared limits are unavailable; nothing was sent
    ├── TransportError                   provably nothing reached the service
    ├── OutcomeUnknownError              it may have been done: .safe_after
    ├── UnreadableResponseError          accepted, but the answer is not the documented shape
    ├── SendInterruptedError             a run of many sends was ended before this one had
    ├── BulkStoppedError                 something is wrong with the account: .done .error
    └── ResponseError                    .status .sys_message .message .retry_after .error_params .errors .request_id
        ├── BadRequestError
        ├── WrongCodeError
        ├── AuthenticationError
        ├── NotFoundError
        ├── SessionExpiredError
        ├── ChannelUnavailableError
        ├── RecipientBlockedError
        ├── ChallengeError
        ├── BalanceError
        ├── RateLimitedError
        └── ServerError

Above 300 lines: the tree reads best in one place.

Every error can be pickled. None holds the API key, a header, or an object of the HTTP library, and none is chained
to an exception that does.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kodmobi_async._values.plain import plain

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


LATER: Final = frozenset({408, 421, 425, 503})
"""Statuses with which the service responds that it did nothing, and may do it another time."""


KEYS: Final = {"error": "cause"}
"""Attributes of errors that ``to_dict()`` has under another name, as theirs says something else there."""


class Outcome(StrEnum):
    """What became of a code. Every attempt, and every call, ends in exactly one of these."""

    NOT_SENT = "not_sent"
    """Provably nothing reached the service."""
    REFUSED = "refused"
    """The service answered: not done."""
    UNKNOWN = "unknown"
    """It may have been done, or not."""
    ACCEPTED = "accepted"
    """The service took it."""


def _restore(cls: type[KodmobiError], args: tuple[object, ...], state: dict[str, Any]) -> KodmobiError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class KodmobiError(Exception):
    """The root of all errors of this package.

    Attributes:
        outcome: What became of the code. A call that sends no code ends in ``NOT_SENT`` or ``REFUSED``.
    """

    outcome: Outcome = Outcome.NOT_SENT

    def __init__(self, message: str, *, outcome: Outcome | None = None) -> None:
        super().__init__(message)
        if outcome is not None:
            self.outcome = outcome

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later, and cannot put out a second code by that."""
        return self.outcome in (Outcome.NOT_SENT, Outcome.REFUSED) and self._may_pass

    @property
    def _may_pass(self) -> bool:
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return the error as dictionaries, lists, strings and numbers.

        ``error`` is its class, ``text`` what it says, ``cause`` the error that stopped a run, and the rest are its
        attributes, those of a subclass too; names with a leading underscore are left out. `CooldownError` names the
        session in full, as it was asked for.
        """
        described = {"error": type(self).__name__, "outcome": self.outcome, "retryable": self.retryable}
        own = {KEYS.get(name, name): value for name, value in vars(self).items() if name[0] != "_"}
        return {name: plain(value) for name, value in {**described, "text": str(self), **own}.items()}

    # (as results have them)
    def keys(self) -> Collection[str]:
        """Return the names, so that ``dict(error)`` and what relies on it, such as FastAPI, takes the error."""
        return self.to_dict().keys()

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    __iter__ = None

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic take the error itself, or the dictionary of one."""
        from kodmobi_async._values import pydantic_schema  # noqa: PLC0415 only pydantic calls this

        return pydantic_schema.error_schema(cls, KodmobiError, KEYS, handler)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe what all errors have, and the numbers of this one."""
        from kodmobi_async._values import pydantic_schema  # noqa: PLC0415 as above

        return pydantic_schema.error_json_schema(cls, KodmobiError, KEYS)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())


class ConfigurationError(KodmobiError, ValueError):
    """A setting cannot be used: the key, the address, a number. Nothing was sent."""


class InvalidRequestError(KodmobiError, ValueError):
    """What was asked for cannot be asked of the service. Nothing was sent."""


class ClientClosedError(KodmobiError):
    """The client is closed, or was closed before this call ended; ``outcome`` says how far the call had come."""


class WrongLoopError(KodmobiError):
    """The client works for another event loop, or was carried into another process. Nothing was sent."""


class CooldownError(KodmobiError):
    """The channel was sent to less than a window ago.

    ``outcome`` is ``NOT_SENT`` where the client held the request back, ``REFUSED`` where the service said so, and
    ``ACCEPTED`` where the refusal of a repeat proved that an earlier, unanswered request of the same call arrived.

    Attributes:
        retry_after: Seconds until the next send may go, counted from when the error was made.
        session_id: The session, in canonical spelling; ``None`` where a session was about to be created.
        channel: The channel; ``None`` where it is the service's choice, or has nothing to do with it.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        session_id: str | None,
        channel: str | None,
        outcome: Outcome | None = None,
        available_at: datetime | None = None,
    ) -> None:
        super().__init__(message, outcome=outcome)
        self.retry_after = retry_after
        self.session_id = session_id
        self.channel = channel
        self._available_at = time.time() + retry_after if available_at is None else available_at.timestamp()

    @property
    def available_at(self) -> datetime:
        """When the next send may go, by this machine's wall clock, in UTC; ``retry_after`` is the exact number."""
        return datetime.fromtimestamp(self._available_at, UTC)

    def to_dict(self) -> dict[str, Any]:
        """Return what every error returns, and ``available_at``."""
        return {**super().to_dict(), "available_at": plain(self.available_at)}

    @property
    def _may_pass(self) -> bool:
        return True


class CooldownUnavailableError(KodmobiError):
    """The server of the shared cooldowns is unavailable, and nothing is sent without it. Nothing was sent."""

    @property
    def _may_pass(self) -> bool:
        return True


class LimitsUnavailableError(KodmobiError):
    """The server of the account's shared limits is unavailable, and nothing is sent without it. Nothing was sent."""

    @property
    def _may_pass(self) -> bool:
        return True


class TransportError(KodmobiError):
    """No connection to the service could be used: refused, DNS, TLS, no free connection in time. Nothing was sent."""

    @property
    def _may_pass(self) -> bool:
        return True


class OutcomeUnknownError(KodmobiError):
    """The request may have been carried out, and its response was lost.

    Attributes:
        safe_after: Seconds until a new send cannot put a second code into one window; until then the client itself
            refuses it. 0.0 for ``check`` and ``verify``, which send nothing: the code, or the token, may be used up.
    """

    outcome = Outcome.UNKNOWN

    def __init__(self, message: str, *, safe_after: float, outcome: Outcome | None = None) -> None:
        super().__init__(message, outcome=outcome)
        self.safe_after = safe_after


class UnreadableResponseError(KodmobiError):
    """The service accepted the request, but its answer is not the documented shape. The code is on its way."""

    outcome = Outcome.ACCEPTED


class SendInterruptedError(KodmobiError):
    """A run of many sends was ended before this one had; ``outcome`` is ``UNKNOWN`` where it may have been sent."""

    @property
    def _may_pass(self) -> bool:
        return True


class BulkStoppedError(KodmobiError):
    """A run of many sends was stopped by what is wrong with the account or the client, and so with every request.

    ``outcome`` is that of the error; the requests that were not read have none.

    Attributes:
        done: How many requests have an outcome: all that were read.
        error: What is wrong.
    """

    def __init__(self, message: str, *, done: int, error: KodmobiError, outcome: Outcome | None = None) -> None:
        super().__init__(message, outcome=error.outcome if outcome is None else outcome)
        self.done = done
        self.error = error


class ResponseError(KodmobiError):
    """The service answered with an error; this class itself stands for those without a class of their own.

    Attributes:
        status: The HTTP status; ``None`` where the client held back by itself and nothing was asked.
        sys_message: The service's code for it, such as ``"ERROR_BLOCKED"``, known to this package or not.
        message: The service's words, in the client's ``language``.
        retry_after: Seconds after which trying again makes sense, where the service said so.
        error_params: What the service adds about the request, secrets taken out; ``None`` if nothing.
        errors: The same by field of the request.
        request_id: The response's ``X-Request-Id``, to quote to the service's support.
    """

    outcome = Outcome.REFUSED

    def __init__(
        self,
        text: str,
        *,
        status: int | None,
        sys_message: str | None = None,
        message: str | None = None,
        retry_after: float | None = None,
        outcome: Outcome | None = None,
        error_params: Any = None,
        errors: Any = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(text, outcome=outcome)
        self.error_params = error_params
        self.errors = errors
        self.request_id = request_id
        self.status = status
        self.sys_message = sys_message
        self.message = message
        self.retry_after = retry_after

    @property
    def _may_pass(self) -> bool:
        # "try again later", or a read that the service failed at; unless the class names a lasting reason
        later = self.status in LATER or (self.outcome is Outcome.NOT_SENT and isinstance(self, ServerError))
        return later and not isinstance(self, _LASTING)


class BadRequestError(ResponseError):
    """The service finds the request invalid."""


class WrongCodeError(ResponseError):
    """The code that was checked is wrong; too many of them end the session."""


class AuthenticationError(ResponseError):
    """The API key is wrong, or may not do this."""


class NotFoundError(ResponseError):
    """There is no such session, or no such address."""


class SessionExpiredError(ResponseError):
    """The session has ended; create a new one."""


class ChannelUnavailableError(ResponseError):
    """The channel is not enabled, not allowed in the recipient's country, or not activated by the user."""


class RecipientBlockedError(ResponseError):
    """The recipient, or the user, is blocked."""


class ChallengeError(ResponseError):
    """A CAPTCHA is required, or was not passed."""


class BalanceError(ResponseError):
    """The account is out of money."""


class RateLimitedError(ResponseError):
    """The account, not the channel, is sending too fast; every send of the client holds back for a while."""

    @property
    def _may_pass(self) -> bool:
        return True


class ServerError(ResponseError):
    """The service has a problem of its own."""


_LASTING: Final = (
    BadRequestError,
    WrongCodeError,
    AuthenticationError,
    NotFoundError,
    SessionExpiredError,
    ChannelUnavailableError,
    RecipientBlockedError,
    ChallengeError,
    BalanceError,
)
