"""The channels that codes go over."""

from __future__ import annotations

from enum import StrEnum


class Channel(StrEnum):
    """The channels that the documentation names; any other name may be passed as a plain string."""

    TELEGRAM = "telegram"
    WHATSAPP = "whatsapp"
    SMS = "sms"
    EMAIL = "email"
