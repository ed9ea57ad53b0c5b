"""``kodmobi create``, ``check``, ``verify``, ``settings`` and ``login``.

Codes and tokens are asked for, or read from standard input; they never stand in the program's arguments.
"""

from __future__ import annotations

import asyncio
import getpass
import sys
from typing import TYPE_CHECKING

from kodmobi_async import CooldownError, InvalidRequestError, WrongCodeError
from kodmobi_async.cli._connect import opened
from kodmobi_async.cli._exits import ExitCode, sentence
from kodmobi_async.cli._output import seconds

if TYPE_CHECKING:
    from kodmobi_async import CheckResult, KodmobiClient, Session
    from kodmobi_async.cli._connect import Connection
    from kodmobi_async.cli._output import Output
    from kodmobi_async.emulator import Emulator

__all__ = ("check_code", "create", "log_in", "show_settings", "verify_token")


async def create(
    connection: Connection, output: Output, to: str, channel: str | None, *, send: bool, max_wait: float
) -> int:
    """Create a session, and send its code if asked to."""
    async with opened(connection, output) as (client, emulator):
        session = await client.create(to, channel=channel, send=send, max_wait=max_wait)
        if output.as_json:
            output.write_json(session.to_dict())
        else:
            _show_session(output, session)
        _show_emulated(output, emulator, session)
    return ExitCode.COOLDOWN if send and session.sent_to is None else ExitCode.SENT


def _show_session(output: Output, session: Session) -> None:
    if session.sent_to is not None:
        output.say(f"A code is on its way over {session.sent_to}.", style="bold green")
    output.field("session", str(session.session_id))
    if session.expires_in is not None:
        output.field("", f"ends in {seconds(session.expires_in)}")
    for channel in session.channels:
        free = f"free in {seconds(channel.timeout)}" if channel.timeout else "free"
        output.field(channel.type, free)
    if session.confirmed:
        output.field("confirmed", "its response was lost; asked again, the service told what became of it")


def _show_emulated(output: Output, emulator: Emulator | None, session: Session) -> None:
    """Say which code would have arrived."""
    if emulator is not None and session.sent_to is not None:
        delivery = emulator.delivered(session.session_id)[-1]
        output.remark(f"emulated: over {delivery.channel} would have arrived: {delivery.code}")


async def check_code(connection: Connection, output: Output, session_id: str) -> int:
    """Ask for the code of a session, and check it."""
    code = await _ask("Code: ")
    async with opened(connection, output) as (client, _):
        result = await client.check(session_id, code)
    if output.as_json:
        output.write_json(result.to_dict())
    else:
        output.say("The code is right.", style="bold green")
        output.field("token", result.verify_token)
    return ExitCode.SENT


async def verify_token(connection: Connection, output: Output, secret_key: str | None) -> int:
    """Ask for a token, and redeem it."""
    token = await _ask("Token: ", hidden=True)
    async with opened(connection, output, secret_key=secret_key) as (client, _):
        user = await client.verify(token)
    if output.as_json:
        output.write_json(user.to_dict())
    else:
        output.say(f"Verified: {user.to}", style="bold green")
    return ExitCode.SENT


async def show_settings(connection: Connection, output: Output, session_id: str | None) -> int:
    """Show what a login page has to know."""
    async with opened(connection, output) as (client, _):
        settings = await client.settings(session_id)
    if output.as_json:
        output.write_json(settings.to_dict())
        return ExitCode.SENT
    code = settings.code
    kinds = " and ".join(kind for kind, occurs in (("digits", code.digits), ("letters", code.letters)) if occurs)
    output.field("project", settings.project_name)
    output.field("language", settings.language)
    output.field("code", f"{code.length} {kinds}")
    output.field("CAPTCHA", "due" if settings.challenge.enabled else "not due")
    return ExitCode.SENT


async def log_in(
    connection: Connection, output: Output, to: str, channel: str | None, *, secret_key: str | None, can_verify: bool
) -> int:
    """Do a whole login: send a code, ask for it, check it, and redeem its token if there is a secret key."""
    async with opened(connection, output, secret_key=secret_key) as (client, emulator):
        session = await client.create(to, channel=channel, send=True)
        if session.sent_to is None:
            output.remark("no new code was sent: the one that was sent before is still good")
        else:
            output.remark(f"a code is on its way over {session.sent_to}")
        _show_emulated(output, emulator, session)
        result = await _check_until_right(client, output, session, session.sent_to or channel)
        user = await client.verify(result.verify_token) if can_verify or emulator is not None else None
    if output.as_json:
        output.write_json({"check": result.to_dict(), "user": None if user is None else user.to_dict()})
        return ExitCode.SENT
    output.say("Logged in." if user is None else f"Logged in: {user.to}", style="bold green")
    if user is None:
        output.field("token", result.verify_token)
    return ExitCode.SENT


async def _check_until_right(
    client: KodmobiClient, output: Output, session: Session, channel: str | None
) -> CheckResult:
    """Ask for the code until it is right; an empty line sends another one, once the channel is free."""
    hint = "" if channel is None else " (Enter alone sends another one)"
    while True:
        typed = await _ask(f"Code{hint}: ")
        if not typed and channel is not None:
            await _send_again(client, output, session, channel)
            continue
        try:
            return await client.check(session.session_id, typed)
        except (WrongCodeError, InvalidRequestError) as error:
            if not sys.stdin.isatty():
                raise
            output.remark(sentence(error))


async def _send_again(client: KodmobiClient, output: Output, session: Session, channel: str) -> None:
    left = await client.remaining(session.session_id, channel, refresh=True)
    if left > 0:
        async with output.countdown(f"{channel} is blocked; waiting", left, is_remark=True):
            await asyncio.sleep(left)
    try:
        await client.send(session.session_id, channel, max_wait=1.0)
    except CooldownError as error:
        output.remark(sentence(error))
    else:
        output.remark(f"another code is on its way over {channel}")


async def _ask(prompt: str, *, hidden: bool = False) -> str:
    """Return a line that a person types, or the next one of standard input."""
    if sys.stdin is None or not sys.stdin.isatty():  # pyright: ignore[reportUnnecessaryComparison] it may be closed
        line = "" if sys.stdin is None else await asyncio.to_thread(sys.stdin.readline)  # pyright: ignore[reportUnnecessaryComparison] as above
        if not line:
            raise InvalidRequestError("standard input ends before the code, or the token: pipe it in")
        return line.strip()
    try:
        typed = await (asyncio.to_thread(getpass.getpass, prompt) if hidden else asyncio.to_thread(input, prompt))
    except EOFError:
        raise InvalidRequestError("nothing was typed") from None
    return typed.strip()
