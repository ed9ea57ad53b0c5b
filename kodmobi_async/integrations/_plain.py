"""Outcomes as plain values that any serializer takes, and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from orjson import dumps
from ulid import ULID

from kodmobi_async._values import errors as _errors
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import KodmobiError, Outcome, OutcomeUnknownError
from kodmobi_async._values.models import SendOutcome, SendRequest, SendResult, SessionChannel

# No other class is ever made from what comes in.
_ERRORS: Final[dict[str, type[KodmobiError]]] = {
    name: value for name, value in vars(_errors).items() if isinstance(value, type) and issubclass(value, KodmobiError)
}


def dump_outcome(outcome: SendOutcome) -> dict[str, Any]:
    """Return the outcome as dictionaries, lists, strings and numbers."""
    if outcome.result is not None:
        return {"outcome": Outcome.ACCEPTED.value, "result": outcome.result.to_dict()}
    error = outcome.error
    assert error is not None  # noqa: S101 an outcome has one of the two
    kind = next(kind for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    return {
        "outcome": error.outcome.value,
        "error": kind.__name__,
        "words": [str(word) for word in error.args],
        "numbers": {name: value for name, value in vars(error).items() if name not in ("outcome", "__notes__")},
    }


def serialize_outcome(outcome: SendOutcome) -> bytes:
    """Return the outcome in JSON; `load_outcome` takes what that says."""
    if outcome.result is None:
        return dumps(dump_outcome(outcome))
    return dumps({"outcome": Outcome.ACCEPTED, "result": outcome.result.__dict__}, default=_serializable)


def _serializable(value: Any) -> Any:
    return str(value) if isinstance(value, ULID) else value.__dict__


def load_outcome(request: SendRequest, plain: Any) -> SendOutcome:
    """Return the outcome of ``request``; an unknown one, if ``plain`` is nothing that `dump_outcome` returns."""
    try:
        if "result" in plain:
            fields = dict(plain["result"])
            expires = fields["session_expired_at"]
            fields["session_id"] = ULID.from_str(fields["session_id"])
            fields["session_expired_at"] = None if expires is None else datetime.fromisoformat(expires)
            fields["channel"] = SessionChannel(**fields["channel"])
            return SendOutcome(request, SendResult(**fields))
        kind = _ERRORS[plain["error"]]
        error = kind.__new__(kind, *plain["words"])
        error.__dict__.update(plain["numbers"], outcome=Outcome(plain["outcome"]))
    except (TypeError, KeyError, ValueError, AttributeError):
        return SendOutcome(request, error=unknown("the worker's answer cannot be read"))
    return SendOutcome(request, error=error)


def unknown(why: str) -> OutcomeUnknownError:
    """Return the error of a send whose outcome is unknown."""
    return OutcomeUnknownError(f"it is unknown whether the code was sent: {why}", safe_after=WINDOW)
