"""What the documentation leaves open, and what this emulator does: every such choice is listed here.

The documentation describes the calls, the shapes of their responses, the error envelope and the statuses 400, 401,
403, 404, 409 and 500; the vendor's JavaScript SDK knows further ``sys_message`` codes. Beyond that, this emulator:

- gives each code the status in ``REFUSALS``: a documented one, or 429 for "too soon";
- refuses an early re-send with 429, ``ERROR_MESSAGE_ATTEMPT``, ``Retry-After``, and the same whole seconds as
  ``timeout`` in ``error_params``; otherwise ``error_params`` names the invalid field, or is empty;
- distinguishes an expired session (``ERROR_SESSION_EXPIRED``) from an unknown one (``ERROR_MESSAGE_NOT_FOUND``), both
  404;
- refuses every channel that it does not offer with ``ERROR_PROJECT_HAS_NO_CHANNEL``;
- uses two codes of its own: for an unknown path or a wrong method (404), and for its own failure (500);
- responds to bytes that are not HTTP, or too large a request, with 400, and closes the connection;
- checks the path first, then the method, the key and the body;
- accepts a session's id in lower case and with Crockford's look-alikes (I and L for 1, O for 0);
- keeps a session's code and its end when the code is sent again, and after a check;
- returns the same live session for the same ``to``, and does not send when ``create`` is repeated inside a window;
- names in ``sent_to`` the channel that the code is on, or null when ``send`` is false;
- rounds the ``timeout`` values of ``GET channels`` up to whole seconds;
- takes ``GET channels`` and ``GET settings`` without a session as requests about the project;
- has codes of six digits, no CAPTCHA, and links for the channels that have a bot.
"""
# ruff: noqa: RUF001  the Russian messages are in Russian letters

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = (
    "CODE_LENGTH",
    "ENDPOINTS",
    "IMAGE_URL",
    "LINKS",
    "MAX_BODY_BYTES",
    "PREFIXES",
    "PROJECT_NAME",
    "REFUSALS",
    "RefusalText",
)


@attrs.frozen
class RefusalText:
    """The HTTP status of a code, and its message in both languages."""

    status: int
    en: str
    ru: str


REFUSALS: Final[Mapping[str, RefusalText]] = {
    "ERROR_PROJECT_HAS_NO_CHANNELS": RefusalText(400, "Project has no channels.", "У проекта нет каналов."),
    "ERROR_PROJECT_HAS_NO_CHANNEL": RefusalText(400, "Project has no such channel.", "У проекта нет такого канала."),
    "ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL": RefusalText(
        409, "User is not authorized on the channel.", "Пользователь не авторизован в канале."
    ),
    "ERROR_SESSION_EXPIRED": RefusalText(404, "Session expired.", "Сессия истекла."),
    "ERROR_MESSAGE_WRONG_CODE": RefusalText(400, "Wrong code.", "Неверный код."),
    "ERROR_CHANNEL_NOT_ALLOWED_COUNTRY": RefusalText(
        403, "Channel is not allowed for this country.", "Канал недоступен для этой страны."
    ),
    "ERROR_MESSAGE_ATTEMPT": RefusalText(
        429, "Too many attempts, take your time.", "Слишком много попыток, подождите."
    ),
    "ERROR_PHONE_BLOCKED": RefusalText(403, "Phone is blocked.", "Телефон заблокирован."),
    "ERROR_BLOCKED": RefusalText(403, "User is blocked.", "Пользователь заблокирован."),
    "ERROR_CHALLENGE": RefusalText(403, "Challenge is not passed.", "Проверка не пройдена."),
    "ERROR_BAD_REQUEST": RefusalText(400, "Bad request.", "Неверный запрос."),
    "ERROR_WRONG_BALANCE": RefusalText(403, "Balance is too low.", "Недостаточно средств на балансе."),
    "ERROR_ACCESS_DENIED": RefusalText(401, "Access denied.", "Доступ запрещён."),
    "ERROR_MESSAGE_NOT_FOUND": RefusalText(404, "Message not found.", "Сообщение не найдено."),
    # No source has a code for these two; the names are the emulator's own.
    "ERROR_NOT_FOUND": RefusalText(404, "Not found.", "Не найдено."),
    "ERROR_SERVER": RefusalText(500, "Problem with our server. Try again later.", "Ошибка сервера. Повторите позже."),
}

# The documentation's prefix and the one of the vendor's JavaScript SDK.
PREFIXES: Final = ("/session/", "/v2/")

ENDPOINTS: Final[Mapping[str, str]] = {
    "create": "POST",
    "send": "POST",
    "channels": "GET",
    "check": "POST",
    "settings": "GET",
}

MAX_BODY_BYTES: Final = 64 * 1024

CODE_LENGTH: Final = 6
PROJECT_NAME: Final = "Emulator"
IMAGE_URL: Final = "https://storage.kod.mobi/icons/{type}.svg"
LINKS: Final[Mapping[str, str]] = {"telegram": "https://t.me/my-tg-bot", "whatsapp": "https://wa.me/10000000000"}
