"""Requests to bytes, answers to results or errors: no socket in sight."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from enum import Enum
from string import printable
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from kodmobi_async import (
    AuthenticationError,
    BadRequestError,
    BalanceError,
    ChallengeError,
    Channel,
    ChannelUnavailableError,
    CooldownError,
    InvalidRequestError,
    NotFoundError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    RecipientBlockedError,
    ResponseError,
    SendResult,
    ServerError,
    SessionChannel,
    SessionExpiredError,
    UnreadableResponseError,
    WrongCodeError,
)
from kodmobi_async._rules.exchange import MAX_BODY_BYTES, Request, Response
from kodmobi_async._rules.http_dates import date_of
from kodmobi_async._rules.refusals import outcome_of, read_error
from kodmobi_async._rules.requests import channels_request, normalize_channel, normalize_session_id, send_request
from kodmobi_async._rules.responses import read_channels, read_send
from kodmobi_async._values.assumptions import MAX_WAIT_SECONDS, SHORTEST_BLOCK, WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
OTHER = "01K8N1VMPN0EE389K72YW0CBM3"

# The documentation's own example.
EXAMPLE = b"""{
  "session_id": "01K8N1VMPN0EE389K72YW0CBM2",
  "session_expired_at": "2025-10-28T10:31:00.000Z",
  "channel": {
    "name": "Telegram", "type": "telegram", "is_active": false, "timeout": 60,
    "image_url": "https://storage.kod.mobi/icons/telegram.svg", "link": "https://t.me/my-tg-bot"
  }
}"""
TELEGRAM = SessionChannel(
    name="Telegram",
    type=Channel.TELEGRAM,
    is_active=False,
    timeout=60.0,
    image_url="https://storage.kod.mobi/icons/telegram.svg",
    link="https://t.me/my-tg-bot",
)
ENDS = datetime(2025, 10, 28, 10, 31, tzinfo=UTC)

GONE: Any = object()


def changed(**changes: object) -> bytes:
    """Return the example with fields set, or taken away; ``channel__`` leads to the channel's."""
    body = orjson.loads(EXAMPLE)
    for name, value in changes.items():
        place, key = (body["channel"], name[9:]) if name.startswith("channel__") else (body, name)
        if value is GONE:
            del place[key]
        else:
            place[key] = value
    return orjson.dumps(body)


def read_our_send(answer: Response) -> SendResult:
    return read_send(answer, SESSION)


def ok(body: bytes, headers: Mapping[str, str] | None = None, flaw: str | None = None) -> Response:
    return Response(200, headers or {}, body, flaw)


def refusal(status: int, body: object = None, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def rejected(reader: Callable[[Response], object], answer: Response) -> UnreadableResponseError:
    with pytest.raises(UnreadableResponseError) as caught:
        reader(answer)
    error = caught.value
    assert error.outcome is Outcome.ACCEPTED
    # a decoding error holds the whole body
    assert error.__context__ is None
    assert error.__cause__ is None
    return error


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [Channel.SMS, "sms"])
def test_a_send_is_the_documented_post(channel: str) -> None:
    assert send_request(SESSION, channel) == Request(
        "POST", "/send", b'{"session_id":"01K8N1VMPN0EE389K72YW0CBM2","type":"sms"}'
    )


def test_channels_are_asked_for_with_or_without_a_session() -> None:
    assert channels_request(None) == Request("GET", "/channels")
    assert channels_request(SESSION) == Request("GET", "/channels?session_id=01K8N1VMPN0EE389K72YW0CBM2")


@pytest.mark.parametrize(
    ("given_id", "canonical"),
    [
        (SESSION, SESSION),
        (ULID.from_str(SESSION), SESSION),
        (SESSION.lower(), SESSION),
        ("01k8n1vMPN0ee389K72yw0cbm2", SESSION),
        ("OiK8NLvmpnoEE389K72YWoCBM2", SESSION),
        ("olk8nIvmpnOee389k72ywOcbm2", SESSION),
        ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
        ("0" * 26, "0" * 26),
        ("o" * 26, "0" * 26),
        ("l" * 26, "1" * 26),
    ],
)
def test_a_session_id_has_one_canonical_spelling(given_id: ULID | str, canonical: str) -> None:
    assert normalize_session_id(given_id) == canonical


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        SESSION[:-1],
        SESSION + "0",
        SESSION + "\n",
        " " + SESSION[:-1],
        SESSION[:-1] + " ",
        SESSION[:-1] + "\n",
        SESSION[:-1] + "\x00",
        SESSION[:-1] + "U",
        SESSION[:-1] + "u",
        SESSION[:-1] + "-",
        SESSION[:-1] + '"',
        SESSION[:-1] + "&",
        "8" + SESSION[1:],
        "Z" + SESSION[1:],
        SESSION[:-1] + "\N{LATIN SMALL LETTER DOTLESS I}",
        SESSION[:-1] + "\N{LATIN SMALL LETTER LONG S}",
        SESSION[:-1] + "\N{KELVIN SIGN}",
        SESSION[:-1] + "\N{FULLWIDTH DIGIT TWO}",
        SESSION[:-1] + "\N{ARABIC-INDIC DIGIT TWO}",
        SESSION[:-1] + "\N{SUPERSCRIPT TWO}",
        SESSION[:-2] + "\N{LATIN SMALL LETTER SHARP S}",
        SESSION[:-1] + "\ud800",
        "01932619-d2d7-0399-a1a6-671780c5e882",
        "sk_live_a_secret_put_wrong",
        SESSION * 100_000,
    ],
)
def test_what_is_no_ulid_is_refused_without_being_repeated(wrong: str) -> None:
    with pytest.raises(InvalidRequestError, match="not a ULID") as caught:
        normalize_session_id(wrong)
    error = caught.value
    assert error.outcome is Outcome.NOT_SENT
    assert not wrong.strip() or wrong not in f"{error} {error!r}"
    assert f"(got {len(wrong)} characters)" in str(error)
    assert len(str(error)) < 200


@pytest.mark.parametrize("wrong", [None, 1, 1.5, True, SESSION.encode(), [SESSION], object()])
def test_a_session_id_or_channel_of_another_type_is_refused_by_the_name_of_its_type(wrong: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"session_id must be .* not {type(wrong).__name__}") as caught:
        normalize_session_id(wrong)
    assert SESSION not in str(caught.value)
    with pytest.raises(InvalidRequestError, match=f"channel must be .* not {type(wrong).__name__}") as caught:
        normalize_channel(wrong)
    assert SESSION not in str(caught.value)


@given(st.text(max_size=40) | st.text("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=26))
def test_every_text_is_one_canonical_ulid_or_refused(text: str) -> None:
    try:
        canonical = normalize_session_id(text)
    except InvalidRequestError:
        return
    assert normalize_session_id(canonical) == canonical
    assert str(ULID.from_str(canonical)) == canonical
    assert len(text) == 26


@given(st.binary(min_size=16, max_size=16).map(ULID), st.data())
def test_every_spelling_of_a_ulid_leads_to_the_same_one(ulid: ULID, data: st.DataObject) -> None:
    looks = {"0": "0oO", "1": "1iIlL"}
    spelling = "".join(data.draw(st.sampled_from(looks.get(char, char + char.lower()))) for char in str(ulid))
    assert normalize_session_id(spelling) == str(ulid) == normalize_session_id(ulid)


@pytest.mark.parametrize("channel", list(Channel))
def test_a_documented_channel_is_known_in_any_case(channel: Channel) -> None:
    for spelling in (channel, channel.value, channel.value.upper(), channel.value.title()):
        assert normalize_channel(spelling) is channel


@pytest.mark.parametrize("name", ["viber", "push", "sms2", "SMS.v2", "x", "7", "a_b-c.d", "x" * 64, "Viber"])
def test_any_other_channel_name_passes_as_it_is(name: str) -> None:
    assert normalize_channel(name) == name


def test_a_channel_of_a_users_own_enum_goes_out_by_its_value() -> None:
    class Ours(str, Enum):  # noqa: UP042 as users wrote them before there was StrEnum
        KNOWN = "SMS"
        OTHER = "push"

    assert normalize_channel(Ours.KNOWN) is Channel.SMS
    assert send_request(SESSION, normalize_channel(Ours.OTHER)) == send_request(SESSION, "push")


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        " ",
        " sms",
        "sms ",
        "sms\n",
        "sms\r\nx-api-key: y",
        "s\x00ms",
        "s\tms",
        "sms\x7f",
        "sms\x85",
        "sms,email",
        "sms/email",
        'sms"',
        ".sms",
        "-sms",
        "_sms",
        "x" * 65,
        "x" * 10_000,
        "\N{LATIN SMALL LETTER LONG S}ms",
        "sm\N{FULLWIDTH LATIN SMALL LETTER S}",
        "whats\N{ZERO WIDTH SPACE}app",
        "\N{CYRILLIC SMALL LETTER ES}\N{CYRILLIC SMALL LETTER EM}\N{CYRILLIC SMALL LETTER ES}",
        "sms\N{FULLWIDTH DIGIT TWO}",
        "sms\ud800",
    ],
)
def test_what_is_no_channel_name_is_refused_without_being_repeated(wrong: str) -> None:
    with pytest.raises(InvalidRequestError, match="channel is not a channel name") as caught:
        normalize_channel(wrong)
    error = caught.value
    assert error.outcome is Outcome.NOT_SENT
    assert not wrong.strip() or wrong not in f"{error} {error!r}"
    assert f"(got {len(wrong)} characters)" in str(error)


@given(st.text(max_size=70) | st.text(printable, max_size=10))
def test_every_text_is_a_stable_channel_name_or_refused(text: str) -> None:
    try:
        channel = normalize_channel(text)
    except InvalidRequestError:
        return
    assert channel.lower() == text.lower()
    assert normalize_channel(channel) == channel
    assert channel.isascii()


# -- answers ----------------------------------------------------------------------------------------------------------


def test_the_documentations_example_is_read_in_the_documentations_words() -> None:
    result = read_send(ok(EXAMPLE), SESSION)
    assert result == SendResult(ULID.from_str(SESSION), ENDS, TELEGRAM, attempts=1, confirmed=False)
    assert isinstance(result.channel.type, Channel)
    assert isinstance(result.channel.timeout, float)


@pytest.mark.parametrize("value", [60, "shared", None, True])
def test_what_the_client_itself_adds_to_a_result_is_not_read_from_an_answer(value: object) -> None:
    body = orjson.loads(EXAMPLE) | {"attempts": value, "confirmed": value, "window": value}
    result = read_send(ok(orjson.dumps(body)), SESSION)
    assert (result.attempts, result.confirmed, result.window) == (1, False, "local")


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_every_2xx_is_read_alike(status: int) -> None:
    assert read_send(Response(status, {}, EXAMPLE), SESSION).channel == TELEGRAM


def test_unknown_fields_are_no_one_s_business() -> None:
    body = changed(more={"deep": [1, {"er": None}]}, channel__more=[1], channel__description="by bot")
    assert read_send(ok(body), SESSION).channel.description == "by bot"


def test_a_channel_without_a_description_or_with_null_has_none() -> None:
    assert read_send(ok(EXAMPLE), SESSION).channel.description is None
    assert read_send(ok(changed(channel__description=None)), SESSION).channel.description is None


def test_of_a_field_given_twice_the_last_counts() -> None:
    body = EXAMPLE.replace(b'"timeout": 60', b'"timeout": "x", "timeout": 7')
    assert read_send(ok(body), SESSION).channel.timeout == 7.0


def test_an_unknown_channel_stays_the_string_it_is() -> None:
    assert read_send(ok(changed(channel__type="pigeon")), SESSION).channel.type == "pigeon"
    assert read_send(ok(changed(channel__type="Telegram")), SESSION).channel.type == "Telegram"
    assert read_send(ok(changed(channel__type="")), SESSION).channel.type == ""


def test_a_session_id_in_another_spelling_is_read_as_the_same_session() -> None:
    assert read_send(ok(changed(session_id=SESSION.lower())), SESSION).session_id == ULID.from_str(SESSION)


@pytest.mark.parametrize("spelling", [str.upper, str.lower])
def test_an_answer_that_names_another_session_is_not_read(spelling: Callable[[str], str]) -> None:
    for channel in (orjson.loads(EXAMPLE)["channel"], None):  # whatever else it holds
        with pytest.raises(OutcomeUnknownError):
            read_send(ok(changed(session_id=spelling(OTHER), channel=channel)), SESSION)


@pytest.mark.parametrize("seconds", [0, 1, 59.5, 60, 61, 3600, 86_400])
def test_a_channels_timeout_is_believed_up_to_a_day(seconds: float) -> None:
    assert read_send(ok(changed(channel__timeout=seconds)), SESSION).channel.timeout == seconds


FIELDS = (
    "session_id",
    "session_expired_at",
    "channel",
    *(f"channel__{name}" for name in ("name", "type", "is_active", "timeout", "image_url", "link")),
)
NO_STRING: tuple[object, ...] = (GONE, None, True, 1, 1.5, [], {}, ["x"])
WRONG: dict[str, tuple[object, ...]] = {
    "session_id": (*NO_STRING, "", "x", SESSION[:-1], SESSION + "\n", "8" + SESSION[1:]),
    "session_expired_at": (GONE, True, 1, 1_761_647_460, 1.5, [], {}),
    "channel": (GONE, None, True, 1, 1.5, "telegram", "", [], {}, [["name", "x"]]),
    "channel__name": NO_STRING,
    "channel__type": NO_STRING,
    "channel__is_active": (GONE, None, 0, 1, "true", "", [], {}),
    "channel__timeout": (GONE, None, True, False, "60", "NaN", "", -1, -0.001, 86_400.1, 1e300, 10**18, [], {}),
    "channel__image_url": NO_STRING,
    "channel__link": NO_STRING,
    "channel__description": NO_STRING[2:],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in WRONG.items() for value in values],
    ids=lambda value: "gone" if value is GONE else repr(value)[:20],
)
def test_a_field_that_is_missing_or_wrong_makes_an_accepted_answer_unreadable(field: str, value: object) -> None:
    error = rejected(read_our_send, ok(changed(**{field: value})))
    assert str(error) == "the service said HTTP 200, but its response cannot be read: it is not the documented shape"


def test_every_field_has_its_wrong_values() -> None:
    assert set(FIELDS) | {"channel__description"} == set(WRONG)


SHAPE, JSON = "it is not the documented shape", "it is not JSON"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", JSON),
        (b" \n", JSON),
        (b"{", JSON),
        (b"OK", JSON),
        (b"<html><body>It works!</body></html>", JSON),
        (EXAMPLE[:-1], JSON),
        (EXAMPLE + b"}", JSON),
        (EXAMPLE + EXAMPLE, JSON),
        (b"\xef\xbb\xbf" + EXAMPLE, JSON),
        (EXAMPLE.decode().encode("utf-16"), JSON),
        (EXAMPLE.replace(b"Telegram", b"\xff\xfe"), JSON),
        (EXAMPLE.replace(b"Telegram", b"\xed\xa0\x80"), JSON),
        (EXAMPLE.replace(b"Telegram", b"\\ud800"), JSON),
        (EXAMPLE.replace(b"Telegram", b"\n"), JSON),
        (EXAMPLE.replace(b"60", b"NaN"), JSON),
        (EXAMPLE.replace(b"60", b"Infinity"), JSON),
        (EXAMPLE.replace(b"60", b"1e400"), JSON),
        (EXAMPLE.replace(b"60", b"9" * 5_000), JSON),
        (EXAMPLE.replace(b"60", b"-" + b"9" * 5_000), JSON),
        (EXAMPLE.replace(b"60", b"9" * 300), SHAPE),
        (b"[" * 100_000, JSON),
        (b"[" * 100_000 + b"]" * 100_000, JSON),
        (b'{"channel":' * 100_000 + b"1" + b"}" * 100_000, JSON),
        (EXAMPLE.replace(b"60", b"[" * 500 + b"]" * 500), SHAPE),
        (b"null", SHAPE),
        (b"true", SHAPE),
        (b"0", SHAPE),
        (b'"' + b"x" * 200_000 + b'"', SHAPE),
        (b"[]", SHAPE),
        (b"[" + EXAMPLE + b"]", SHAPE),
        (b"{}", SHAPE),
        (b'{"success":false,"error":"no","status":404,"sys_message":"ERROR_MESSAGE_NOT_FOUND"}', SHAPE),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_hostile_body_leaves_the_send_accepted_and_its_answer_unreadable(body: bytes, reason: str) -> None:
    error = rejected(read_our_send, ok(body))
    assert str(error) == f"the service said HTTP 200, but its response cannot be read: {reason}"


def test_a_body_that_did_not_come_through_is_unreadable_and_says_why() -> None:
    error = rejected(read_our_send, Response(202, {}, EXAMPLE, "it is longer than 262144 bytes"))
    assert str(error) == ("the service said HTTP 202, but its response cannot be read: it is longer than 262144 bytes")
    rejected(read_channels, ok(b"[]", flaw="the answer's body is broken"))


def test_huge_strings_are_read() -> None:
    name = "x" * (MAX_BODY_BYTES - len(EXAMPLE))
    assert read_send(ok(changed(channel__name=name)), SESSION).channel.name == name


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(WRONG)), JSON_VALUES)
def test_whatever_json_a_field_holds_the_answer_is_read_or_unreadable(field: str, value: object) -> None:
    answer = ok(changed(**{field: value}))
    try:
        result = read_send(answer, SESSION)
    except (OutcomeUnknownError, UnreadableResponseError):
        return
    assert 0 <= result.channel.timeout <= MAX_WAIT_SECONDS
    assert result.session_expired_at is None or result.session_expired_at.tzinfo is UTC


@given(st.binary(max_size=200) | JSON_VALUES.map(orjson.dumps))
def test_whatever_bytes_come_are_read_or_unreadable(body: bytes) -> None:
    for reader in (read_our_send, read_channels):
        try:
            reader(ok(body))
        except OutcomeUnknownError:
            assert SESSION.encode() not in body
        except UnreadableResponseError as error:
            assert error.__context__ is None  # noqa: PT017 that it is raised is not the point
    for status in (302, 400, 429, 503):
        read_error(Response(status, {}, body))


@pytest.fixture(params=["UTC0", "NST3:30NDT,M3.2.0,M11.1.0", "LINT-14"])
def _local_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_local_zone")
@pytest.mark.parametrize(
    ("given_end", "moment"),
    [
        (None, None),
        ("2025-10-28T10:31:00.000Z", ENDS),
        ("2025-10-28T10:31:00Z", ENDS),
        ("2025-10-28T10:31:00", ENDS),
        ("2025-10-28 10:31:00", ENDS),
        ("2025-10-28T10:31", ENDS),
        ("20251028T103100Z", ENDS),
        ("2025-10-28T13:31:00+03:00", ENDS),
        ("2025-10-28T13:31:00+0300", ENDS),
        ("2025-10-28T00:31:00-10", ENDS),
        ("2025-10-28T10:31:00.123456789Z", ENDS.replace(microsecond=123_456)),
        ("2025-10-28", datetime(2025, 10, 28, tzinfo=UTC)),
        ("", None),
        ("soon", None),
        ("1761647460", None),
        ("2025-02-30T00:00:00Z", None),
        ("2025-10-28T10:31:60Z", None),
        ("2025-10-28T10:31:00+25:00", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-00:01", None),
        ("100000-01-01T00:00:00Z", None),
        ("Tue, 28 Oct 2025 10:31:00 GMT", None),
        ("\N{FULLWIDTH DIGIT TWO}025-10-28T10:31:00Z", None),
        ("9" * 5_000, None),
    ],
)
def test_the_sessions_end_is_an_aware_moment_or_unknown(given_end: str | None, moment: datetime | None) -> None:
    read = read_send(ok(changed(session_expired_at=given_end)), SESSION).session_expired_at
    assert read == moment
    assert read is None or read.tzinfo is UTC


@given(
    st.text() | st.datetimes().map(str) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d)?")
)
def test_no_text_for_the_sessions_end_makes_an_answer_unreadable(text: str) -> None:
    read = read_send(ok(changed(session_expired_at=text)), SESSION).session_expired_at
    assert read is None or read.tzinfo is UTC


@pytest.mark.parametrize(
    ("date", "left"),
    [
        ("Tue, 28 Oct 2025 10:28:00 GMT", 180.0),
        ("Tue, 28 Oct 2025 10:31:00 GMT", 0.0),
        ("Tue, 28 Oct 2025 10:31:30 GMT", -30.0),
        ("Tuesday, 28-Oct-25 10:30:59 GMT", 1.0),
        ("Tue Oct 28 10:30:00 2025", 60.0),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_what_is_left_of_a_session_is_counted_by_the_services_own_clock(date: str | None, left: float | None) -> None:
    answer = ok(EXAMPLE, {} if date is None else {"Date": date})
    assert read_send(answer, SESSION).expires_in == left


def test_nothing_is_known_of_a_session_without_an_end() -> None:
    answer = ok(changed(session_expired_at=None), {"Date": "Tue, 28 Oct 2025 10:28:00 GMT"})
    assert read_send(answer, SESSION).expires_in is None
    assert date_of(answer.headers) == ENDS - timedelta(minutes=3)


def test_channels_are_read_in_their_order() -> None:
    sms = b'{"name":"SMS","type":"sms","is_active":true,"timeout":0,"image_url":"","link":"","description":"text"}'
    telegram = orjson.dumps(orjson.loads(EXAMPLE)["channel"])
    assert read_channels(ok(b"[" + telegram + b"," + sms + b"]")) == (
        TELEGRAM,
        SessionChannel("SMS", Channel.SMS, True, 0.0, "", "", "text"),
    )
    assert read_channels(ok(b"[]")) == ()


@pytest.mark.parametrize(
    "body", [b"", b"{}", EXAMPLE, b"null", b'"x"', b"[1]", b'["telegram"]', b"[null]", b"[{}]", b"[[]]"]
)
def test_what_is_no_list_of_channels_is_unreadable(body: bytes) -> None:
    rejected(read_channels, ok(body))


# -- errors -----------------------------------------------------------------------------------------------------------

BY_STATUS: dict[int, type[ResponseError]] = {
    302: ResponseError,
    400: BadRequestError,
    401: AuthenticationError,
    402: BalanceError,
    403: AuthenticationError,
    404: NotFoundError,
    405: ResponseError,
    408: ResponseError,
    409: ResponseError,
    410: SessionExpiredError,
    413: BadRequestError,
    418: ResponseError,
    421: ResponseError,
    422: BadRequestError,
    425: ResponseError,
    429: RateLimitedError,
    499: ResponseError,
    500: ServerError,
    502: ServerError,
    503: ServerError,
    504: ServerError,
    599: ServerError,
}
BY_CODE: dict[str, type[ResponseError]] = {
    "ERROR_PROJECT_HAS_NO_CHANNELS": ChannelUnavailableError,
    "ERROR_PROJECT_HAS_NO_CHANNEL": ChannelUnavailableError,
    "ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL": ChannelUnavailableError,
    "ERROR_CHANNEL_NOT_ALLOWED_COUNTRY": ChannelUnavailableError,
    "ERROR_SESSION_EXPIRED": SessionExpiredError,
    "ERROR_MESSAGE_WRONG_CODE": WrongCodeError,
    "ERROR_PHONE_BLOCKED": RecipientBlockedError,
    "ERROR_BLOCKED": RecipientBlockedError,
    "ERROR_CHALLENGE": ChallengeError,
    "ERROR_BAD_REQUEST": BadRequestError,
    "ERROR_WRONG_BALANCE": BalanceError,
    "ERROR_ACCESS_DENIED": AuthenticationError,
    "ERROR_MESSAGE_NOT_FOUND": NotFoundError,
}


def response_error(answer: Response) -> ResponseError:
    error = read_error(answer, session_id=SESSION, channel="sms")
    assert isinstance(error, ResponseError)
    return error


@pytest.mark.parametrize("status", BY_STATUS)
@pytest.mark.parametrize("code", BY_CODE)
def test_the_services_code_decides_over_the_status(code: str, status: int) -> None:
    error = response_error(refusal(status, {"sys_message": code, "error": "Words."}))
    assert type(error) is BY_CODE[code]
    assert (error.status, error.sys_message, error.message) == (status, code, "Words.")
    assert error.outcome is outcome_of(status)
    # the words are the service's, what to do about it is ours
    assert str(error).startswith(f"HTTP {status} {code}: Words. (")
    assert str(error).endswith(")")


@pytest.mark.parametrize(("status", "kind"), BY_STATUS.items())
@pytest.mark.parametrize("code", ["ERROR_BRAND_NEW", "error_blocked", "BLOCKED", "x"])
def test_an_unknown_code_survives_and_leaves_the_decision_to_the_status(
    code: str, status: int, kind: type[ResponseError]
) -> None:
    error = response_error(refusal(status, {"sys_message": code}))
    assert type(error) is kind
    assert (error.status, error.sys_message, error.message) == (status, code, None)
    assert str(error) == f"HTTP {status} {code}"
    assert error.outcome is outcome_of(status)


@pytest.mark.parametrize(("status", "kind"), BY_STATUS.items())
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"ERROR_BLOCKED"',
        b"{",
        b"\xff",
        b"<h1>502 Bad Gateway</h1>",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5_000,
        b'{"sys_message": "ERROR_BLOCKED"',
    ],
    ids=lambda body: repr(body)[:12],
)
def test_without_a_readable_envelope_the_status_alone_speaks(
    body: bytes, status: int, kind: type[ResponseError]
) -> None:
    error = response_error(refusal(status, body))
    assert type(error) is kind
    assert (error.status, error.sys_message, error.message, error.retry_after) == (status, None, None, None)
    assert str(error) == f"HTTP {status}"
    assert error.__context__ is None


@pytest.mark.parametrize("wrong", [None, 7, True, [], {}, ["ERROR_BLOCKED"], "", " ", "\n\x00"])
def test_an_envelope_of_wrong_types_says_nothing(wrong: object) -> None:
    error = response_error(refusal(400, {"sys_message": wrong, "message": wrong, "error": wrong}))
    assert type(error) is BadRequestError
    assert (error.sys_message, error.message) == (None, None)
    assert str(error) == "HTTP 400"


@pytest.mark.parametrize(
    ("envelope", "message"),
    [
        ({"error": "Message not found."}, "Message not found."),
        ({"message": "Message not found."}, "Message not found."),
        ({"message": "this", "error": "that"}, "this"),
        ({"message": "", "error": "that"}, "that"),
        ({"message": None, "error": "that"}, "that"),
        ({"message": {"text": "x"}, "error": "that"}, "that"),
        ({"message": "Нет такого."}, "Нет такого."),
        ({"success": False, "error": "x", "error_params": {"y": 1}, "status": 500}, "x"),
    ],
)
def test_the_services_words_are_found_wherever_the_envelope_keeps_them(
    envelope: dict[str, object], message: str
) -> None:
    error = response_error(refusal(404, envelope))
    assert error.message == message
    assert error.status == 404
    assert str(error) == f"HTTP 404: {message}"


def test_the_services_words_are_made_fit_for_one_line() -> None:
    hostile = "a\r\nb\x1b[31mc\x00d\u2028e\u202ef\x85g\tend\x9b"
    error = response_error(refusal(404, {"error": hostile, "sys_message": f"\n{hostile}\n"}))
    assert error.message == error.sys_message == "a  b [31mc d e f g end"
    assert str(error).isprintable()


@pytest.mark.parametrize("length", [299, 300, 301, 200_000])
def test_the_services_words_are_cut_to_a_bearable_length(length: int) -> None:
    error = response_error(refusal(404, {"error": "x" * length, "sys_message": "Y" * length}))
    assert error.message == "x" * min(length, 300)
    assert error.sys_message == "Y" * min(length, 300)


@given(st.text() | st.text(st.characters(categories=("Cc", "Cf", "Zl", "Zp", "Zs"))))
def test_no_words_of_the_service_can_break_a_line(words: str) -> None:
    envelope = orjson.dumps({"error": words, "sys_message": words}) if _encodable(words) else b""
    error = read_error(Response(400, {}, envelope))
    assert str(error).isprintable()
    assert len(str(error)) < 800


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


TOO_SOON = {"sys_message": "ERROR_MESSAGE_ATTEMPT", "error": "Relax, take your time."}


@pytest.mark.parametrize("status", range(400, 500))
def test_too_soon_is_a_cooldown_under_every_4xx(status: int) -> None:
    error = read_error(refusal(status, TOO_SOON, Retry_After="17"), session_id=SESSION, channel="sms")
    assert isinstance(error, CooldownError)
    assert (error.retry_after, error.session_id, error.channel) == (17.0, SESSION, "sms")
    assert error.outcome is Outcome.REFUSED
    assert "too soon for sms; try again in 17.0 s" in str(error)
    assert SESSION not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, WINDOW),
        ({"Retry-After": "soon"}, WINDOW),
        ({"Retry-After": "-1"}, WINDOW),
        ({"Retry-After": "0"}, SHORTEST_BLOCK),
        ({"Retry-After": "61"}, 61.0),
        ({"Retry-After": "999999"}, MAX_WAIT_SECONDS),
        ({"Retry-After": "Tue, 28 Oct 2025 10:31:00 GMT", "Date": "Tue, 28 Oct 2025 10:30:30 GMT"}, 30.0),
        ({"Retry-After": "Tue, 28 Oct 2025 10:31:00 GMT", "Date": "Tue, 28 Oct 2025 10:31:30 GMT"}, SHORTEST_BLOCK),
        # without a Date, or with a broken one, the wall clock serves: it is later than 2025
        ({"Retry-After": "Tue, 28 Oct 2025 10:31:00 GMT"}, SHORTEST_BLOCK),
        ({"Retry-After": "Tue, 28 Oct 2025 10:31:00 GMT", "Date": "x"}, SHORTEST_BLOCK),
    ],
)
def test_too_soon_lasts_as_long_as_the_service_says_else_a_window(headers: dict[str, str], seconds: float) -> None:
    error = read_error(Response(429, headers, orjson.dumps(TOO_SOON)), session_id=SESSION, channel="sms")
    assert isinstance(error, CooldownError)
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [100, 199, 300, 302, 399, 500, 502, 503, 504, 599])
def test_too_soon_is_not_believed_outside_4xx(status: int) -> None:
    error = response_error(refusal(status, TOO_SOON, Retry_After="17"))
    assert type(error) is (ServerError if status >= 500 else ResponseError)
    assert (error.sys_message, error.retry_after) == ("ERROR_MESSAGE_ATTEMPT", 17.0)
    assert error.outcome is outcome_of(status)


@pytest.mark.parametrize("code", [None, "ERROR_MESSAGE_ATTEMPTS", "error_message_attempt"])
def test_a_429_without_the_code_is_a_limit_of_the_account(code: str | None) -> None:
    error = response_error(refusal(429, {"sys_message": code}, Retry_After="5"))
    assert type(error) is RateLimitedError
    assert error.retry_after == 5.0


def test_every_status_has_exactly_one_outcome() -> None:
    outcomes = {status: outcome_of(status) for status in range(100, 600)}
    accepted = {status for status, outcome in outcomes.items() if outcome is Outcome.ACCEPTED}
    refused = {status for status, outcome in outcomes.items() if outcome is Outcome.REFUSED}
    assert accepted == set(range(200, 300))
    assert refused == {*range(400, 500), 503}
    assert {outcomes[status] for status in {*outcomes} - accepted - refused} == {Outcome.UNKNOWN}
