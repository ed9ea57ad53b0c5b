"""Refusals: the documented error envelope, in the client's language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from kodmobi_async.emulator._choices import REFUSALS
from kodmobi_async.emulator._http import Response
from kodmobi_async.emulator._json import JsonObject, to_json

if TYPE_CHECKING:
    from kodmobi_async.emulator._json import Json

__all__ = ("Refusal", "RefusedError", "preferred_language")


@attrs.frozen
class Refusal:
    """Why a request is refused, in the service's terms; ``retry_after`` in seconds, ``errors`` by field."""

    sys_message: str
    status: int | None = None
    retry_after: int | None = None
    field: str | None = None
    errors: JsonObject | None = None

    def response(self, accept_language: str) -> Response:
        """Return the documented error envelope."""
        text = REFUSALS.get(self.sys_message)
        status = self.status or (text.status if text else 500)
        if text is None:
            message = self.sys_message
        else:
            message = text.ru if preferred_language(accept_language) == "ru" else text.en
        params: dict[str, Json] = {}
        headers: dict[str, str] = {}
        if self.field is not None:
            params["field"] = self.field
        if self.retry_after is not None:
            params["timeout"] = self.retry_after
            headers["Retry-After"] = str(self.retry_after)
        envelope: dict[str, Json] = {
            "success": False,
            "error": message,
            "error_params": params,
            "status": status,
            "sys_message": self.sys_message,
        }
        if self.errors is not None:
            envelope["errors"] = self.errors
        return Response(status, to_json(envelope), headers)


class RefusedError(Exception):
    """Carries a refusal from where a request is found wanting to where the response is made."""

    def __init__(self, sys_message: str, *, retry_after: int | None = None, field: str | None = None) -> None:
        super().__init__(sys_message)
        self.refusal = Refusal(sys_message, retry_after=retry_after, field=field)


def preferred_language(accept_language: str) -> str:
    """Choose one of the service's two languages; English if the client has no preference."""
    weights = {"en": 0.0, "ru": 0.0}
    for item in accept_language.lower().split(","):
        tag, _, weight = item.partition(";")
        language = tag.strip().partition("-")[0]
        if language in weights:
            weights[language] = max(weights[language], _weight(weight))
    return "ru" if weights["ru"] > weights["en"] else "en"


def _weight(text: str) -> float:
    try:
        return float(text.replace(" ", "").removeprefix("q=") or 1)
    except ValueError:
        return 0.0
