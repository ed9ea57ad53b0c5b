"""Results and errors as plain values: for JSON, for pydantic, and as what a web service returns."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import fastapi
import httpx
import orjson
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_errors import TREE, made
from ulid import ULID

from kodmobi_async import (
    AuthenticationError,
    BulkStoppedError,
    ChallengeSettings,
    Channel,
    CheckResult,
    CodeFormat,
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    InvalidRequestError,
    KodmobiClient,
    KodmobiError,
    LimitsUnavailableError,
    Outcome,
    OutcomeUnknownError,
    ProjectSettings,
    RateLimitedError,
    ResponseError,
    SendInterruptedError,
    SendOutcome,
    SendRequest,
    SendResult,
    ServerError,
    Session,
    SessionChannel,
    TransportError,
    VerifiedUser,
)
from kodmobi_async._values.plain import Plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kodmobi_async.emulator import Emulator

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
TELEGRAM = SessionChannel("Telegram", Channel.TELEGRAM, is_active=True, timeout=60.0, image_url="i", link="l")
VIBER = SessionChannel("Viber", "viber", is_active=False, timeout=0.0, image_url="", link="", description="by bot")
ENDS = datetime(2025, 10, 28, 10, 31, tzinfo=UTC)
SENT = SendResult(ULID.from_str(SESSION), ENDS, TELEGRAM, expires_in=60.0, request_id="abc")
RESULTS: list[Plain] = [
    TELEGRAM,
    VIBER,
    SENT,
    SendResult(ULID.from_str(SESSION), None, VIBER, attempts=2, confirmed=True, window="shared"),
    Session(ULID.from_str(SESSION), ENDS, Channel.SMS, (TELEGRAM, VIBER)),
    Session(ULID.from_str(SESSION), None, "viber", (), confirmed=True),
    Session(ULID.from_str(SESSION), None, None, (VIBER,)),
    CheckResult("token", is_test=True),
    VerifiedUser("+14155550123", "abc"),
    ProjectSettings("en", "Shop", CodeFormat(6, digits=True, letters=False), ChallengeSettings(enabled=False)),
    CodeFormat(4, digits=True, letters=True),
    ChallengeSettings(enabled=True, api_key="site"),
    SendRequest(SESSION, "sms"),
    SendOutcome(SendRequest(SESSION, "sms"), SENT),
]
each_error = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
each_result = pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)


def test_every_class_of_results_is_tried() -> None:
    assert {type(result) for result in RESULTS} == set(Plain.__subclasses__())


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_a_result_is_told_in_the_words_of_the_api() -> None:
    assert SENT.to_dict() == {
        "session_id": SESSION,
        "session_expired_at": "2025-10-28T10:31:00+00:00",
        "channel": {
            "name": "Telegram",
            "type": "telegram",
            "is_active": True,
            "timeout": 60.0,
            "image_url": "i",
            "link": "l",
            "description": None,
        },
        "attempts": 1,
        "confirmed": False,
        "window": "local",
        "expires_in": 60.0,
        "request_id": "abc",
    }
    assert type(SENT.to_dict()["channel"]["type"]) is str


@each_result
def test_json_takes_what_a_result_is_turned_into(result: Plain) -> None:
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain == dict(result)
    assert orjson.loads(orjson.dumps([result], default=lambda value: value.to_dict())) == [plain]
    assert set(plain) == {field.name for field in attrs.fields(type(result))}  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        result["no field"]


@each_result
def test_a_result_is_not_taken_for_a_collection(result: Plain) -> None:
    assert not issubclass(type(result), Iterable)
    with pytest.raises(TypeError, match="not iterable"):
        list(result)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] that is the point


async def test_a_request_in_place_of_a_list_of_them_is_refused(client: KodmobiClient) -> None:
    with pytest.raises(ConfigurationError, match="iterable"):
        client.send_many(SendRequest(SESSION, "sms"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] as above


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (ENDS, "2025-10-28T10:31:00+00:00"),
        (datetime(2025, 10, 28, 13, 31, tzinfo=timezone(timedelta(hours=3))), "2025-10-28T10:31:00+00:00"),
        (datetime(2025, 10, 28, 10, 31), "2025-10-28T10:31:00+00:00"),  # noqa: DTZ001 as the service might write it
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=3))), "0001-01-01T00:00:00+03:00"),
    ],
    ids=["UTC", "another offset", "none", "out of range in UTC"],
)
def test_a_time_is_in_utc(moment: datetime, text: str) -> None:
    assert attrs.evolve(SENT, session_expired_at=moment).to_dict()["session_expired_at"] == text


@each_error
def test_an_error_is_not_taken_for_a_collection(kind: type[KodmobiError]) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(made(kind))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] as above


def test_what_json_has_no_number_for_is_null() -> None:
    for number in (math.inf, -math.inf, math.nan):
        assert attrs.evolve(SENT, expires_in=number).to_dict()["expires_in"] is None


@each_error
def test_json_takes_what_an_error_is_turned_into(kind: type[KodmobiError]) -> None:
    error = made(kind, Outcome.UNKNOWN)
    error.add_note("for people")
    plain = error.to_dict()
    assert json.loads(json.dumps(plain)) == plain == dict(error)
    assert (plain["error"], plain["outcome"], plain["text"]) == (kind.__name__, "unknown", "x")
    attributes = {"cause" if name == "error" else name for name in vars(error) if name[0] != "_"}
    assert set(plain) - {"error", "text", "retryable", "available_at"} == attributes
    assert ("available_at" in plain) is issubclass(kind, CooldownError)


def test_an_error_that_stopped_a_run_tells_of_its_cause() -> None:
    cause = AuthenticationError("wrong key", status=401)
    plain = BulkStoppedError("stopped", done=7, error=cause).to_dict()
    assert plain["cause"] == cause.to_dict()
    assert (plain["error"], plain["done"]) == ("BulkStoppedError", 7)


def test_a_failed_request_of_many_is_told_with_its_error() -> None:
    error = CooldownError("too soon", retry_after=7.0, session_id=SESSION, channel="sms")
    plain = SendOutcome(SendRequest(ULID.from_str(SESSION), Channel.SMS), error=error).to_dict()
    assert plain["request"] == {"session_id": SESSION, "channel": "sms"}
    assert plain["result"] is None
    assert plain["error"] == error.to_dict()


class QuotaError(CooldownError):
    """A user's own."""

    def __init__(self) -> None:
        super().__init__("slow down", retry_after=3.0, session_id=SESSION, channel="sms")
        self.error = TransportError("no route")
        self.since = {ENDS.date(): [ENDS, Outcome.UNKNOWN, (SENT,)], 5: {Channel.SMS}}
        self.left = Priority(3)
        self.rate = Decimal("0.5")
        self.kind = SendResult
        self._secret = "hush"
        self.add_note("hush")


class Priority(int):
    pass


def test_a_users_own_kind_of_error_is_told_with_what_it_adds_and_without_what_it_hides() -> None:
    error = QuotaError()
    plain = error.to_dict()
    assert json.loads(json.dumps(plain)) == plain == json.loads(orjson.dumps(error, default=lambda it: it.to_dict()))
    assert plain == {
        "error": "QuotaError",
        "outcome": "not_sent",
        "retryable": True,
        "text": "slow down",
        "retry_after": 3.0,
        "session_id": SESSION,
        "channel": "sms",
        "available_at": error.available_at.isoformat(),
        "cause": error.error.to_dict(),
        "since": {"2025-10-28": ["2025-10-28T10:31:00+00:00", "unknown", [SENT.to_dict()]], "5": ["sms"]},
        "left": 3,
        "rate": "0.5",
        "kind": str(SendResult),
    }


def test_a_cooldown_says_when_it_ends_by_the_wall_clock() -> None:
    before = datetime.now(UTC)
    error = CooldownError("x", retry_after=7.5, session_id=SESSION, channel="sms")
    after = datetime.now(UTC)
    moment = error.available_at
    assert moment.tzinfo is UTC
    slack = timedelta(microseconds=1)
    assert before - slack <= moment - timedelta(seconds=7.5) <= after + slack
    assert moment == error.available_at == pickle.loads(pickle.dumps(error)).available_at
    assert error.to_dict()["available_at"] == moment.isoformat()
    again = CooldownError("x", retry_after=7.5, session_id=SESSION, channel="sms", available_at=ENDS)
    assert again.available_at == ENDS


# -- errors that may pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (TransportError("no route"), True),
        (CooldownError("x", retry_after=1.0, session_id=None, channel=None), True),
        (CooldownError("x", retry_after=1.0, session_id=None, channel=None, outcome=Outcome.ACCEPTED), False),
        (ServerError("x", status=503, outcome=Outcome.REFUSED), True),
        (ServerError("x", status=500, outcome=Outcome.UNKNOWN), False),
        (ServerError("x", status=500, outcome=Outcome.NOT_SENT), True),  # a read
        (ServerError("x", status=500, outcome=Outcome.REFUSED), False),
        (ResponseError("x", status=301, outcome=Outcome.NOT_SENT), False),
        (type("OurServerError", (ServerError,), {})("x", status=503), True),
        (RateLimitedError("x", status=None), True),
        (RateLimitedError("x", status=429, outcome=Outcome.UNKNOWN), False),
        (ResponseError("x", status=425), True),
        (ResponseError("x", status=418), False),
        (AuthenticationError("x", status=503), False),
        (OutcomeUnknownError("x", safe_after=60.0), False),
        (KodmobiError("x"), False),
    ],
)
def test_an_error_says_whether_the_same_call_may_succeed_later(error: KodmobiError, *, retryable: bool) -> None:
    assert error.retryable is retryable
    assert error.to_dict()["retryable"] is retryable


@each_error
def test_what_may_pass_is_decided_for_every_kind(kind: type[KodmobiError]) -> None:
    unavailable = {CooldownUnavailableError, LimitsUnavailableError, TransportError}
    passing = {CooldownError, SendInterruptedError, RateLimitedError, *unavailable}
    assert made(kind, Outcome.NOT_SENT).retryable is (kind in passing or kind is ServerError)
    if issubclass(kind, ResponseError):
        later = kind("x", status=503, outcome=Outcome.REFUSED)
        assert later.retryable is (kind in {ResponseError, ServerError, RateLimitedError})


@each_error
def test_what_may_have_been_sent_is_never_retryable(kind: type[KodmobiError]) -> None:
    for outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED):
        assert not made(kind, outcome).retryable


# -- pydantic ----------------------------------------------------------------------------------------------------------


@each_result
def test_a_result_is_a_field_of_a_model_and_comes_back_from_json(result: Plain) -> None:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type(result))
    assert adapter.validate_python(result) is result
    written = adapter.dump_json(result)
    assert json.loads(written) == result.to_dict() == adapter.dump_python(result, mode="json")
    for read in (adapter.validate_json(written), adapter.validate_python(result.to_dict())):
        assert read == result
        assert read.to_dict() == result.to_dict()
        assert type(read) is type(result)
        if isinstance(read, SendResult) and isinstance(result, SendResult):
            assert type(read.channel.type) is type(result.channel.type)
            assert read.session_expired_at is None or read.session_expired_at.tzinfo is UTC


def test_a_result_is_validated_from_objects_too() -> None:
    adapter = pydantic.TypeAdapter(SendResult)
    fields = {"session_id": SENT.session_id, "session_expired_at": ENDS, "channel": TELEGRAM, "request_id": "abc"}
    assert adapter.validate_python({**fields, "expires_in": 60, "more": "ignored"}) == SENT


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"session_id": "x"}, ("session_id",)),
        ({"session_id": SESSION.lower()}, ("session_id",)),
        ({"session_id": "8" + SESSION[1:]}, ("session_id",)),
        ({"session_id": 5}, ("session_id",)),
        ({"channel": TELEGRAM.to_dict() | {"timeout": "soon"}}, ("channel", "timeout")),
        ({"channel": TELEGRAM.to_dict() | {"timeout": math.nan}}, ("channel", "timeout")),
        ({"session_expired_at": "2025-10-28T10:31:00"}, ("session_expired_at",)),
        ({"session_expired_at": "0001-01-01T00:00:00+03:00"}, ("session_expired_at",)),
        ({"attempts": []}, ("attempts",)),
        ({"window": "global"}, ("window",)),
    ],
)
def test_a_result_of_another_shape_is_refused_with_the_place(wrong: dict[str, object], where: tuple[str, ...]) -> None:
    with pytest.raises(pydantic.ValidationError) as refused:
        pydantic.TypeAdapter(SendResult).validate_python(SENT.to_dict() | wrong)
    assert [error["loc"] for error in refused.value.errors()] == [where]


class Report(pydantic.BaseModel):
    sent: SendResult | None = None
    either: SendResult | dict[str, int] | None = None
    channels: tuple[SessionChannel, ...] = ()
    error: KodmobiError | None = None
    cooldown: CooldownError | None = None


def test_a_model_leaves_out_of_its_results_what_it_is_told_to() -> None:
    report = Report(sent=SENT, channels=(TELEGRAM, VIBER))
    written = report.model_dump(include={"sent": {"session_id": True, "channel": {"type"}}, "channels": {0: {"name"}}})
    assert written == {
        "sent": {"session_id": SESSION, "channel": {"type": "telegram"}},
        "channels": ({"name": "Telegram"},),
    }
    assert "description" not in report.model_dump(exclude_none=True)["sent"]["channel"]
    assert "attempts" not in report.model_dump(exclude_defaults=True)["sent"]


def test_a_result_is_one_choice_of_a_union() -> None:
    for either, plain in ((SENT, SENT.to_dict()), ({"a": 1}, {"a": 1})):
        written = Report(either=either).model_dump_json(include={"either"})
        assert json.loads(written) == {"either": plain}
        assert Report.model_validate_json(written).either == either


def test_what_was_put_into_a_model_unchecked_is_written_with_a_warning() -> None:
    report = Report.model_construct(sent={"a": 1})
    with pytest.warns(UserWarning, match="expected SendResult, got dict"):
        assert report.model_dump(include={"sent"}) == {"sent": {"a": 1}}


def through_json(error: KodmobiError) -> KodmobiError:
    read = Report.model_validate_json(Report(error=error).model_dump_json()).error
    assert read is not None
    return read


@each_error
@pytest.mark.parametrize("outcome", Outcome)
def test_an_error_comes_back_from_json(kind: type[KodmobiError], outcome: Outcome) -> None:
    error = made(kind, outcome)
    read = through_json(error)
    assert type(read) is kind
    assert read.to_dict() == error.to_dict()
    assert str(read) == str(error)
    assert set(vars(read)) == set(vars(error))


def test_an_outcome_with_an_error_comes_back_from_json() -> None:
    adapter = pydantic.TypeAdapter(SendOutcome)
    outcome = SendOutcome(SendRequest("no ULID", "sms"), error=InvalidRequestError("session_id is not a ULID"))
    assert adapter.validate_json(adapter.dump_json(outcome)).to_dict() == outcome.to_dict()


def test_an_error_of_a_model_is_taken_as_it_is() -> None:
    error = QuotaError()
    report = Report(error=error, cooldown=error)
    assert report.error is error is report.cooldown
    assert report.model_dump(mode="json")["cooldown"] == error.to_dict()


@pytest.mark.parametrize(
    "wrong",
    [
        {"error": TransportError("x").to_dict() | {"error": "OSError"}},
        {"error": {}},
        {"error": "TransportError"},
        {"error": QuotaError().to_dict()},  # nothing of a user's is built from what comes in
        {"cooldown": TransportError("x").to_dict()},
        {
            "error": CooldownError("x", retry_after=1.0, session_id=None, channel=None).to_dict()
            | {"retry_after": "soon"}
        },
        {"error": TransportError("x").to_dict() | {"outcome": "maybe"}},
        {"error": BulkStoppedError("x", done=1, error=KodmobiError("x")).to_dict() | {"cause": {"error": "OSError"}}},
    ],
)
def test_what_is_no_error_of_the_package_is_not_built(wrong: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Report.model_validate(wrong)


@each_result
def test_a_schema_describes_every_field(result: Plain) -> None:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type(result))
    names = set(result.to_dict())
    for mode in ("validation", "serialization"):
        document = adapter.json_schema(mode=mode)
        described = document["$defs"][type(result).__name__] if "$ref" in document else document
        assert set(described["properties"]) == names
        assert all(field["description"] for field in described["properties"].values())
        assert "``" not in json.dumps(described)
        required = {field.name for field in attrs.fields(type(result)) if field.default is attrs.NOTHING}  # type: ignore[arg-type]
        assert set(described["required"]) == (required if mode == "validation" else names)


@each_error
def test_a_schema_describes_the_numbers_of_an_error(kind: type[KodmobiError]) -> None:
    plain = made(kind).to_dict()
    described = pydantic.TypeAdapter(kind).json_schema(mode="serialization")
    assert set(described["required"]) == set(described["properties"])
    assert set(plain) - set(described["properties"]) == set()


CHANNELS = st.builds(
    SessionChannel,
    name=st.text(),
    type=st.sampled_from(Channel) | st.text().filter(lambda text: text not in set(Channel)),
    is_active=st.booleans(),
    timeout=st.floats(0, 86_400),
    image_url=st.text(),
    link=st.text(),
    description=st.none() | st.text(),
)
IDS = st.integers(0, 2**128 - 1).map(ULID.from_int)
MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))
MAYBE_TEXT = st.none() | st.text()
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "session_id": IDS,
    "session_expired_at": st.none() | MOMENTS,
    "attempts": st.integers(1, 9),
    "confirmed": st.booleans(),
    "window": st.sampled_from(("local", "shared")),
    "expires_in": st.none() | st.floats(-1e9, 1e9),
    "request_id": MAYBE_TEXT,
}
SENDS = st.builds(SendResult, channel=CHANNELS, **COMMON)
SESSIONS = st.builds(
    Session, sent_to=st.none() | CHANNELS.map(lambda one: one.type), channels=st.lists(CHANNELS).map(tuple), **COMMON
)
REQUESTS = st.builds(SendRequest, session_id=IDS | st.text(), channel=CHANNELS.map(lambda channel: channel.type))
OTHERS = [
    st.builds(CheckResult, st.text(), is_test=st.booleans(), request_id=MAYBE_TEXT),
    st.builds(VerifiedUser, st.text(), MAYBE_TEXT),
    st.builds(
        ProjectSettings,
        st.text(),
        st.text(),
        st.builds(CodeFormat, st.integers(4, 10), digits=st.booleans(), letters=st.booleans()),
        st.builds(ChallengeSettings, enabled=st.booleans(), api_key=MAYBE_TEXT),
        MAYBE_TEXT,
    ),
    st.builds(SendOutcome, REQUESTS, st.none() | SENDS),
]
ADAPTERS: dict[type[Plain], pydantic.TypeAdapter[Any]] = {
    kind: pydantic.TypeAdapter(kind) for kind in map(type, RESULTS)
}


@given(st.one_of(SENDS, SESSIONS, REQUESTS, CHANNELS, *OTHERS))
def test_every_result_survives_json_and_pickling(result: Plain) -> None:
    try:
        read = ADAPTERS[type(result)].validate_json(json.dumps(result.to_dict()))
    except pydantic.ValidationError:
        # the only times that are refused: those that no UTC date stands for
        sent = result.result if isinstance(result, SendOutcome) else result
        assert isinstance(sent, (SendResult, Session))
        assert sent.session_expired_at is not None
        assert sent.session_expired_at.year in {1, 9999}
    else:
        assert read == result
    assert pickle.loads(pickle.dumps(result)) == result


# -- FastAPI -----------------------------------------------------------------------------------------------------------


def service_of(client: KodmobiClient) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.post("/annotated/{session_id}")
    async def annotated(session_id: str) -> SendResult:
        return await client.send(session_id, "telegram")

    @app.post("/plain/{session_id}", response_model=None)
    async def plain(session_id: str):  # type: ignore[no-untyped-def] # noqa: ANN202 so it is written without types
        return await client.send(session_id, "telegram")

    @app.post("/in_a_dict/{session_id}", response_model=None)
    async def in_a_dict(session_id: str):  # type: ignore[no-untyped-def] # noqa: ANN202 as above
        return {"sent": [await client.send(session_id, "telegram")], "error": TransportError("no route")}

    @app.post("/without_nulls/{session_id}", response_model_exclude_none=True, response_model_exclude={"attempts"})
    async def without_nulls(session_id: str) -> SendResult:
        return await client.send(session_id, "telegram")

    @app.post("/many")
    async def many(requests: Annotated[list[SendRequest], fastapi.Body()]) -> list[SendOutcome]:
        return [outcome async for outcome in client.send_many(requests)]

    @app.post("/either/{session_id}", responses={429: {"model": CooldownError}})
    async def either(session_id: str) -> SendResult | CooldownError:
        try:
            return await client.send(session_id, "telegram")
        except CooldownError as error:
            return error

    @app.get("/channels/{session_id}")
    async def channels(session_id: str) -> list[SessionChannel]:
        return list(await client.channels(session_id))

    @app.get("/tuple/{session_id}")
    async def as_a_tuple(session_id: str) -> tuple[SessionChannel, ...]:
        return await client.channels(session_id)

    return app


@pytest.fixture
async def browser(client: KodmobiClient) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(service_of(client))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as browser:
        yield browser


@pytest.mark.parametrize("path", ["annotated", "plain"])
async def test_a_web_service_returns_a_result_as_it_is(
    emulator: Emulator, browser: httpx.AsyncClient, session: str, path: str
) -> None:
    response = await browser.post(f"/{path}/{session}")
    assert response.status_code == 200
    read = pydantic.TypeAdapter(SendResult).validate_json(response.content)
    assert read.to_dict() == response.json()
    assert (str(read.session_id), read.channel.type, read.channel.timeout) == (session, Channel.TELEGRAM, 60.0)
    assert read.session_expired_at is not None
    assert len(emulator.delivered(session)) == 1


async def test_a_web_service_returns_what_holds_results_and_errors(browser: httpx.AsyncClient, session: str) -> None:
    read = (await browser.post(f"/in_a_dict/{session}")).json()
    assert read["sent"][0]["session_id"] == session
    assert read["error"] == TransportError("no route").to_dict()


async def test_a_web_service_may_leave_fields_out(browser: httpx.AsyncClient, session: str) -> None:
    read = (await browser.post(f"/without_nulls/{session}")).json()
    assert "attempts" not in read
    assert read["channel"].keys() == TELEGRAM.to_dict().keys() - {"description"}


async def test_a_web_service_returns_channels_as_they_are(browser: httpx.AsyncClient, session: str) -> None:
    await browser.post(f"/annotated/{session}")
    for path in ("channels", "tuple"):
        listed = (await browser.get(f"/{path}/{session}")).json()
        assert [channel["timeout"] for channel in listed] == [60, 0, 0, 0]


async def test_a_web_service_takes_requests_and_returns_outcomes(browser: httpx.AsyncClient, session: str) -> None:
    rows = [{"session_id": session, "channel": "sms"}, {"session_id": "nobody", "channel": "sms"}]
    response = await browser.post("/many", json=rows)
    outcomes = pydantic.TypeAdapter(list[SendOutcome]).validate_json(response.content)
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [InvalidRequestError]
    (sent,) = (outcome.result for outcome in outcomes if outcome.result)
    assert str(sent.session_id) == session
    assert (await browser.post("/many", json=[{"session_id": session}])).status_code == 422


async def test_a_web_service_returns_an_error_as_it_is(browser: httpx.AsyncClient, session: str) -> None:
    await browser.post(f"/either/{session}")
    read = (await browser.post(f"/either/{session}")).json()
    assert (read["error"], read["session_id"]) == ("CooldownError", session)


def test_openapi_shows_the_documented_shape() -> None:
    document = service_of(KodmobiClient("key")).openapi()
    schemas = document["components"]["schemas"]

    def shown(path: str, method: str = "post", status: str = "200") -> Any:
        return document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]

    assert shown("/annotated/{session_id}") == {"$ref": "#/components/schemas/SendResult"}
    for path in ("/channels/{session_id}", "/tuple/{session_id}"):
        assert shown(path, "get")["items"] == {"$ref": "#/components/schemas/SessionChannel"}
    assert shown("/many")["items"] == {"$ref": "#/components/schemas/SendOutcome"}
    assert shown("/either/{session_id}", status="429") == {"$ref": "#/components/schemas/CooldownError"}
    sent = schemas["SendResult"]
    assert set(sent["required"]) == set(sent["properties"]) == {field.name for field in attrs.fields(SendResult)}
    assert sent["description"] == "A code that is on its way."
    assert sent["properties"]["session_id"]["pattern"].startswith("^[0-7]")
    assert sent["properties"]["session_id"]["examples"] == ["01K8N1VMPN0EE389K72YW0CBM2"]
    assert {"type": "string", "format": "date-time"} in sent["properties"]["session_expired_at"]["anyOf"]
    assert sent["properties"]["window"]["enum"] == ["local", "shared"]
    assert sent["properties"]["channel"]["$ref"] == "#/components/schemas/SessionChannel"
    assert schemas["SessionChannel"]["properties"]["type"]["type"] == "string"
    assert schemas["SessionChannel"]["properties"]["timeout"]["description"].startswith("Seconds until")
    assert schemas["CooldownError"]["properties"]["retry_after"]["type"] == "number"


def test_pydantic_is_imported_only_when_it_asks() -> None:
    code = (
        "import sys, kodmobi_async as k;"
        "k.SendRequest('x', 'sms').to_dict(); dict(k.SendRequest('x', 'sms')); k.TransportError('x').to_dict();"
        "print([name for name in sys.modules if name.partition('.')[0] in ('pydantic', 'pydantic_core')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=os.environ, timeout=60
    )
    assert done.stdout.strip() == "[]"
