"""Faults as the control interface reads and shows them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final, cast

from kodmobi_async.emulator._fault import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kodmobi_async.emulator._http import Response
    from kodmobi_async.emulator._json import JsonObject
    from kodmobi_async.emulator._refusals import Refusal
    from kodmobi_async.emulator._script import Entry

__all__ = ("describe_fault", "read_fault")

_CONSTRUCTORS: Final[Mapping[str, Callable[..., Fault]]] = {
    "answer": Fault.answer,
    "refuse": Fault.refuse,
    "delay": Fault.delay,
    "close": Fault.close,
    "malformed": Fault.malformed,
    "silence": Fault.silence,
    "drip": Fault.drip,
}
_BYTES: Final = ("body", "raw")


def read_fault(fields: Mapping[str, Any]) -> Fault:
    """Build the fault that a validated object describes."""
    arguments = {name: value for name, value in fields.items() if name not in {"kind", "times", "endpoint"}}
    for name in _BYTES:
        encoded = arguments.pop(f"{name}_base64", None)
        if encoded is not None:
            arguments[name] = base64.b64decode(encoded)
    if isinstance(raw := arguments.get("raw"), str):
        arguments["raw"] = raw.encode()
    return _CONSTRUCTORS[fields["kind"]](**arguments)


def describe_fault(entry: Entry) -> JsonObject:
    """Return an object from which ``read_fault`` builds the same fault."""
    common: JsonObject = {"kind": entry.fault.kind, "times": entry.times, "endpoint": entry.endpoint}
    details = _DETAILS[entry.fault.kind](entry.fault)
    return {**common, **{name: value for name, value in details.items() if value is not None}}


def _answer(fault: Fault) -> JsonObject:
    response = cast("Response", fault.replacement)
    body = _bytes("body", response.body)
    return {"status": response.status, "headers": response.headers, **body, "process": fault.process}


def _refuse(fault: Fault) -> JsonObject:
    refusal = cast("Refusal", fault.replacement)
    return {
        "sys_message": refusal.sys_message,
        "status": refusal.status,
        "retry_after": refusal.retry_after,
        "errors": refusal.errors,
    }


def _delay(fault: Fault) -> JsonObject:
    return {"seconds": fault.delay_before or fault.delay_after, "before_processing": fault.delay_before > 0}


def _close(fault: Fault) -> JsonObject:
    return {"when": fault.moment, "reset": fault.end == "rst", "process": fault.process}


def _malformed(fault: Fault) -> JsonObject:
    return {**_bytes("raw", fault.raw or b""), "process": fault.process}


def _silence(fault: Fault) -> JsonObject:
    return {"process": fault.process}


def _drip(fault: Fault) -> JsonObject:
    return {"seconds_per_byte": fault.seconds_per_byte, "part": fault.part, "process": fault.process}


def _bytes(name: str, value: bytes) -> JsonObject:
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


_DETAILS: Final[Mapping[str, Callable[[Fault], JsonObject]]] = {
    "answer": _answer,
    "refuse": _refuse,
    "delay": _delay,
    "close": _close,
    "malformed": _malformed,
    "silence": _silence,
    "drip": _drip,
}
