"""A login in four endpoints, for every web framework: what they take, do and return.

The session's id goes to the browser only inside a signed cookie that scripts cannot read. Guesses are bounded, per
login and per client address. Responses are the same for every recipient, and name it masked.

Left to the application: protection against cross-site requests beyond the cookie's ``SameSite`` (the endpoints take
JSON alone), limits on how many logins a client address may start, and what to do with a verified user. The bounds on
guesses hold for one process; the service counts wrong codes, too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import orjson

from kodmobi_async import (
    ConfigurationError,
    CooldownError,
    InvalidRequestError,
    Outcome,
    RateLimitedError,
    SessionExpiredError,
)
from kodmobi_async._values.redaction import mask, shorten
from kodmobi_async._values.settings import Secret
from kodmobi_async.integrations._attempts import Attempts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kodmobi_async import KodmobiClient, Session, SessionChannel, VerifiedUser

__all__ = ("Cookie", "LoginFlow", "LoginState", "read_fields")

_SHORTEST_SECRET: Final = 16
_HOUR: Final = 3_600.0
# Seconds that a login's cookie lives where the service does not say when the session ends.
_DEFAULT_LIFE: Final = 180.0


@attrs.frozen
class Cookie:
    """What goes into ``Set-Cookie``; ``max_age`` 0 deletes it."""

    name: str
    value: str = attrs.field(repr=False)
    max_age: int
    secure: bool


@attrs.frozen
class LoginState:
    """What a login page shows.

    Attributes:
        to: The recipient, masked.
        sent_to: The channel that a code has just been sent over; ``None`` if none was.
        expires_in: Seconds until the login has to be started again.
        channels: Each channel's type and name, and the seconds until it may be sent to.
    """

    to: str
    sent_to: str | None
    expires_in: float
    channels: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON takes it."""
        return {
            "to": self.to,
            "sent_to": self.sent_to,
            "expires_in": round(self.expires_in, 1),
            "channels": self.channels,
        }


@attrs.frozen
class _Login:
    """What the cookie holds."""

    session_id: str = attrs.field(repr=shorten)
    ends: float
    to: str

    @property
    def expires_in(self) -> float:
        return max(0.0, self.ends - time.time())


class LoginFlow:
    """The steps of a login.

    Args:
        secret: Signs the cookie; at least 16 bytes, the same in every process of the service.
        cookie: The cookie's name.
        secure: Whether the cookie goes over HTTPS alone; ``False`` is for a service on this machine.
        max_checks: Codes that may be tried for one login.
        max_checks_per_address: Codes that may be tried from one client address in an hour.

    Raises:
        ConfigurationError: The secret is too short, or a number is not positive.
    """

    def __init__(
        self,
        secret: str | bytes,
        *,
        cookie: str = "kodmobi_login",
        secure: bool = True,
        max_checks: int = 5,
        max_checks_per_address: int = 30,
    ) -> None:
        sign = _signer(secret)
        del secret  # a traceback that shows variables must not show it
        if sign is None:
            raise ConfigurationError(f"secret takes {_SHORTEST_SECRET} bytes or more, such as secrets.token_bytes(32)")
        if min(max_checks, max_checks_per_address) < 1:
            raise ConfigurationError("max_checks and max_checks_per_address take 1 or more")
        self._sign = sign
        self.cookie_name = cookie
        self._secure = secure
        self._by_login = Attempts(max_checks, _HOUR)
        self._by_address = Attempts(max_checks_per_address, _HOUR)

    # -- the steps -----------------------------------------------------------------------------------------------------

    async def start(
        self, client: KodmobiClient, to: str, channel: str | None, challenge: str | None
    ) -> tuple[LoginState, Cookie]:
        """Send a code to a recipient, and begin a login.

        Where a code was sent too recently, it is still good: the login begins without another one.
        """
        recipient, token = Secret(to), Secret(challenge)
        del to, challenge  # a traceback that shows variables must not show them
        try:
            session = await client.create(recipient.value, channel=channel, send=True, challenge=token.value)
        except CooldownError as error:
            if error.outcome not in (Outcome.NOT_SENT, Outcome.REFUSED):
                raise
            session = await client.create(recipient.value)
        login = self._login_of(session, recipient.value)
        return await self._state(client, login, session.channels, session.sent_to), self._cookie(login)

    async def resend(
        self, client: KodmobiClient, cookie: str | None, channel: str, challenge: str | None
    ) -> LoginState:
        """Send the code again, over a channel."""
        login, token = self._read(cookie), Secret(challenge)
        del cookie, challenge  # as above
        result = await client.send(login.session_id, channel, challenge=token.value)
        channels = await client.channels(login.session_id)
        return await self._state(client, login, channels, result.channel.type)

    async def state(self, client: KodmobiClient, cookie: str | None) -> LoginState:
        """Return what the page shows, by the service's own numbers."""
        login = self._read(cookie)
        return await self._state(client, login, await client.channels(login.session_id), None)

    async def states(self, client: KodmobiClient, cookie: str | None) -> AsyncIterator[LoginState]:
        """Yield the state every second, until the login has ended; the service is asked once."""
        login = self._read(cookie)
        channels = await client.channels(login.session_id)
        loop = asyncio.get_running_loop()
        ends = loop.time() + login.expires_in
        while (left := ends - loop.time()) > 0:
            state = await self._state(client, login, channels, None)
            yield attrs.evolve(state, expires_in=left)
            await asyncio.sleep(min(1.0, left))

    async def check(
        self, client: KodmobiClient, cookie: str | None, code: str, address: str, challenge: str | None
    ) -> VerifiedUser:
        """Check the code, and return who has entered it."""
        login, typed, token = self._read(cookie), Secret(code), Secret(challenge)
        del cookie, code, challenge  # as above
        wait = max(self._by_login.take(login.session_id), self._by_address.take(address))
        if wait > 0:
            raise RateLimitedError("too many codes were tried", status=None, retry_after=wait, outcome=Outcome.NOT_SENT)
        result = await client.check(login.session_id, typed.value, challenge=token.value)
        return await client.verify(result.verify_token)

    @property
    def no_cookie(self) -> Cookie:
        """What deletes the cookie."""
        return Cookie(self.cookie_name, "", 0, self._secure)

    # -- the cookie ----------------------------------------------------------------------------------------------------

    def _login_of(self, session: Session, to: str) -> _Login:
        life = _DEFAULT_LIFE if session.expires_in is None else session.expires_in
        return _Login(str(session.session_id), time.time() + life, mask(to if "@" in to else _plus(to)))

    def _cookie(self, login: _Login) -> Cookie:
        content = orjson.dumps([login.session_id, login.ends, login.to])
        value = f"{_base64(content)}.{_base64(self._signature(content))}"
        return Cookie(self.cookie_name, value, max(1, round(login.expires_in)), self._secure)

    def _read(self, cookie: str | None) -> _Login:
        """Return the login that a cookie holds.

        Raises:
            SessionExpiredError: There is no cookie, it is not ours, or the login has ended.
        """
        content, _, signature = (cookie or "").partition(".")
        read = _from_base64(content)
        if read is not None and hmac.compare_digest(_from_base64(signature) or b"", self._signature(read)):
            login = _Login(*orjson.loads(read))
            if login.expires_in > 0:
                return login
        raise SessionExpiredError("the login has ended: start again", status=None, outcome=Outcome.NOT_SENT)

    def _signature(self, content: bytes) -> bytes:
        sign = self._sign.copy()
        sign.update(content)
        return sign.digest()

    async def _state(
        self, client: KodmobiClient, login: _Login, channels: tuple[SessionChannel, ...], sent_to: str | None
    ) -> LoginState:
        # (whether the user is active on a channel stays out of it: that tells something of the recipient)
        shown = [
            {
                "type": str(channel.type),
                "name": channel.name,
                "seconds_left": round(await client.remaining(login.session_id, channel.type), 1),
            }
            for channel in channels
        ]
        return LoginState(login.to, None if sent_to is None else str(sent_to), login.expires_in, shown)


def read_fields(body: object, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of a JSON object: strings; those that are ``optional`` may be ``None``, or left out.

    Raises:
        InvalidRequestError: It is no object, or a field is missing or of another type.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("the request's body takes a JSON object")
    fields = cast("dict[str, object]", body)
    for name in (*required, *optional):
        value = fields.get(name)
        if not isinstance(value, str) and not (name in optional and value is None):
            raise InvalidRequestError(f"{name} takes a string")
    return {name: fields.get(name) for name in (*required, *optional)}


def _signer(secret: object) -> hmac.HMAC | None:
    key = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(key, bytes) or len(key) < _SHORTEST_SECRET:
        return None
    return hmac.new(key, digestmod=hashlib.sha256)


def _plus(to: str) -> str:
    return "+" + "".join(char for char in to if char.isdigit()).removeprefix("00")


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
