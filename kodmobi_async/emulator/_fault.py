"""Faults: how a request goes wrong.

A fault determines three things: whether the request is carried out, which bytes of which response are written and
when, and how the connection ends. Clients see no other difference.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import attrs
import orjson

from kodmobi_async.emulator._checks import finite, whole
from kodmobi_async.emulator._choices import REFUSALS
from kodmobi_async.emulator._http import Response
from kodmobi_async.emulator._refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kodmobi_async.emulator._json import JsonObject

__all__ = ("Fault",)

Moment: TypeAlias = Literal["before_reading", "after_reading", "mid_headers", "mid_answer"]
Part: TypeAlias = Literal["headers", "body"]
# What follows the last byte: the next request, FIN, RST, or nothing until the client closes.
End: TypeAlias = Literal["keep", "fin", "rst", "hang"]

_GARBAGE: Final = b"HTTP/9.9 twelve \x00\r\n\r\n"
_FINAL_STATUSES: Final = range(200, 600)


@attrs.frozen(kw_only=True)
class Fault:
    """One way in which a request goes wrong; build it with one of the constructors below.

    A fault that writes the normal response, or a part of it, writes the envelope of a 500 instead if ``process`` is
    False. ``process`` does not overrule the service: a send inside an open window delivers nothing.
    """

    kind: str
    process: bool = False
    end: End = "keep"
    moment: Moment | None = None
    part: Part | None = None
    delay_before: float = 0.0
    delay_after: float = 0.0
    seconds_per_byte: float = 0.0
    replacement: Response | Refusal | None = None
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
        """Send this response instead.

        Args:
            status: From 200 to 599.
            headers: They are written as given and replace the default ones of the same name.
            body: Bytes as they are, a str in UTF-8, anything else as JSON.
            process: Carry the request out first.

        Raises:
            ValueError: The status is out of range, a header contains a line break, or the body is not valid JSON.
        """
        headers = dict(headers or {})
        for line in (*headers, *headers.values()):
            if "\r" in line or "\n" in line:
                raise ValueError("a header must not contain a line break")
        response = Response(_final_status(status), _encode(body), headers)
        return cls(kind="answer", replacement=response, process=process)

    @classmethod
    def refuse(
        cls,
        sys_message: str,
        status: int | None = None,
        retry_after: float | None = None,
        *,
        errors: JsonObject | None = None,
    ) -> Fault:
        """Refuse with the documented envelope.

        Args:
            sys_message: Any code; one that the emulator does not know needs a status.
            status: Of the response; by default the one that the emulator gives this code.
            retry_after: Seconds for the ``Retry-After`` header, rounded up.
            errors: What is wrong, by field, as in ``{"phone": ["is not valid"]}``.

        Raises:
            ValueError: The status is missing, a number is invalid, or ``errors`` are not valid JSON.
        """
        if status is None and sys_message not in REFUSALS:
            raise ValueError(f"{sys_message!r} is unknown here and needs a status")
        _encode(errors or {}, "errors")
        refusal = Refusal(
            sys_message,
            status=None if status is None else _final_status(status),
            retry_after=None if retry_after is None else math.ceil(finite("retry_after", retry_after)),
            errors=errors,
        )
        return cls(kind="refuse", replacement=refusal)

    @classmethod
    def delay(cls, seconds: float, *, before_processing: bool = False) -> Fault:
        """Send the normal response ``seconds`` late.

        Args:
            seconds: How late.
            before_processing: Carry the request out late, too, even if the client has gone by then.

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
            when: ``before_reading``: as soon as the request line arrives; nothing more is read or carried out.
                ``after_reading``: after the whole request, before the response. ``mid_headers``: after half of the
                response's headers. ``mid_answer``: after all headers and half of the body.
            reset: With RST instead of FIN.
            process: Carry the request out. The default is to do so only if a part of the response is written.

        Raises:
            ValueError: There is no such moment, or a request that is not read would have to be carried out.
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
        """Send ``raw`` instead of a response, then FIN."""
        return cls(kind="malformed", raw=raw, process=process, end="fin")

    @classmethod
    def silence(cls, *, process: bool = True) -> Fault:
        """Never respond; the connection stays open until the client closes it."""
        return cls(kind="silence", raw=b"", process=process, end="hang")

    @classmethod
    def drip(cls, seconds_per_byte: float, part: Part = "headers", *, process: bool = True) -> Fault:
        """Send one part of the normal response byte by byte, the rest at once.

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

    @property
    def responds(self) -> bool:
        """Whether anything of a response is written."""
        return self.raw is None and self.moment not in {"before_reading", "after_reading"}

    def pieces(self, head: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
        """Return what to write of a response: some at once, then some byte by byte, then the rest at once."""
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


def _final_status(status: int) -> int:
    return whole("status", status, at_least=_FINAL_STATUSES.start, at_most=_FINAL_STATUSES.stop - 1)


def _encode(body: bytes | str | Mapping[str, object] | Sequence[object], name: str = "body") -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"{name} cannot be written as JSON: {error}") from None
