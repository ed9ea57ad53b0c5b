"""What the process says with its exit code, and how an error becomes one."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from kodmobi_async import (
    CooldownError,
    KodmobiError,
    Outcome,
    ResponseError,
    TransportError,
    UnreadableResponseError,
    WrongCodeError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("MEANINGS", "ExitCode", "exit_code", "facts", "sentence")


class ExitCode(IntEnum):
    """Documented in ``kodmobi --help``; scripts rely on the numbers."""

    SENT = 0
    BUG = 1
    USAGE = 2
    COOLDOWN = 3
    REFUSED = 4
    NOT_SENT = 5
    UNKNOWN = 6
    UNREADABLE = 7
    SOME_FAILED = 8
    ACCOUNT = 9
    STORAGE = 10
    WRONG_CODE = 11
    INTERRUPTED = 130


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.SENT: "done; for send: the service took the code",
    ExitCode.BUG: "a bug in this program",
    ExitCode.USAGE: "wrong usage or configuration; nothing sent",
    ExitCode.COOLDOWN: "the channel is blocked by its cooldown",
    ExitCode.REFUSED: "the service refused",
    ExitCode.NOT_SENT: "nothing sent: the service could not be reached",
    ExitCode.UNKNOWN: "it is unknown whether the code was sent, or checked",
    ExitCode.UNREADABLE: "the service took it, but its response cannot be read",
    ExitCode.SOME_FAILED: "bulk: some rows got no code, or that is unknown",
    ExitCode.ACCOUNT: "bulk: stopped by what is wrong with the account: key, balance, lasting limit",
    ExitCode.STORAGE: "bulk: stopped as the input could not be read, or a file not be written",
    ExitCode.WRONG_CODE: "check, login: the code is wrong",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}

# Where a class is not listed, the error is about how the program was used or set up.
_BY_CLASS: Final[Mapping[type[KodmobiError], ExitCode]] = {
    CooldownError: ExitCode.COOLDOWN,
    WrongCodeError: ExitCode.WRONG_CODE,
    ResponseError: ExitCode.REFUSED,
    TransportError: ExitCode.NOT_SENT,
    UnreadableResponseError: ExitCode.UNREADABLE,
}


# The library names its parameters; who sits at a terminal knows options.
_OPTIONS: Final = {
    "allow_http=True": "--allow-http",
    "base_url": "--base-url",
    "language": "--language",
    "max_wait": "--max-wait",
    "Timeout.total": "--timeout",
    "concurrency takes": "--concurrency takes",
    "Limits.rate": "--rate",
    "(math.inf: ": "(inf: ",
}


def exit_code(error: KodmobiError) -> ExitCode:
    """Return the exit code that stands for ``error``."""
    if error.outcome is Outcome.UNKNOWN:
        return ExitCode.UNKNOWN
    return next((code for kind, code in _BY_CLASS.items() if isinstance(error, kind)), ExitCode.USAGE)


def facts(error: KodmobiError) -> dict[str, object]:
    """Return what a program wants to know of ``error``; numbers that it does not have are left out."""
    known: dict[str, object] = {
        "type": type(error).__name__,
        "message": sentence(error),
        "outcome": error.outcome.value,
    }
    for name in ("retry_after", "safe_after", "status", "sys_message"):
        value = getattr(error, name, None)
        if value is not None:
            known[name] = value
    return known


def sentence(error: KodmobiError) -> str:
    """Say what happened, with what a person can do about it."""
    text = str(error)
    if exit_code(error) is ExitCode.USAGE:
        for parameter, option in _OPTIONS.items():
            text = text.replace(parameter, option)
    if isinstance(error, CooldownError) and error.outcome is Outcome.ACCEPTED:
        text += "; as this was a repeat, the refusal proves that the first request arrived: the code is on its way"
    safe_after: float | None = getattr(error, "safe_after", None)
    if safe_after is not None:
        text += f"; sending again is safe after {safe_after:g} s"
    return text
