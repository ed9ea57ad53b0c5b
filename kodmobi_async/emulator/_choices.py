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
- accepts both keys everywhere, except that ``verify`` refuses the public one like an unknown one;
- serves ``verify`` at ``<base>/verify``, and responds with ``phone`` (E.164) or ``email``; a token does not expire, can
  be redeemed once, and is then refused like an unknown one: 404, ``ERROR_MESSAGE_NOT_FOUND``;
- returns the same live session for the same ``to``; ``create`` with ``send`` false reads it, or opens it, and needs no
  CAPTCHA; inside a window ``create`` does not send (``create_in_window``), outside it does (``create_existing``);
- sends without a ``type`` over the channel that the user got a code on last, else over the project's first that the
  user may use;
- names in ``sent_to`` the channel that the code is on, whether it was sent now or inside the open window; null if it
  is on none, or if ``send`` is false;
- keeps a session's code, and its end, when the code is sent again;
- ends a session after a right code, and after ``max_checks`` wrong ones: the last of these is still refused with
  ``ERROR_MESSAGE_WRONG_CODE``, everything after that with ``ERROR_SESSION_EXPIRED``;
- compares codes exactly; responds to a right one with ``is_test`` false;
- takes a user's status on a channel to last through all of the user's sessions; channels without a bot are active for
  everyone; with ``require_active`` the others refuse users who have not started the bot;
- demands a CAPTCHA (``challenge``) for ``send``, ``check``, and ``create`` that sends, in the header
  ``CHALLENGE_HEADER``; a token is accepted once, and used up even if the request is then refused for another reason;
- refuses blocked recipients with ``ERROR_PHONE_BLOCKED`` in ``create``, ``send`` and ``check``;
- rounds the ``timeout`` values of ``GET channels`` up to whole seconds;
- takes ``GET channels`` and ``GET settings`` without a session as requests about the project;
- has links for the channels that have a bot;
- gives every response an ``X-Request-Id`` of its own;
- lets pages of any origin call it, and read ``Retry-After``, ``Date`` and ``X-Request-Id``;
- has no ``manual/send``, which sends a code of the caller's and knows no sessions.
"""
# ruff: noqa: RUF001  the Russian messages are in Russian letters

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = (
    "CHALLENGE_API_KEY",
    "CHALLENGE_HEADER",
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
    "verify": "POST",
    "settings": "GET",
}

MAX_BODY_BYTES: Final = 64 * 1024

# The name that the vendor's playground for the older API used.
CHALLENGE_HEADER: Final = "x-cf-turnstile-token"
CHALLENGE_API_KEY: Final = "emulator-challenge-key"

PROJECT_NAME: Final = "Emulator"
IMAGE_URL: Final = "https://storage.kod.mobi/icons/{type}.svg"
LINKS: Final[Mapping[str, str]] = {"telegram": "https://t.me/my-tg-bot", "whatsapp": "https://wa.me/10000000000"}
