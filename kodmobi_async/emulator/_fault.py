"""Faults to order, and the script that hands them out.

A fault says three things: whether the request is carried out, which bytes of which answer go out and when, and how the
connection ends. Outcomes differ in just these three.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import attrs
import orjson

from kodmobi_async.emulator._choices import ENDPOINTS, REFUSALS
from kodmobi_async.emulator._http import Answer
from kodmobi_async.emulator._service import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("Fault", "Script", "finite", "whole")

Moment: TypeAlias = Literal["before_reading", "after_reading", "mid_headers", "mid_answer"]
Part: TypeAlias = Literal["headers", "body"]
# What follows the last byte: the next request, FIN, RST, or nothing until the client leaves.
End: TypeAlias = Literal["keep", "fin", "rst", "hang"]

_GARBAGE: Final = b"HTTP/9.9 twelve \x00\r\n\r\n"
_FINAL_STATUSES: Final = range(200, 600)


@attrs.frozen(kw_only=True)
class Fault:
    """One way in which a request goes wrong; made by one of the constructors below.

    Where a fault sends the normal answer, or a part of it, and ``process`` is False, there is no such answer: the
    envelope of a 500 takes its place. ``process`` never overrules the service: a send inside an open window delivers
    nothing, fault or no fault.
    """

    kind: str
    process: bool = False
    end: End = "keep"
    moment: Moment | None = None
    part: Part | None = None
    delay_before: float = 0.0
    delay_after: float = 0.0
    seconds_per_byte: float = 0.0
    replacement: Answer | Refusal | None = None
    raw: bytes | None = None

    @classmethod
    def answer(
        cls,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | Mapping[str, object] | Sequence[object] = b"",
        *,
        process: bool = False,
    ) -> Fault:
        """Answer this instead.

        Args:
            status: From 200 to 599.
            headers: They go out as given and replace the default ones of the same name.
            body: Bytes as they are, a str in UTF-8, anything else as JSON.
            process: Carry the request out first.

        Raises:
            ValueError: The status is none, a header would not stay in its line, or the body is no JSON.
        """
        headers = dict(headers or {})
        for line in (*headers, *headers.values()):
            if "\r" in line or "\n" in line:
                raise ValueError("a header must not contain a line break")
        answer = Answer(_final_status(status), _encode(body), headers)
        return cls(kind="answer", replacement=answer, process=process)

    @classmethod
    def refuse(cls, sys_message: str, status: int | None = None, retry_after: float | None = None) -> Fault:
        """Refuse with the documented envelope.

        Args:
            sys_message: Any code; one that the emulator does not know needs a status.
            status: Of the answer; by default the one that the emulator gives this code.
            retry_after: Seconds for the ``Retry-After`` header, rounded up.

        Raises:
            ValueError: There is no status, or one of the numbers makes no sense.
        """
        if status is None and sys_message not in REFUSALS:
            raise ValueError(f"{sys_message!r} is not known here and needs a status")
        refusal = Refusal(
            sys_message,
            status=None if status is None else _final_status(status),
            retry_after=None if retry_after is None else math.ceil(finite("retry_after", retry_after)),
        )
        return cls(kind="refuse", replacement=refusal)

    @classmethod
    def delay(cls, seconds: float, *, before_processing: bool = False) -> Fault:
        """Give the normal answer, ``seconds`` late.

        Args:
            seconds: How late.
            before_processing: Carry the request out late, too, and even when the client has left by then.

        Raises:
            ValueError: ``seconds`` is negative or not finite.
        """
        seconds = finite("seconds", seconds)
        if before_processing:
            return cls(kind="delay", process=True, delay_before=seconds)
        return cls(kind="delay", process=True, delay_after=seconds)

    @classmethod
    def close(cls, when: Moment = "after_reading", *, reset: bool = False, process: bool | None = None) -> Fault:
        """End the connection.

        Args:
            when: ``before_reading``: as soon as the request line arrives, with nothing read or carried out.
                ``after_reading``: after the whole request, before any answer. ``mid_headers``: after half of the
                answer's headers. ``mid_answer``: after all headers and half of the body.
            reset: With RST instead of FIN.
            process: Carry the request out. By default only where a part of the answer goes out.

        Raises:
            ValueError: There is no such moment, or the request cannot be carried out that is not read.
        """
        if when not in get_args(Moment):
            raise ValueError(f"when must be one of {', '.join(get_args(Moment))}")
        if when == "before_reading" and process:
            raise ValueError("a request that is not read cannot be processed")
        if process is None:
            process = when in {"mid_headers", "mid_answer"}
        return cls(kind="close", moment=when, process=process, end="rst" if reset else "fin")

    @classmethod
    def malformed(cls, raw: bytes = _GARBAGE, *, process: bool = True) -> Fault:
        """Send ``raw`` in place of an answer, then FIN."""
        return cls(kind="malformed", raw=raw, process=process, end="fin")

    @classmethod
    def silence(cls, *, process: bool = True) -> Fault:
        """Never answer; the connection stays until the client leaves."""
        return cls(kind="silence", raw=b"", process=process, end="hang")

    @classmethod
    def drip(cls, seconds_per_byte: float, part: Part = "headers", *, process: bool = True) -> Fault:
        """Send one part of the normal answer byte by byte, the rest at once.

        Args:
            seconds_per_byte: The pause before each byte.
            part: ``headers`` (status line included) or ``body``.
            process: Carry the request out first.

        Raises:
            ValueError: The pause is negative or not finite, or there is no such part.
        """
        if part not in get_args(Part):
            raise ValueError(f"part must be one of {', '.join(get_args(Part))}")
        pause = finite("seconds_per_byte", seconds_per_byte)
        return cls(kind="drip", seconds_per_byte=pause, part=part, process=process)

    @property
    def reads(self) -> bool:
        """Whether the request is read at all."""
        return self.moment != "before_reading"

    def pieces(self, head: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
        """Say what of an answer goes out: some at once, then some byte by byte, then the rest at once."""
        if self.raw is not None:
            return self.raw, b"", b""
        if self.part is not None:
            return (b"", head, body) if self.part == "headers" else (head, body, b"")
        if self.moment == "after_reading":
            return b"", b"", b""
        if self.moment == "mid_headers":
            return head[: len(head) // 2], b"", b""
        if self.moment == "mid_answer":
            return head + body[: len(body) // 2], b"", b""
        return head + body, b"", b""


@attrs.define(eq=False)
class _Entry:
    fault: Fault
    times: int
    endpoint: str | None


@attrs.define
class Script:
    """The faults to come, in order."""

    _entries: deque[_Entry] = attrs.Factory(deque[_Entry])

    def add(self, fault: Fault, times: int, endpoint: str | None) -> None:
        """Append ``fault`` for the next ``times`` requests of ``endpoint``, or of any."""
        if not isinstance(fault, Fault):  # pyright: ignore[reportUnnecessaryIsInstance] callers may not check types
            raise ValueError("fault must be a Fault")  # noqa: TRY004 a wrong setting is a ValueError throughout
        if endpoint is not None and endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint must be None or one of {', '.join(ENDPOINTS)}")
        self._entries.append(_Entry(fault, whole("times", times, at_least=1), endpoint))

    def take(self, endpoint: str | None) -> Fault | None:
        """Use up the first fault meant for ``endpoint``."""
        for entry in self._entries:
            if entry.endpoint in {None, endpoint}:
                entry.times -= 1
                if not entry.times:
                    self._entries.remove(entry)
                return entry.fault
        return None

    def clear(self) -> None:
        """Forget every fault."""
        self._entries.clear()

    def __len__(self) -> int:
        return sum(entry.times for entry in self._entries)


def finite(name: str, value: object, *, above: float = -math.inf) -> float:
    """Return ``value`` as a float when it is a number of seconds, at least zero and more than ``above``.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number")  # noqa: TRY004 a wrong setting is a ValueError throughout
    if not (math.isfinite(value) and value >= 0 and value > above):
        raise ValueError(f"{name} must be finite and {'above' if above >= 0 else 'at least'} zero")
    return float(value)


def whole(name: str, value: object, *, at_least: int, at_most: float = math.inf) -> int:
    """Return ``value`` when it is a whole number in its bounds.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
        raise ValueError(f"{name} must be a whole number from {at_least} to {at_most}")
    return value


def _final_status(status: int) -> int:
    return whole("status", status, at_least=_FINAL_STATUSES.start, at_most=_FINAL_STATUSES.stop - 1)


def _encode(body: bytes | str | Mapping[str, object] | Sequence[object]) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"body cannot be written as JSON: {error}") from None
