"""The calls of a login that send no code: ``check``, ``verify``, ``channels`` and ``settings``.

``check`` and ``verify`` use up a code, or a token. So neither is repeated once its request was written: where the
response is lost, the outcome is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kodmobi_async._rules.call import Call, Read, Repeat
from kodmobi_async._rules.requests import channels_request, check_request, settings_request, verify_request
from kodmobi_async._rules.responses import read_channels, read_check, read_settings, read_verified
from kodmobi_async._values.errors import Outcome
from kodmobi_async._values.models import CheckResult, VerifiedUser

if TYPE_CHECKING:
    from kodmobi_async._calls.engine import Engine
    from kodmobi_async._rules.exchange import Response
    from kodmobi_async._values.hooks import CallKind
    from kodmobi_async._values.models import ProjectSettings, SessionChannel
    from kodmobi_async._values.settings import Timeout

T = TypeVar("T")


class Check(Call[CheckResult]):
    """One ``check``.

    Args:
        session_id: The session, in canonical form.
        code: The code, in canonical form.
        challenge: The token of a CAPTCHA.
        timeout: What bounds the call.
    """

    kind: CallKind = "check"
    repeat = Repeat.NEVER
    what_is_unknown = "whether the code was checked; it may be used up, and a new session gets a new one"

    def __init__(self, session_id: str, code: str, challenge: str | None, timeout: Timeout) -> None:
        super().__init__(check_request(session_id, code, challenge), timeout, session_id)
        self.secrets = (code,) if challenge is None else (code, challenge)

    def read(self, response: Response) -> CheckResult:
        """Return what a 2xx says."""
        return read_check(response)


class Verify(Call[VerifiedUser]):
    """One ``verify``.

    Args:
        verify_token: The token.
        timeout: What bounds the call.
    """

    kind: CallKind = "verify"
    repeat = Repeat.NEVER
    what_is_unknown = "whether the token was redeemed; it may be used up, and a new login gets a new one"

    def __init__(self, verify_token: str, timeout: Timeout) -> None:
        super().__init__(verify_request(verify_token), timeout)
        self.secrets = (verify_token,)

    def read(self, response: Response) -> VerifiedUser:
        """Return what a 2xx says."""
        return read_verified(response)


def channels_call(session_id: str | None, timeout: Timeout) -> Read[tuple[SessionChannel, ...]]:
    """Return the call of ``channels``."""
    return Read("channels", channels_request(session_id), read_channels, timeout, session_id)


def settings_call(session_id: str | None, timeout: Timeout) -> Read[ProjectSettings]:
    """Return the call of ``settings``."""
    return Read("settings", settings_request(session_id), read_settings, timeout, session_id)


async def perform(engine: Engine, call: Call[T]) -> T:
    """Make the attempts of a call that holds no slot.

    Raises:
        KodmobiError: They came to no result. What only reads leaves nothing behind: its outcome is ``NOT_SENT``.
    """
    verdict = await engine.run(call)
    if verdict.result is not None:
        return verdict.result
    failure, cause, _ = call.conclude(verdict.error)
    if call.repeat is Repeat.AT_WILL:
        failure.outcome = Outcome.NOT_SENT
    raise failure from cause


async def list_channels(engine: Engine, call: Read[tuple[SessionChannel, ...]]) -> tuple[SessionChannel, ...]:
    """Ask for the channels, and remember the windows that the response names."""
    channels = await perform(engine, call)
    if call.session_id is not None:
        await engine.remember(call.session_id, channels)
    return channels
