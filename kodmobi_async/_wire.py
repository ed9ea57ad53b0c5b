"""The protocol without a socket: a request becomes bytes; a status, headers and a body become a result or an error.

The endpoint and its shapes are the API documentation's ("Send code", "Channels", "Errors"). What it leaves open is
chosen here, each choice with a comment that says so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import attrs
import cattrs
import cattrs.gen
import orjson
from ulid import ULID

from kodmobi_async import _errors as errors
from kodmobi_async._errors import (
    CooldownError,
    InvalidRequestError,
    Outcome,
    OutcomeUnknownError,
    ResponseError,
    UnreadableResponseError,
)
from kodmobi_async._models import Channel, SendResult, SessionChannel

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

WINDOW: Final = 60.0
"""Seconds for which a channel is blocked after a send. Source: "Each channel has 60 seconds sending timeout"."""

SHORTEST_BLOCK: Final = 1.0
"""Seconds for which a channel is blocked at least when the service says "too soon"."""

MAX_WAIT_SECONDS: Final = 86_400.0
"""No wait that the service asks for is believed beyond a day; a longer one is cut to this."""

MAX_BODY_BYTES: Final = 262_144
"""Longer answers are not read. The documented ones are below 2 KiB."""


# Requests, answers and faults are as good as frozen; they are not, because freezing makes them twice as slow to build.


# -- requests ---------------------------------------------------------------------------------------------------------

# Crockford's base 32: no I, L, O or U; the first character carries only three bits.
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
# Crockford asks decoders to read I and L as 1, and O as 0.
_LOOK_ALIKES: Final = str.maketrans("ILO", "110")
_TO_PYTHONS_DIGITS: Final = bytes.maketrans(b"ABCDEFGHJKMNPQRSTVWXYZ", b"ABCDEFGHIJKLMNOPQRSTUV")
_CHANNEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KNOWN_CHANNELS: Final[dict[str, Channel]] = {channel.value: channel for channel in Channel}


@attrs.define
class Request:
    """One HTTP request, relative to the base address."""

    method: str
    target: str
    body: bytes | None = None


@attrs.define
class Answer:
    """What came back: all of it, or the status and headers with the reason why the body could not be read."""

    status: int
    # not shown where a traceback shows variables: a service may repeat in them what it was sent
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    flaw: str | None = None


_NO_HEADERS: Final[Mapping[str, str]] = {}


class Closable(Protocol):
    """A connection, as far as the rules know it."""

    def close(self) -> None:
        """Close it now."""
        ...


class Progress:
    """How far an exchange has come."""

    __slots__ = ("connection", "foreign", "headers", "status", "unusable", "written")

    def __init__(self) -> None:
        self.written = False
        """The request was handed to a connected socket."""
        self.connection: Closable | None = None
        """The connection that the request was written to."""
        self.foreign = False
        """The answer belongs to another request."""
        self.unusable = False
        """The connection turned out to be of no use any more when the request was about to be written."""
        self.status: int | None = None
        """The status that came back."""
        self.headers: Mapping[str, str] = _NO_HEADERS
        """The headers that came with it."""

    def disown(self) -> None:
        """Note that the answer belongs to another request, and close its connection: the next answer may, too.

        A connection that is back in its pool is closed before anyone else can take it, if nothing was awaited since
        the answer was read.
        """
        self.foreign = True
        if self.connection is not None:
            self.connection.close()


@attrs.define
class Fault:
    """Why there is no answer.

    Attributes:
        reason: For people.
        permanent: The same will happen again.
    """

    reason: str
    permanent: bool = False


def canonical_session_id(session_id: ULID | str) -> str:
    """Return the one spelling of a session's ULID: upper case, look-alikes resolved.

    Raises:
        InvalidRequestError: It is no ULID. The message never repeats the value: it might be a secret put in the
            wrong place.
    """
    if type(session_id) is str and _ULID.fullmatch(session_id):
        return session_id
    if isinstance(session_id, ULID):
        return str(session_id)
    if not isinstance(session_id, str):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
        raise InvalidRequestError(f"session_id must be a ULID or a str, not {type(session_id).__name__}")
    # length and alphabet first: upper() of a hostile megabyte is work, and makes ASCII of some letters that are not
    if len(session_id) == 26 and session_id.isascii():
        canonical = session_id.upper().translate(_LOOK_ALIKES)
        if _ULID.fullmatch(canonical):
            return canonical
    raise InvalidRequestError(
        "session_id is not a ULID: it takes 26 characters of Crockford's base 32, the first of them at most 7"
        f" (got {len(session_id)} characters)"
    )


def to_ulid(session_id: str) -> ULID:
    """Return the ULID that is spelled in the canonical way; ``ULID.from_str`` takes twenty times as long."""
    return ULID(int(session_id.encode("ascii").translate(_TO_PYTHONS_DIGITS), 32).to_bytes(16, "big"))


def canonical_channel(channel: Channel | str) -> Channel | str:
    """Return the channel as it goes on the wire: documented names in the documentation's lower case.

    Raises:
        InvalidRequestError: It is no channel name: 1 to 64 ASCII letters, digits, dots, dashes and underscores.
    """
    if type(channel) is Channel:
        return channel
    if type(channel) is str and channel in _KNOWN_CHANNELS:
        return _KNOWN_CHANNELS[channel]
    if not isinstance(channel, str):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
        raise InvalidRequestError(f"channel must be a Channel or a str, not {type(channel).__name__}")
    if not _CHANNEL.fullmatch(channel):
        raise InvalidRequestError(
            "channel is not a channel name: it takes 1 to 64 ASCII letters, digits, dots, dashes and underscores"
            f" (got {len(channel)} characters)"
        )
    # a plain string, whatever enumeration of the user's own it may come from
    return _KNOWN_CHANNELS.get(channel.lower(), str.__str__(channel))


def is_channel(name: str) -> bool:
    """Whether a channel of this name could be asked for."""
    return _CHANNEL.fullmatch(name) is not None


def send_request(session_id: str, channel: str) -> Request:
    """Build ``POST /send`` from canonical values."""
    # neither holds anything that JSON would escape; joined, since an enumeration's member is slow to format
    return Request("POST", "/send", ('{"session_id":"' + session_id + '","type":"' + channel + '"}').encode("ascii"))


def channels_request(session_id: str | None) -> Request:
    """Build ``GET /channels``."""
    return Request("GET", "/channels" if session_id is None else f"/channels?session_id={session_id}")


# -- answers ----------------------------------------------------------------------------------------------------------

_WEEKDAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
# RFC 9110, 5.6.7: IMF-fixdate, RFC 850 with two digits of a year, and C's asctime.
_HTTP_DATES: Final = (
    re.compile(rf"{_WEEKDAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"
    ),
    re.compile(rf"{_WEEKDAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
_WHOLE_SECONDS: Final = re.compile(r"[0-9]{1,15}")
_LEAP_SECOND: Final = 60
_CENTURY: Final = 100
_HALF_CENTURY: Final = timedelta(days=50 * 365.25)


def parse_http_date(value: str, now: datetime) -> datetime | None:
    """Return the moment that an HTTP date names, or ``None``; a two-digit year is the one nearest to ``now``."""
    for form in _HTTP_DATES:
        match = form.fullmatch(value)
        if match:
            break
    else:
        return None
    year, second = int(match["year"]), int(match["second"])
    if len(match["year"]) == 2:
        year += now.year - now.year % _CENTURY
    leap = second == _LEAP_SECOND
    try:
        moment = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            second - leap,
            tzinfo=UTC,
        )
        if len(match["year"]) == 2:
            # RFC 9110: more than 50 years ahead means the past century; over its turn, as far behind means the next
            if moment - now > _HALF_CENTURY:
                moment = moment.replace(year=year - _CENTURY)
            elif now - moment > _HALF_CENTURY:
                moment = moment.replace(year=year + _CENTURY)
        return moment + timedelta(seconds=leap)
    except (ValueError, OverflowError):  # no such day, or the second after the calendar's last
        return None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, 0.0 to ``MAX_WAIT_SECONDS``; ``None`` if it says nothing.

    Whole seconds, or any of the three date forms of RFC 9110. Everything else is ignored.

    Args:
        value: The header's value.
        now: The moment that a date is counted from: the answer's own ``Date``, or the wall clock. Aware.
    """
    if value is None:
        return None
    value = value.strip(" \t")
    if _WHOLE_SECONDS.fullmatch(value):
        return min(float(value), MAX_WAIT_SECONDS)
    moment = parse_http_date(value, now)
    if moment is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), MAX_WAIT_SECONDS)


def dated(answer: Answer) -> datetime | None:
    """Return the service's own time of the answer, its ``Date``."""
    return _parse_date_header(answer.headers.get("Date", ""))


@functools.lru_cache(maxsize=4)  # the answers of one second share their date
def _parse_date_header(value: str) -> datetime | None:
    return parse_http_date(value, datetime.now(UTC))


def session_left(answer: Answer, result: SendResult) -> float | None:
    """Return the seconds that the session had left when the service answered; ``None`` if the answer does not tell.

    Both moments are the service's. The wall clock of this machine may be anywhere.
    """
    now = dated(answer)
    if now is None or result.session_expired_at is None:
        return None
    return (result.session_expired_at - now).total_seconds()


class _WrongShapeError(Exception):
    """The body is JSON, but not what is documented."""


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise _WrongShapeError
    return value


def _boolean(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongShapeError
    return value


def _number(value: Any, _: Any) -> float:
    # The documentation says 0 to 60. A longer block is believed (up to a day), so that a service which lengthens its
    # window is obeyed rather than misread; a negative one says nothing.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_WAIT_SECONDS:
        raise _WrongShapeError
    return float(value)


def _channel_name(value: Any, _: Any) -> Channel | str:
    if not isinstance(value, str):
        raise _WrongShapeError
    return _KNOWN_CHANNELS.get(value, value)


def _moment(value: Any) -> datetime | None:
    # [open] "string or datetime": ISO 8601 is the only form seen. Without an offset it is read as UTC; a string that
    # is no date, and null, say nothing about the session's end.
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(_text(value, str))
    except ValueError:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # year 1 or 9999 with an offset that leads out of the calendar
        return None


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
        str: _text,
        bool: _boolean,
        float: _number,
        Channel | str: _channel_name,
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    return converter


_converter: Final = _make_converter()
_structure_channel: Final = _converter.get_structure_hook(SessionChannel)
_structure_list: Final = _converter.get_structure_hook(list[SessionChannel])


def _is_foreign(named: Any, session_id: str) -> bool:
    """Return whether an answer names another session; what is no session's name at all is another matter."""
    if named == session_id:
        return False
    try:
        return canonical_session_id(named) != session_id
    except InvalidRequestError:
        raise _WrongShapeError from None


def _structure_send(body: dict[str, Any], session_id: str) -> SendResult:
    if _is_foreign(body["session_id"], session_id):
        raise OutcomeUnknownError("the answer names another session", safe_after=WINDOW)
    channel = _structure_channel(body["channel"], SessionChannel)
    return SendResult(to_ulid(session_id), _moment(body["session_expired_at"]), channel)


def _structure_channels(body: list[Any], _: str) -> tuple[SessionChannel, ...]:
    return tuple(_structure_list(body, list[SessionChannel]))


def _parse(answer: Answer, container: type, structure: Callable[[Any, str], T], session_id: str = "") -> T | str:
    """Return the body of a 2xx answer, a JSON ``container``, as ``structure`` makes it; or why it cannot be read.

    That reason is raised elsewhere: the variables here hold the body, which may repeat the key.
    """
    if answer.flaw is not None:
        return answer.flaw
    try:
        value = orjson.loads(answer.body)
        if isinstance(value, container):
            return structure(value, session_id)
    except orjson.JSONDecodeError:
        return "it is not JSON"
    except (_WrongShapeError, KeyError, TypeError):
        pass
    return "it is not the documented shape"


def _unreadable(answer: Answer, reason: str) -> UnreadableResponseError:
    return UnreadableResponseError(f"the service said HTTP {answer.status}, but its answer cannot be read: {reason}")


def read_send(answer: Answer, session_id: str) -> SendResult:
    """Return what a 2xx answer to ``POST /send`` says.

    Args:
        answer: The answer.
        session_id: The session that was asked about, in canonical spelling.

    Raises:
        OutcomeUnknownError: The answer names another session, and so says nothing about this one.
        UnreadableResponseError: The body is not the documented shape, or could not be read to its end.
    """
    # [open] A 2xx that holds the error envelope ("success": false) is read as any other unexpected body: accepted, as
    # far as anyone can tell.
    read = _parse(answer, dict, _structure_send, session_id)
    if isinstance(read, str):
        raise _unreadable(answer, read)
    return read


def read_channels(answer: Answer) -> tuple[SessionChannel, ...]:
    """Return what a 2xx answer to ``GET /channels`` says.

    Raises:
        UnreadableResponseError: The body is not the documented shape, or could not be read to its end.
    """
    read = _parse(answer, list, _structure_channels)
    if isinstance(read, str):
        raise _unreadable(answer, read)
    return read


# -- errors -----------------------------------------------------------------------------------------------------------

TOO_SOON: Final = "ERROR_MESSAGE_ATTEMPT"

# Source: the codes that the service's own JavaScript SDK knows, and the documentation's ERROR_MESSAGE_NOT_FOUND.
_BY_CODE: Final[dict[str, tuple[type[ResponseError], str]]] = {
    "ERROR_PROJECT_HAS_NO_CHANNELS": (errors.ChannelUnavailableError, "enable a channel for the project"),
    "ERROR_PROJECT_HAS_NO_CHANNEL": (errors.ChannelUnavailableError, "enable the channel for the project"),
    "ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL": (
        errors.ChannelUnavailableError,
        "the user has not started the bot: show them the channel's link, which channels() gives",
    ),
    "ERROR_CHANNEL_NOT_ALLOWED_COUNTRY": (errors.ChannelUnavailableError, "try another channel for this country"),
    "ERROR_SESSION_EXPIRED": (errors.SessionExpiredError, "create a new session"),
    "ERROR_MESSAGE_WRONG_CODE": (errors.BadRequestError, "the code that was entered is wrong"),
    "ERROR_PHONE_BLOCKED": (errors.RecipientBlockedError, "the recipient is blocked"),
    "ERROR_BLOCKED": (errors.RecipientBlockedError, "the user is blocked"),
    "ERROR_CHALLENGE": (errors.ChallengeError, "a CAPTCHA has to be passed first"),
    "ERROR_BAD_REQUEST": (errors.BadRequestError, "the service finds the request invalid"),
    "ERROR_WRONG_BALANCE": (errors.BalanceError, "the account is out of money"),
    "ERROR_ACCESS_DENIED": (errors.AuthenticationError, "check the API key"),
    "ERROR_MESSAGE_NOT_FOUND": (errors.NotFoundError, "no such session or message"),
}

# Source: the documentation's list of statuses, and HTTP's own meaning for those that it leaves out.
_BY_STATUS: Final[dict[int, type[ResponseError]]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.BalanceError,
    403: errors.AuthenticationError,
    404: errors.NotFoundError,
    410: errors.SessionExpiredError,
    413: errors.BadRequestError,
    422: errors.BadRequestError,
    429: errors.RateLimitedError,
}

_LONGEST_WORDS: Final = 300


def outcome_of(status: int) -> Outcome:
    """Return what a status says of the request, whatever the body holds."""
    if 200 <= status < 300:
        return Outcome.ACCEPTED
    if 400 <= status < 500 or status == 503:
        return Outcome.REFUSED
    return Outcome.UNKNOWN


class Redaction:
    """Takes secrets out of text that the service has written, before it gets into an error, a record or a log."""

    __slots__ = ("_secrets",)

    # no secret holds this character: keys are printable ASCII
    PLACEHOLDER: Final = "•••"

    def __init__(self, *secrets: str) -> None:
        self._secrets = secrets

    def __call__(self, text: str) -> str:
        """Return ``text`` with the placeholder where a secret stood."""
        for secret in self._secrets:
            text = text.replace(secret, self.PLACEHOLDER)
        return text


NOTHING_SECRET: Final = Redaction()


def _words(value: Any, redact: Redaction) -> str | None:
    """Return text of the service fit for one line of a terminal or a log."""
    if not isinstance(value, str):
        return None
    # redacted first: half a secret is not found any more
    text = redact(value)[:_LONGEST_WORDS]
    return "".join(char if char.isprintable() else " " for char in text).strip() or None


def _envelope(answer: Answer) -> dict[str, Any]:
    try:
        read = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}


def read_error(
    answer: Answer, redact: Redaction = NOTHING_SECRET, *, session_id: str = "", channel: str = ""
) -> CooldownError | ResponseError:
    """Return the error that an answer other than 2xx stands for.

    The service's code decides first, the status second; unknown codes survive in ``sys_message``.

    Args:
        answer: The answer.
        redact: Takes secrets out of what the service says.
        session_id: The session asked about, for an error that names it.
        channel: The channel asked about.
    """
    envelope = _envelope(answer)
    code = envelope.get("sys_message")
    code = code if isinstance(code, str) else ""
    message = _words(envelope.get("message"), redact) or _words(envelope.get("error"), redact)
    retry_after = parse_retry_after(answer.headers.get("Retry-After"), dated(answer) or datetime.now(UTC))
    outcome = outcome_of(answer.status)
    # [open] How an early re-send is answered: the code is believed under any 4xx; "too soon, again in 0 s" means a
    # moment, or callers that wait for their turn would ask without end.
    if code == TOO_SOON and outcome is Outcome.REFUSED and answer.status != 503:
        retry_after = WINDOW if retry_after is None else max(retry_after, SHORTEST_BLOCK)
        return CooldownError(
            f"the service says: too soon for {channel or 'this'}; again in {retry_after:.1f} s",
            retry_after=retry_after,
            session_id=session_id,
            channel=channel,
            outcome=outcome,
        )
    kind = _BY_STATUS.get(answer.status, errors.ServerError if answer.status >= 500 else ResponseError)
    kind, hint = _BY_CODE.get(code, (kind, None))
    shown = _words(code, redact)
    text = f"HTTP {answer.status}" + (f" {shown}" if shown else "") + (f": {message}" if message else "")
    return kind(
        text + (f" ({hint})" if hint else ""),
        status=answer.status,
        sys_message=shown,
        message=message,
        retry_after=retry_after,
        outcome=outcome,
    )
