"""The emulator's login: create, send, check and verify, and what may stand in the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from raw_http import SESSION, Response, call, clean_emulator, envelope, get, jump, send

from kodmobi_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PHONE = "+14155550123"
EMAIL = "jane@example.com"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with clean_emulator() as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as session:
        yield session


async def create(http: aiohttp.ClientSession, emulator: Emulator, to: str = PHONE, **more: Any) -> Response:
    headers = more.pop("headers", {})
    return await call(http, f"{emulator.base_url}/create", {"to": to, **more}, **headers)


async def check(
    http: aiohttp.ClientSession, emulator: Emulator, session_id: str, code: object, **headers: str
) -> Response:
    return await call(http, f"{emulator.base_url}/check", {"session_id": session_id, "code": code}, **headers)


async def verify(http: aiohttp.ClientSession, emulator: Emulator, token: object, key: str | None = None) -> Response:
    key = emulator.secret_key if key is None else key
    return await call(http, f"{emulator.base_url}/verify", {"verify_token": token}, x_api_key=key)


async def verified(http: aiohttp.ClientSession, emulator: Emulator, to: str) -> str:
    """Log ``to`` in, and return the token."""
    session_id = (await create(http, emulator, to)).json["session_id"]
    token: str = (await check(http, emulator, session_id, emulator.last_code(to))).json["verify_token"]
    return token


def code_other_than(code: str) -> str:
    return "999999" if code != "999999" else "000000"


# --- the whole login --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "name"), [(PHONE, "phone"), (EMAIL, "email")])
async def test_a_login_from_create_to_verify(
    emulator: Emulator, http: aiohttp.ClientSession, to: str, name: str
) -> None:
    created = (await create(http, emulator, to)).json
    assert created["sent_to"] == "telegram"
    checked = await check(http, emulator, created["session_id"], emulator.last_code(to))
    token = checked.json.pop("verify_token")
    assert checked.json == {"verify_token": token, "is_test": False}
    assert (await verify(http, emulator, token)).json == {name: to}


async def test_the_last_code_is_the_one_delivered_last(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    await create(http, emulator)
    await create(http, emulator, EMAIL)
    assert emulator.last_code(PHONE) == emulator.delivered(to=PHONE)[0].code
    jump(180)
    await create(http, emulator)
    assert emulator.last_code(PHONE) == emulator.delivered(to=PHONE)[1].code
    assert len(emulator.delivered(channel="telegram", to=PHONE)) == 2
    assert emulator.delivered(channel="sms", to=PHONE) == []


async def test_deliveries_can_be_followed(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    await create(http, emulator)
    arriving = emulator.deliveries()
    session_id = (await create(http, emulator, EMAIL)).json["session_id"]
    await send(http, emulator, session_id, "sms")
    assert [await anext(arriving) for _ in range(2)] == emulator.delivered(to=EMAIL)
    following = asyncio.ensure_future(anext(arriving))
    await asyncio.sleep(1)
    await create(http, emulator, type="whatsapp")
    assert (await following).channel == "whatsapp"


async def test_there_is_no_last_code_before_the_first(emulator: Emulator) -> None:
    with pytest.raises(LookupError) as caught:
        emulator.last_code(PHONE)
    assert "+1••••••0123" in str(caught.value)
    assert PHONE not in str(caught.value)


@pytest.mark.parametrize(("to", "shown"), [(PHONE, "+1••••••0123"), (EMAIL, "j••••••@example.com"), ("+12", "••••••")])
async def test_the_repr_of_a_delivery_shows_no_code_and_no_recipient(
    emulator: Emulator, http: aiohttp.ClientSession, to: str, shown: str
) -> None:
    await send(http, emulator, emulator.add_session(SESSION, to=to), "sms")
    (delivery,) = emulator.ledger
    assert repr(delivery) == (
        f"Delivery(session_id=01K8N1VMPN…, to={shown}, channel='sms', code=••••••, at={delivery.at})"
    )


@pytest.mark.parametrize("endpoint", ["create", "send", "channels", "check", "verify", "settings"])
async def test_every_endpoint_can_have_a_fault(emulator: Emulator, http: aiohttp.ClientSession, endpoint: str) -> None:
    emulator.script(Fault.answer(503), endpoint=endpoint)
    url = f"{emulator.base_url}/{endpoint}"
    failed = await (get(http, url) if endpoint in {"channels", "settings"} else call(http, url, {}))
    assert failed.status == 503
    assert emulator.requests == {endpoint: 1}


async def test_every_response_has_an_id_and_a_date_of_its_own(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(502), endpoint="settings")
    emulator.script(Fault.refuse("ERROR_BLOCKED"), endpoint="settings")
    responses = [await get(http, f"{emulator.base_url}/{path}") for path in ("settings",) * 3 + ("elsewhere",)]
    assert [response.status for response in responses] == [502, 403, 200, 404]
    assert len({response.headers["X-Request-Id"] for response in responses}) == 4
    assert all("Date" in response.headers for response in responses)


# --- create -----------------------------------------------------------------------------------------------------------


async def test_create_without_send_reads_the_live_session(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    sent = (await create(http, emulator, type="sms")).json
    jump(20)
    read = (await create(http, emulator, send=False)).json
    assert read["session_id"] == sent["session_id"]
    assert read["session_expired_at"] == sent["session_expired_at"]
    assert read["sent_to"] is None
    assert [channel["timeout"] for channel in read["channels"]] == [0, 0, 40, 0]
    assert len(emulator.ledger) == 1


async def test_create_does_not_send_inside_a_window_and_sends_after_it(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    for wait, deliveries in ((0, 1), (59, 1), (1, 2)):
        jump(wait)
        assert (await create(http, emulator)).json["sent_to"] == "telegram"
        assert len(emulator.ledger) == deliveries


async def test_create_can_refuse_inside_a_window() -> None:
    async with (
        Emulator(create_in_window="refuse") as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http,
    ):
        assert (await create(http, emulator)).status == 200
        refused = await create(http, emulator)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
        assert refused.json["sys_message"] == "ERROR_MESSAGE_ATTEMPT"
        assert (await create(http, emulator, send=False)).status == 200
        jump(60)
        assert (await create(http, emulator)).status == 200
        assert len(emulator.ledger) == 2


async def test_create_can_leave_an_existing_session_alone() -> None:
    async with (
        Emulator(create_existing="quiet") as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http,
    ):
        assert (await create(http, emulator)).json["sent_to"] == "telegram"
        assert (await create(http, emulator)).json["sent_to"] == "telegram"
        assert (await create(http, emulator, type="sms")).json["sent_to"] is None
        jump(60)
        assert (await create(http, emulator)).json["sent_to"] is None
        assert len(emulator.ledger) == 1


async def test_create_without_a_type_sends_over_the_channel_used_last(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = (await create(http, emulator)).json["session_id"]
    await send(http, emulator, session_id, "email")
    jump(180)
    assert (await create(http, emulator)).json["sent_to"] == "email"
    assert (await create(http, emulator, EMAIL)).json["sent_to"] == "telegram"


async def test_create_forgets_a_channel_that_is_offered_no_longer(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    await create(http, emulator, type="email")
    emulator.channels = ("whatsapp", "sms")
    assert (await create(http, emulator)).json["sent_to"] == "whatsapp"


async def test_sessions_added_by_hand_have_recipients_of_their_own(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    await create(http, emulator, "+10000000001")
    one, other = emulator.add_session(), emulator.add_session()
    for session_id in (one, other):
        await send(http, emulator, session_id)
    assert len({delivery.to for delivery in emulator.ledger}) == 3


# --- check ------------------------------------------------------------------------------------------------------------


async def test_a_wrong_code_is_refused_and_the_right_one_still_counts(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = (await create(http, emulator)).json["session_id"]
    code = emulator.last_code(PHONE)
    emulator.max_checks = 10
    for wrong in (code_other_than(code), code[:-1], code + "0", "", "Ω"):
        refused = await check(http, emulator, session_id, wrong)
        assert (refused.status, refused.json) == (400, envelope("ERROR_MESSAGE_WRONG_CODE", 400, "Wrong code."))
    assert (await check(http, emulator, session_id, code)).status == 200


async def test_a_code_must_be_a_text(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    number = await check(http, emulator, emulator.add_session(), 123456)
    assert number.json == envelope("ERROR_BAD_REQUEST", 400, "Bad request.", {"field": "code"})


async def test_too_many_wrong_codes_end_the_session(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = (await create(http, emulator)).json["session_id"]
    code = emulator.last_code(PHONE)
    refusals = [await check(http, emulator, session_id, code_other_than(code)) for _ in range(5)]
    assert {refusal.json["sys_message"] for refusal in refusals} == {"ERROR_MESSAGE_WRONG_CODE"}
    assert (await check(http, emulator, session_id, code)).json["sys_message"] == "ERROR_SESSION_EXPIRED"
    assert (await send(http, emulator, session_id, "sms")).json["sys_message"] == "ERROR_SESSION_EXPIRED"
    assert (await create(http, emulator)).json["session_id"] != session_id


async def test_a_right_code_ends_the_session(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = (await create(http, emulator)).json["session_id"]
    code = emulator.last_code(PHONE)
    assert (await check(http, emulator, session_id, code)).status == 200
    assert (await check(http, emulator, session_id, code)).json["sys_message"] == "ERROR_SESSION_EXPIRED"
    assert (await create(http, emulator)).json["session_id"] != session_id


async def test_wrong_codes_in_a_row_can_block_the_user() -> None:
    async with (
        Emulator(max_checks=2, block_after=3) as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http,
    ):
        session_id = (await create(http, emulator)).json["session_id"]
        await check(http, emulator, session_id, code_other_than(emulator.last_code(PHONE)))
        await verified(http, emulator, PHONE)
        for wrong_codes in (2, 1):
            session_id = (await create(http, emulator)).json["session_id"]
            for _ in range(wrong_codes):
                await check(http, emulator, session_id, code_other_than(emulator.last_code(PHONE)))
        assert (await create(http, emulator)).json["sys_message"] == "ERROR_PHONE_BLOCKED"
        emulator.unblock(PHONE)
        await check(http, emulator, session_id, code_other_than(emulator.last_code(PHONE)))
        assert (await create(http, emulator)).status == 200


@pytest.mark.parametrize("length", [4, 5, 6])
async def test_codes_are_as_long_as_set(length: int) -> None:
    async with (
        Emulator(code_length=length) as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http,
    ):
        await create(http, emulator)
        code = emulator.last_code(PHONE)
        settings = (await get(http, f"{emulator.base_url}/settings")).json
    assert len(code) == length
    assert code.isdecimal()
    assert settings["code"] == {"length": length, "digits": True, "letters": False}


async def test_codes_may_contain_letters() -> None:
    async with (
        Emulator(code_letters=True) as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http,
    ):
        for _ in range(50):
            await send(http, emulator, emulator.add_session())
        codes = "".join(delivery.code for delivery in emulator.ledger)
        settings = (await get(http, f"{emulator.base_url}/settings")).json
    assert any(character.isdecimal() for character in codes)
    assert any(character.isalpha() for character in codes)
    assert codes == codes.upper()
    assert settings["code"] == {"length": 6, "digits": True, "letters": True}


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["emulator-key", "", "emulator-secret-ke", "ключ"])
async def test_verify_needs_the_secret_key(emulator: Emulator, http: aiohttp.ClientSession, key: str) -> None:
    token = await verified(http, emulator, PHONE)
    refused = await verify(http, emulator, token, key)
    assert (refused.status, refused.json) == (401, envelope("ERROR_ACCESS_DENIED", 401, "Access denied."))
    assert (await verify(http, emulator, token)).status == 200


async def test_a_token_can_be_redeemed_once(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    token = await verified(http, emulator, PHONE)
    first, second = await asyncio.gather(verify(http, emulator, token), verify(http, emulator, token))
    assert sorted([first.status, second.status]) == [200, 404]
    again = await verify(http, emulator, token)
    assert again.json == envelope("ERROR_MESSAGE_NOT_FOUND", 404, "Message not found.")


async def test_a_token_outlives_its_session(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    token = await verified(http, emulator, PHONE)
    jump(3600)
    assert (await verify(http, emulator, token)).json == {"phone": PHONE}


async def test_an_unknown_token_is_refused(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    assert (await verify(http, emulator, "made-up")).json["sys_message"] == "ERROR_MESSAGE_NOT_FOUND"
    for wrong in (None, 5, ["token"]):
        refused = await verify(http, emulator, wrong)
        assert refused.json == envelope("ERROR_BAD_REQUEST", 400, "Bad request.", {"field": "verify_token"})


# --- channels with a bot ----------------------------------------------------------------------------------------------


async def test_a_user_is_active_where_there_is_no_bot_or_the_bot_was_started(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session(active=["telegram"])
    url = f"{emulator.base_url}/channels"
    channels = (await get(http, f"{url}?session_id={session_id}")).json
    assert [channel["is_active"] for channel in channels] == [True, False, True, True]
    assert [channel["is_active"] for channel in (await get(http, url)).json] == [False, False, True, True]


async def test_an_inactive_channel_sends_by_default(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    sent = await send(http, emulator, emulator.add_session())
    assert sent.json["channel"]["is_active"] is False
    assert len(emulator.ledger) == 1


async def test_an_inactive_channel_can_be_refused_until_the_bot_is_started(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    emulator.require_active = True
    session_id = (await create(http, emulator, send=False)).json["session_id"]
    refused = await send(http, emulator, session_id)
    assert refused.json == envelope(
        "ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL", 409, "User is not authorized on the channel."
    )
    assert (await create(http, emulator, type="whatsapp")).status == 409
    assert (await send(http, emulator, session_id, "sms")).status == 200
    emulator.activate(session_id, "telegram")
    assert (await send(http, emulator, session_id)).json["channel"]["is_active"] is True
    jump(180)
    assert (await create(http, emulator)).json["channels"][0]["is_active"] is True


async def test_create_without_a_type_passes_over_inactive_channels(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    emulator.require_active = True
    assert (await create(http, emulator)).json["sent_to"] == "sms"
    emulator.channels = ("telegram",)
    assert (await create(http, emulator, EMAIL)).json["sys_message"] == "ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL"
    with pytest.raises(KeyError):
        emulator.activate(SESSION, "telegram")


# --- CAPTCHA and blocks -----------------------------------------------------------------------------------------------


async def test_no_captcha_is_demanded_by_default(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    assert (await get(http, f"{emulator.base_url}/settings")).json == {
        "language": "en",
        "project": {"name": "Emulator"},
        "code": {"length": 6, "digits": True, "letters": False},
        "challenge": {"enabled": False, "api_key": None},
    }


async def test_a_captcha_can_be_demanded(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.challenge = True
    settings = (await get(http, f"{emulator.base_url}/settings")).json
    assert settings["challenge"] == {"enabled": True, "api_key": "emulator-challenge-key"}
    session_id = (await create(http, emulator, send=False)).json["session_id"]
    passed = [
        await create(http, emulator, headers={"x_cf_turnstile_token": "one"}),
        await send(http, emulator, session_id, "sms", x_cf_turnstile_token="two"),
        await check(http, emulator, session_id, emulator.last_code(PHONE), x_cf_turnstile_token="three"),
    ]
    assert [response.status for response in passed] == [200, 200, 200]
    refused = [
        await create(http, emulator),
        await send(http, emulator, session_id),
        await check(http, emulator, session_id, "123456"),
        await create(http, emulator, headers={"x_cf_turnstile_token": ""}),
        await create(http, emulator, headers={"x_cf_turnstile_token": "one"}),
    ]
    assert {response.status for response in refused} == {403}
    assert refused[0].json == envelope("ERROR_CHALLENGE", 403, "Challenge is not passed.")
    assert len(emulator.ledger) == 2


async def test_a_captcha_can_take_certain_tokens_only(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.challenge = ("right",)
    for token, status in (("wrong", 403), ("right", 200), ("right", 403)):
        assert (await create(http, emulator, headers={"x_cf_turnstile_token": token})).status == status


async def test_a_blocked_recipient_is_refused_until_the_block_ends(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = (await create(http, emulator, send=False)).json["session_id"]
    emulator.block(PHONE)
    refused = [
        await create(http, emulator),
        await create(http, emulator, send=False),
        await send(http, emulator, session_id),
        await check(http, emulator, session_id, "123456"),
    ]
    assert {response.status for response in refused} == {403}
    assert refused[0].json == envelope("ERROR_PHONE_BLOCKED", 403, "Phone is blocked.")
    assert (await create(http, emulator, EMAIL)).status == 200
    emulator.unblock(PHONE)
    assert (await send(http, emulator, session_id)).status == 200
    for method in (emulator.block, emulator.unblock):
        with pytest.raises(ValueError, match=r"E\.164"):
            method("0123")
