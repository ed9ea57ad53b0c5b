"""The whole login: create, check, verify, settings, the first channel that takes the code, the countdown."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest

from kodmobi_async import (
    BadRequestError,
    CallFinished,
    CallStarted,
    ChallengeError,
    Channel,
    ChannelUnavailableError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    InvalidRequestError,
    KodmobiClient,
    KodmobiError,
    Limits,
    MemoryCooldownTracker,
    NotFoundError,
    Outcome,
    OutcomeUnknownError,
    RecipientBlockedError,
    RetryPolicy,
    Session,
    SessionExpiredError,
    TransportError,
    UnreadableResponseError,
    WrongCodeError,
)
from kodmobi_async._calls.countdown import countdown
from kodmobi_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kodmobi_async import Record

PHONE: Final = "+14155550123"
EMAIL: Final = "jane.doe@example.com"


def make_client(emulator: Emulator, **settings: Any) -> KodmobiClient:
    return KodmobiClient(emulator.api_key, secret_key=emulator.secret_key, base_url=emulator.base_url, **settings)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[KodmobiClient]:
    async with make_client(emulator) as client:
        yield client


async def test_the_whole_login_is_four_calls(emulator: Emulator, client: KodmobiClient) -> None:
    session = await client.create(PHONE, channel="sms", send=True)
    result = await client.check(session.session_id, emulator.last_code(PHONE))
    user = await client.verify(result.verify_token)
    assert user.to == PHONE
    assert (session.sent_to, result.is_test) == ("sms", False)
    assert session.expires_in == pytest.approx(180, abs=1)


# -- create ------------------------------------------------------------------------------------------------------------


async def test_creating_sends_nothing_unless_asked_to(emulator: Emulator, client: KodmobiClient) -> None:
    session = await client.create(PHONE)
    assert session.sent_to is None
    assert [channel.type for channel in session.channels] == list(Channel)
    assert emulator.ledger == ()
    again = await client.create("+1 (415) 555-0123")
    assert again.session_id == session.session_id
    assert again.channels == session.channels


@pytest.mark.parametrize("channel", [None, "sms", Channel.WHATSAPP, "email"])
async def test_creating_sends_over_the_channel_or_the_services_choice(
    emulator: Emulator, client: KodmobiClient, channel: str | None
) -> None:
    session = await client.create(EMAIL, channel=channel, send=True)
    assert session.sent_to == (channel or "telegram")
    (delivery,) = emulator.ledger
    assert (delivery.channel, delivery.to) == (session.sent_to, EMAIL)
    assert session.timeout_of(delivery.channel) == 60
    assert session.timeout_of("pigeon") == 0
    assert await client.remaining(session.session_id, delivery.channel) == pytest.approx(60)
    with pytest.raises(CooldownError):
        await client.send(session.session_id, delivery.channel)
    assert emulator.requests["send"] == 0


async def test_any_number_of_callers_of_one_recipient_make_one_request(
    emulator: Emulator, client: KodmobiClient
) -> None:
    spellings = (PHONE, "001 415 555 0123", "+1 (415) 555-0123")
    calls = [
        client.create(spellings[number % 3], channel=("sms", "telegram", None)[number % 3], send=True)
        for number in range(60)
    ]
    came = await asyncio.gather(*calls, return_exceptions=True)
    assert emulator.requests["create"] == len(emulator.ledger) == 1
    assert sum(isinstance(each, Session) for each in came) == 1
    refusals = [each for each in came if isinstance(each, CooldownError)]
    assert len(refusals) == 59
    for refusal in refusals:
        assert refusal.outcome is Outcome.NOT_SENT
        assert refusal.session_id is None
        assert "+1•••••0123" in str(refusal)


async def test_those_who_wait_are_sent_to_one_a_window(emulator: Emulator) -> None:
    async with make_client(emulator, max_wait=math.inf) as client:
        sessions = await asyncio.gather(*(client.create(PHONE, channel="sms", send=True) for _ in range(3)))
    assert [session.sent_to for session in sessions] == ["sms"] * 3
    moments = sorted(delivery.at for delivery in emulator.ledger)
    assert len(moments) == 3
    assert all(later - sooner >= 60 - 1e-6 for sooner, later in itertools.pairwise(moments))


async def test_another_channel_is_not_held_back(emulator: Emulator, client: KodmobiClient) -> None:
    await client.create(PHONE, channel="sms", send=True)
    session = await client.create(PHONE, channel="telegram", send=True)
    assert session.sent_to == "telegram"
    with pytest.raises(CooldownError) as caught:
        await client.create(PHONE, channel="telegram", send=True)
    assert caught.value.retry_after == pytest.approx(60)
    assert (caught.value.channel, emulator.requests["create"]) == ("telegram", 2)


async def test_a_code_that_others_have_sent_is_not_taken_for_ours(emulator: Emulator, client: KodmobiClient) -> None:
    async with make_client(emulator) as other:
        await other.create(PHONE, channel="sms", send=True)
    await asyncio.sleep(20)
    records: list[Record] = []
    async with make_client(emulator, hooks=[records.append]) as late:
        session = await late.create(PHONE, channel="sms", send=True)
    assert session.sent_to is None
    assert session.timeout_of("sms") == 40
    (end,) = (record for record in records if isinstance(record, CallFinished))
    assert (end.kind, end.outcome, end.sent_to, end.to) == ("create", Outcome.REFUSED, None, "+1•••••0123")
    assert len(emulator.ledger) == 1


async def test_a_code_that_others_have_sent_is_waited_out_where_there_is_time(emulator: Emulator) -> None:
    async with make_client(emulator) as other:
        await other.create(PHONE, channel="sms", send=True)
    await asyncio.sleep(20)
    async with make_client(emulator) as late:
        session = await late.create(PHONE, channel="sms", send=True, max_wait=41)
        assert session.sent_to == "sms"
    assert [round(delivery.at - emulator.ledger[0].at) for delivery in emulator.ledger] == [0, 60]


async def test_a_refusal_inside_a_window_is_the_services_word() -> None:
    async with Emulator(create_in_window="refuse") as emulator, make_client(emulator) as client:
        async with make_client(emulator) as other:
            await other.create(PHONE, channel="sms", send=True)
        with pytest.raises(CooldownError) as caught:
            await client.create(PHONE, channel="sms", send=True)
        assert caught.value.outcome is Outcome.REFUSED
        assert caught.value.session_id is None
        with pytest.raises(CooldownError) as caught:
            await client.create(PHONE, channel="sms", send=True)
        assert caught.value.outcome is Outcome.NOT_SENT
        assert emulator.requests["create"] == 2


async def test_a_service_that_keeps_quiet_for_a_known_recipient_has_sent_nothing() -> None:
    async with Emulator(create_existing="quiet") as emulator, make_client(emulator) as client:
        await client.create(PHONE)
        session = await client.create(PHONE, channel="sms", send=True)
        assert session.sent_to is None
        assert emulator.ledger == ()
        # nothing blocks the channel, so the code can be sent at once
        assert (await client.send(session.session_id, "sms")).channel.type == "sms"


@pytest.mark.parametrize("limits", [Limits(), Limits(window=5)])
async def test_what_a_new_session_was_sent_is_ours_however_short_the_services_window_is(limits: Limits) -> None:
    async with Emulator(window=5) as emulator, make_client(emulator, limits=limits) as client:
        assert (await client.create(PHONE, send=True)).sent_to == "telegram"
        await asyncio.sleep(2)
        async with make_client(emulator, limits=limits) as late:
            assert (await late.create(PHONE, send=True)).sent_to is None


async def test_a_service_whose_window_is_another_may_be_told() -> None:
    async with Emulator(window=5) as emulator:
        async with make_client(emulator) as other:
            await other.create(PHONE)
        await asyncio.sleep(20)
        async with make_client(emulator, limits=Limits(window=5)) as client:
            assert (await client.create(PHONE, send=True)).sent_to == "telegram"


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("channel", [None, "sms"])
async def test_a_lost_response_is_resolved_by_creating_without_sending(
    emulator: Emulator, channel: str | None, *, repeats: bool
) -> None:
    async with make_client(emulator, retry=RetryPolicy(repeat_unknown=repeats)) as client:
        emulator.script(Fault.close(process=True), endpoint="create")
        if repeats:
            session = await client.create(PHONE, channel=channel, send=True)
            assert (session.sent_to, session.confirmed) == (channel or "telegram", True)
        else:
            with pytest.raises(OutcomeUnknownError) as caught:
                await client.create(PHONE, channel=channel, send=True)
            assert caught.value.safe_after == 60
        assert len(emulator.ledger) == 1
        with pytest.raises(CooldownError):
            await client.create(PHONE, channel=channel, send=True)
        assert len(emulator.ledger) == 1


async def test_a_lost_request_is_repeated_inside_the_window(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.close(process=False), endpoint="create")
    session = await client.create(PHONE, channel="sms", send=True)
    assert (session.sent_to, session.confirmed, session.attempts) == ("sms", False, 2)
    assert len(emulator.ledger) == 1


async def test_a_lost_request_for_a_channel_that_an_older_code_blocks_is_not_repeated(emulator: Emulator) -> None:
    async with make_client(emulator) as other:
        await other.create(PHONE, channel="sms", send=True)
    await asyncio.sleep(20)
    async with make_client(emulator) as client:
        emulator.script(Fault.close(process=False), endpoint="create")
        session = await client.create(PHONE, channel="sms", send=True)
        assert (session.sent_to, session.confirmed, session.timeout_of("sms")) == (None, True, 40)
    assert emulator.requests["create"] == 3
    assert len(emulator.ledger) == 1


async def test_a_lost_request_is_not_repeated_where_another_channel_was_sent_to_meanwhile(
    emulator: Emulator, client: KodmobiClient
) -> None:
    async with make_client(emulator) as other:
        await other.create(PHONE)
        emulator.script(Fault.silence(process=False), endpoint="create")
        creating = asyncio.create_task(client.create(PHONE, channel="telegram", send=True))
        await asyncio.sleep(1)
        await other.create(PHONE, channel="sms", send=True)
        with pytest.raises(OutcomeUnknownError, match="another channel was sent to meanwhile"):
            await creating
    assert [delivery.channel for delivery in emulator.ledger] == ["sms"]


async def test_a_lost_request_that_cannot_be_asked_about_is_repeated(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.close(process=True), endpoint="create")
    emulator.script(Fault.answer(500), endpoint="create")
    session = await client.create(PHONE, channel="sms", send=True)
    assert session.sent_to == "sms"
    assert len(emulator.ledger) == 1


async def test_a_channel_that_the_list_leaves_out_is_believed_and_blocked_for_a_window(
    emulator: Emulator, client: KodmobiClient
) -> None:
    body: dict[str, object] = {
        "session_id": "01K8N1VMPN0EE389K72YW0CBM2",
        "session_expired_at": None,
        "sent_to": {"type": "viber", "name": "Viber"},
        "channels": [],
    }
    emulator.script(Fault.answer(200, body=body), endpoint="create")
    session = await client.create(PHONE, send=True)
    assert session.sent_to == "viber"
    with pytest.raises(CooldownError) as caught:
        await client.create(PHONE, channel="viber", send=True)
    assert caught.value.retry_after == pytest.approx(60)
    assert session.expires_in is None


@pytest.mark.parametrize("shape", [{"session_id": "x"}, {"channels": {}}, {"sent_to": 7}, {"sent_to": {"name": "x"}}])
@pytest.mark.parametrize("send", [False, True])
async def test_a_session_of_another_shape_is_unreadable(
    emulator: Emulator, client: KodmobiClient, shape: dict[str, object], *, send: bool
) -> None:
    body: dict[str, object] = {
        "session_id": "01K8N1VMPN0EE389K72YW0CBM2",
        "session_expired_at": None,
        "sent_to": "sms",
        "channels": [],
    }
    emulator.script(Fault.answer(200, body=body | shape), endpoint="create")
    with pytest.raises(UnreadableResponseError) as caught:
        await client.create(PHONE, send=send)
    assert caught.value.outcome is (Outcome.ACCEPTED if send else Outcome.NOT_SENT)


async def test_the_sessions_end_bounds_waits_from_the_first_code_on(emulator: Emulator, client: KodmobiClient) -> None:
    session = await client.create(PHONE, channel="sms", send=True)
    await asyncio.sleep(59)
    with pytest.raises(CooldownError):
        await client.create(PHONE, channel="sms", send=True)
    await asyncio.sleep(62)
    await client.send(session.session_id, "sms")
    with pytest.raises(SessionExpiredError):
        await client.send(session.session_id, "sms", max_wait=math.inf)


async def test_windows_of_a_read_session_are_remembered(emulator: Emulator, client: KodmobiClient) -> None:
    async with make_client(emulator) as other:
        session = await other.create(PHONE, channel="sms", send=True)
    await client.create(PHONE)
    assert await client.remaining(session.session_id, "sms") == pytest.approx(60)


async def test_a_recipient_in_the_tracker_is_no_private_data(emulator: Emulator) -> None:
    class Watched(MemoryCooldownTracker):
        asked: set[tuple[str, str]] = set()  # noqa: RUF012 one test's

        async def acquire(self, session_id: str, channel: str, **how: Any) -> Any:
            self.asked.add((session_id, channel))
            return await super().acquire(session_id, channel, **how)

    tracker = Watched()
    async with make_client(emulator, cooldowns=tracker) as client:
        await client.create(PHONE, channel="sms", send=True)
        await client.create("+14155550124", send=True)
    assert {channel for _, channel in tracker.asked} == {"sms", "create", "any"}
    assert len({session for session, _ in tracker.asked}) == 2
    assert all(len(session) == 26 and "4155550" not in session for session, _ in tracker.asked)


async def test_a_blocked_recipient_is_refused(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.block(PHONE)
    with pytest.raises(RecipientBlockedError):
        await client.create(PHONE, send=True)
    emulator.unblock(PHONE)
    assert (await client.create(PHONE, send=True)).sent_to == "telegram"


# -- check and verify --------------------------------------------------------------------------------------------------


@pytest.fixture
async def session(client: KodmobiClient) -> Session:
    return await client.create(PHONE, channel="sms", send=True)


async def test_what_people_type_is_checked_as_they_mean_it(
    emulator: Emulator, client: KodmobiClient, session: Session
) -> None:
    code = emulator.last_code(PHONE)
    typed = f" {code[:3]}-{code[3:]} ".translate({ord("0") + digit: 0x660 + digit for digit in range(10)})
    assert (await client.check(session.session_id, typed)).verify_token


async def test_wrong_codes_end_a_session(emulator: Emulator, client: KodmobiClient, session: Session) -> None:
    wrong = "000000" if emulator.last_code(PHONE) != "000000" else "111111"
    for _ in range(5):
        with pytest.raises(WrongCodeError) as caught:
            await client.check(session.session_id, wrong)
        assert caught.value.outcome is Outcome.REFUSED
        assert caught.value.request_id
    with pytest.raises(SessionExpiredError):
        await client.check(session.session_id, emulator.last_code(PHONE))
    assert emulator.requests["check"] == 6


async def test_a_right_code_ends_the_session(emulator: Emulator, client: KodmobiClient, session: Session) -> None:
    await client.check(session.session_id, emulator.last_code(PHONE))
    with pytest.raises(SessionExpiredError):
        await client.send(session.session_id, "telegram")


@pytest.mark.parametrize("code", ["", "12", "code with words", 123456, None])
async def test_what_can_be_no_code_costs_no_request(
    emulator: Emulator, client: KodmobiClient, session: Session, code: Any
) -> None:
    with pytest.raises(InvalidRequestError):
        await client.check(session.session_id, code)
    assert emulator.requests["check"] == 0


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize("fault", ["close", "silence", "500", "302"])
async def test_a_check_whose_response_is_lost_is_never_repeated(
    emulator: Emulator, client: KodmobiClient, session: Session, fault: str, *, process: bool
) -> None:
    faults = {
        "close": Fault.close(process=process),
        "silence": Fault.silence(process=process),
        "500": Fault.answer(500, process=process),
        "302": Fault.answer(302, process=process),
    }
    emulator.script(faults[fault], endpoint="check")
    with pytest.raises(OutcomeUnknownError, match="a new session gets a new one") as caught:
        await client.check(session.session_id, emulator.last_code(PHONE))
    assert (caught.value.outcome, caught.value.safe_after) == (Outcome.UNKNOWN, 0.0)
    assert emulator.requests["check"] == 1


@pytest.mark.parametrize("status", [408, 421, 425, 429, 503])
async def test_a_check_that_the_service_put_off_is_made_again(
    emulator: Emulator, client: KodmobiClient, session: Session, status: int
) -> None:
    emulator.script(Fault.answer(status), endpoint="check")
    assert (await client.check(session.session_id, emulator.last_code(PHONE))).verify_token
    assert emulator.requests["check"] == 2


async def test_a_token_is_redeemed_once_and_never_twice(
    emulator: Emulator, client: KodmobiClient, session: Session
) -> None:
    token = (await client.check(session.session_id, emulator.last_code(PHONE))).verify_token
    assert (await client.verify(token)).to == PHONE
    with pytest.raises(NotFoundError):
        await client.verify(token)
    emulator.script(Fault.close(), endpoint="verify")
    with pytest.raises(OutcomeUnknownError, match="a new login gets a new one"):
        await client.verify(token)
    assert emulator.requests["verify"] == 3


@pytest.mark.parametrize(
    ("body", "to"),
    [
        ({"phone": "+14155550123"}, PHONE),
        ({"phone": "14155550123"}, PHONE),
        ({"email": EMAIL}, EMAIL),
        ({"to": EMAIL}, EMAIL),
        ({"success": True, "data": {"phone": "14155550123"}}, PHONE),
        ({"phone": None, "email": EMAIL}, EMAIL),
    ],
)
async def test_whoever_was_verified_is_read_in_every_form(
    emulator: Emulator, client: KodmobiClient, body: dict[str, object], to: str
) -> None:
    emulator.script(Fault.answer(200, body=body), endpoint="verify")
    assert (await client.verify("token")).to == to


@pytest.mark.parametrize(
    "body", [{}, {"phone": ""}, {"phone": "12"}, {"phone": 7}, {"data": []}, [], "x", {"to": "nobody"}]
)
async def test_who_was_verified_is_never_guessed(emulator: Emulator, client: KodmobiClient, body: Any) -> None:
    emulator.script(Fault.answer(200, body=body), endpoint="verify")
    with pytest.raises(UnreadableResponseError):
        await client.verify("token")


async def test_a_token_of_no_characters_is_no_token(
    emulator: Emulator, client: KodmobiClient, session: Session
) -> None:
    emulator.script(Fault.answer(200, body={"verify_token": ""}), endpoint="check")
    with pytest.raises(UnreadableResponseError) as caught:
        await client.check(session.session_id, "123456")
    assert caught.value.outcome is Outcome.ACCEPTED


async def test_verifying_needs_the_secret_key_and_nothing_else_gets_it(emulator: Emulator) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
        with pytest.raises(ConfigurationError, match="secret_key=, or set KODMOBI_SECRET_KEY"):
            await client.verify("token")
    assert not emulator.requests


async def test_the_secret_key_may_come_from_the_environment(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KODMOBI_SECRET_KEY", f" {emulator.secret_key}\n")
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
        with pytest.raises(NotFoundError):
            await client.verify("token")


@pytest.mark.parametrize("token", ["", "two words", "ü", "x" * 9000, 7, None])
async def test_what_can_be_no_token_costs_no_request(emulator: Emulator, client: KodmobiClient, token: Any) -> None:
    with pytest.raises(InvalidRequestError, match="printable ASCII"):
        await client.verify(token)
    if token is not None:
        for call in (
            client.send("01K8N1VMPN0EE389K72YW0CBM2", "sms", challenge=token),
            client.create(PHONE, send=True, challenge=token),
            client.check("01K8N1VMPN0EE389K72YW0CBM2", "123456", challenge=token),
        ):
            with pytest.raises(InvalidRequestError, match="challenge takes"):
                await call
    assert not emulator.requests


# -- settings, CAPTCHA -------------------------------------------------------------------------------------------------


async def test_the_settings_say_what_a_login_page_has_to_know() -> None:
    async with Emulator(code_length=4, code_letters=True, challenge=True) as emulator, make_client(emulator) as client:
        settings = await client.settings()
        assert (settings.language, settings.project_name) == ("en", "Emulator")
        assert attrs.astuple(settings.code) == (4, True, True)
        assert settings.challenge.enabled
        assert settings.challenge.api_key
        session = await client.create(PHONE)
        assert (await client.settings(session.session_id)).code == settings.code


@pytest.mark.parametrize(
    "change",
    [
        {"code": None},
        {"code": {"length": -1}},
        {"code": {"length": 6, "digits": 1, "letters": False}},
        {"project": []},
        {"challenge": {}},
    ],
)
async def test_settings_of_another_shape_are_unreadable(
    emulator: Emulator, client: KodmobiClient, change: dict[str, object]
) -> None:
    body: dict[str, object] = {
        "language": "en",
        "project": {"name": "x"},
        "code": {"length": 6, "digits": True, "letters": False},
        "challenge": {"enabled": False, "api_key": None},
    }
    emulator.script(Fault.answer(200, body=body | change), endpoint="settings")
    with pytest.raises(UnreadableResponseError) as caught:
        await client.settings()
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
async def test_the_token_of_a_captcha_goes_with_its_request(pool: str) -> None:
    import aiohttp  # noqa: PLC0415 of this test alone

    async with Emulator(challenge=("one", "two", "three", "four")) as emulator:
        borrowed = aiohttp.ClientSession() if pool == "borrowed" else None
        async with make_client(emulator, session=borrowed) as client:
            with pytest.raises(ChallengeError):
                await client.create(PHONE, channel="sms", send=True)
            session = await client.create(PHONE, channel="sms", send=True, challenge="one")
            with pytest.raises(ChallengeError):
                await client.send(session.session_id, "telegram", challenge="one")
            await client.send(session.session_id, "telegram", challenge="two")
            code = emulator.last_code(PHONE)
            with pytest.raises(ChallengeError):
                await client.check(session.session_id, code)
            token = (await client.check(session.session_id, code, challenge="three")).verify_token
            assert (await client.verify(token)).to == PHONE
        if borrowed is not None:
            await borrowed.close()


# -- the first channel that takes the code -----------------------------------------------------------------------------


async def test_the_first_channel_that_takes_the_code_is_used(emulator: Emulator, client: KodmobiClient) -> None:
    session_id = emulator.add_session()
    result = await client.send_first(session_id, ["telegram", "sms"])
    assert result.channel.type == "telegram"
    result = await client.send_first(session_id, ["Telegram", "telegram", "sms", "email"])
    assert result.channel.type == "sms"
    assert emulator.requests["send"] == 2


async def test_an_unavailable_channel_is_passed_over() -> None:
    async with Emulator(require_active=True) as emulator, make_client(emulator) as client:
        session_id = emulator.add_session()
        assert (await client.send_first(session_id, ["telegram", "whatsapp", "sms"])).channel.type == "sms"
        with pytest.raises(ChannelUnavailableError):
            await client.send_first(session_id, ["telegram", "pigeon"])


async def test_where_all_channels_are_out_the_one_that_is_free_first_is_named_or_waited_for(
    emulator: Emulator, client: KodmobiClient
) -> None:
    session_id = emulator.add_session()
    await client.send(session_id, "sms")
    await asyncio.sleep(20)
    await client.send(session_id, "email")
    with pytest.raises(CooldownError) as caught:
        await client.send_first(session_id, ["email", "sms", "pigeon"])
    assert caught.value.channel == "sms"
    assert caught.value.retry_after == pytest.approx(40)
    with pytest.raises(CooldownError):
        await client.send_first(session_id, ["email", "sms"], max_wait=39)
    assert (await client.send_first(session_id, ["email", "sms"], max_wait=41)).channel.type == "sms"


@pytest.mark.parametrize("fault", ["unknown", "unreadable", "refused", "too soon after a lost response"])
async def test_what_may_have_been_sent_and_every_other_error_ends_it(
    emulator: Emulator, client: KodmobiClient, fault: str
) -> None:
    session_id = emulator.add_session()
    faults = {
        "unknown": (Fault.answer(302),),
        "unreadable": (Fault.answer(200, body={}, process=True),),
        "refused": (Fault.refuse("ERROR_BAD_REQUEST"),),
        "too soon after a lost response": (Fault.close(process=True),),
    }
    for each in faults[fault]:
        emulator.script(each)
    emulator.script(Fault.answer(500), times=9, endpoint="channels")
    with pytest.raises(KodmobiError) as caught:
        await client.send_first(session_id, ["sms", "email"])
    assert not isinstance(caught.value, ChannelUnavailableError)
    assert {delivery.channel for delivery in emulator.ledger} <= {"sms"}


async def test_an_unreachable_service_is_not_tried_over_other_channels() -> None:
    async with KodmobiClient("key", base_url="http://127.0.0.1:9", retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(TransportError):
            await client.send_first("01K8N1VMPN0EE389K72YW0CBM2", ["sms", "email"])


@pytest.mark.parametrize("channels", [[], "sms", ["sms", ""], [7]])
async def test_what_is_no_list_of_channels_is_refused(client: KodmobiClient, channels: Any) -> None:
    with pytest.raises(InvalidRequestError):
        await client.send_first("01K8N1VMPN0EE389K72YW0CBM2", channels)


# -- the countdown -----------------------------------------------------------------------------------------------------


async def test_a_countdown_counts_down_to_zero(emulator: Emulator, client: KodmobiClient) -> None:
    session_id = emulator.add_session()
    assert [left async for left in client.countdown(session_id, "sms")] == [0.0]
    emulator.script(Fault.answer(200, body=sent(session_id, 3)))
    await client.send(session_id, "sms")
    loop = asyncio.get_running_loop()
    began = loop.time()
    counted = [left async for left in client.countdown(session_id, "sms")]
    assert counted == pytest.approx([3, 2, 1, 0], abs=0.01)
    assert counted[-1] == 0.0
    assert loop.time() - began == pytest.approx(3, abs=0.01)
    await client.send(session_id, "sms")  # zero means that it may go


def sent(session_id: str, timeout: float, expires: str | None = None) -> dict[str, object]:
    channel = {"name": "", "type": "sms", "is_active": True, "timeout": timeout, "image_url": "", "link": ""}
    return {"session_id": session_id, "session_expired_at": expires, "channel": channel}


async def test_a_countdown_follows_a_window_that_grows(emulator: Emulator, client: KodmobiClient) -> None:
    session_id = emulator.add_session()
    emulator.script(Fault.answer(200, body=sent(session_id, 3)))
    await client.send(session_id, "sms")
    counted: list[int] = []
    async for left in client.countdown(session_id, "sms"):
        counted.append(round(left))
        if counted == [3, 2]:
            emulator.script(Fault.answer(200, body=[sent(session_id, 5)["channel"]]), endpoint="channels")
            await client.channels(session_id)
    assert counted == [3, 2, 4, 3, 2, 1, 0]


async def test_a_countdown_ends_with_the_session() -> None:
    async with Emulator(session_lifetime=10) as short, make_client(short) as client:
        session = await client.create(PHONE, channel="sms", send=True)
        loop = asyncio.get_running_loop()
        began = loop.time()
        counted = [round(left) async for left in client.countdown(session.session_id, "sms", every=4)]
        assert loop.time() - began == pytest.approx(10, abs=1.1)
        assert counted[:3] == [60, 56, 52]
        assert 0 not in counted


async def test_a_countdown_keeps_quiet_about_what_its_timer_left_over() -> None:
    left = iter([1.5, 0.5, 0.0004, 0.0])

    async def remaining() -> float:
        return next(left)

    assert [each async for each in countdown(remaining, lambda: None, 1.0)] == [1.5, 0.5, 0.0]


@pytest.mark.parametrize("every", [0, -1, math.nan, math.inf, "1"])
def test_a_countdown_in_steps_of_nothing_is_refused(every: Any) -> None:
    client = KodmobiClient("key")
    with pytest.raises(ConfigurationError, match="every takes"):
        client.countdown("01K8N1VMPN0EE389K72YW0CBM2", "sms", every=every)
    with pytest.raises(InvalidRequestError):
        client.countdown("x", "sms")


# -- what all calls share ----------------------------------------------------------------------------------------------

CALLS: Final = {
    "create": lambda client: client.create(PHONE),
    "create and send": lambda client: client.create(PHONE, send=True),
    "check": lambda client: client.check("01K8N1VMPN0EE389K72YW0CBM2", "123456"),
    "verify": lambda client: client.verify("token"),
    "settings": lambda client: client.settings(),
    "channels": lambda client: client.channels(),
}
ENDPOINTS: Final = {"create and send": "create"}


@pytest.mark.parametrize("name", CALLS)
class TestEveryCall:
    async def test_has_its_records(self, emulator: Emulator, name: str) -> None:
        records: list[Record] = []
        emulator.script(Fault.answer(503), endpoint=ENDPOINTS.get(name, name))
        async with make_client(emulator, hooks=[records.append]) as client:
            try:
                await CALLS[name](client)
            except KodmobiError as error:
                raised: KodmobiError | None = error
            else:
                raised = None
        first, last = records[0], records[-1]
        assert type(first) is CallStarted
        assert type(last) is CallFinished
        assert {record.kind for record in records} == {ENDPOINTS.get(name, name)}
        assert len({record.call for record in records}) == 1
        assert first.url == f"{emulator.base_url}/{ENDPOINTS.get(name, name)}"
        assert (last.error, last.attempts) == (raised, 2)

    async def test_is_refused_by_a_closed_client(self, emulator: Emulator, name: str) -> None:
        client = make_client(emulator)
        await client.aclose()
        with pytest.raises(ClientClosedError):
            await CALLS[name](client)
        assert not emulator.requests

    async def test_is_ended_by_closing_with_what_is_known(self, emulator: Emulator, name: str) -> None:
        emulator.script(Fault.silence(), endpoint=ENDPOINTS.get(name, name))
        client = make_client(emulator)
        calling = asyncio.ensure_future(CALLS[name](client))
        await asyncio.sleep(1)
        await client.aclose(grace=0.5)
        with pytest.raises(ClientClosedError) as caught:
            await calling
        reads = name in ("create", "settings", "channels")
        assert caught.value.outcome is (Outcome.NOT_SENT if reads else Outcome.UNKNOWN)

    async def test_waits_at_the_gate_that_another_has_closed(self, emulator: Emulator, name: str) -> None:
        loop = asyncio.get_running_loop()
        async with make_client(emulator) as client:
            emulator.script(Fault.answer(429, {"Retry-After": "7"}), endpoint="settings")
            limited = asyncio.create_task(client.settings())
            await asyncio.sleep(0.5)
            began = loop.time()
            await asyncio.gather(CALLS[name](client), return_exceptions=True)
            assert loop.time() - began >= 6.4
            await limited


@pytest.mark.parametrize("seconds", [0, -1, "1"])
async def test_a_call_whose_bounds_make_no_sense_is_not_made(
    emulator: Emulator, client: KodmobiClient, seconds: Any
) -> None:
    for call in (
        client.create(PHONE, timeout=seconds),
        client.create(PHONE, send=True, timeout=seconds),
        client.check("01K8N1VMPN0EE389K72YW0CBM2", "123456", timeout=seconds),
        client.verify("token", timeout=seconds),
    ):
        with pytest.raises(ConfigurationError):
            await call
    assert not emulator.requests


@pytest.mark.parametrize("send", [1, "yes", None])
async def test_whether_to_send_is_said_by_a_boolean(emulator: Emulator, client: KodmobiClient, send: Any) -> None:
    with pytest.raises(InvalidRequestError, match="send takes True or False"):
        await client.create(PHONE, send=send)
    assert not emulator.requests


async def test_reads_are_repeated_after_whatever_is_lost(emulator: Emulator, client: KodmobiClient) -> None:
    for endpoint, call in (("create", "create"), ("settings", "settings"), ("channels", "channels")):
        for fault in (Fault.close(), Fault.answer(500), Fault.malformed()):
            emulator.script(fault, endpoint=endpoint)
        await CALLS[call](client)
        assert emulator.requests[endpoint] == 4


async def test_every_error_of_a_read_says_that_nothing_was_sent(emulator: Emulator, client: KodmobiClient) -> None:
    for fault in (Fault.answer(302), Fault.answer(200, body=b"x"), Fault.refuse("ERROR_BAD_REQUEST")):
        emulator.script(fault, endpoint="create")
        with pytest.raises(KodmobiError) as caught:
            await client.create(PHONE)
        assert caught.value.outcome is Outcome.NOT_SENT
    assert isinstance(caught.value, BadRequestError)
    assert caught.value.error_params is None
