"""Results and errors as plain values: for JSON, for pydantic, and as what a web service returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

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
    CooldownError,
    KodmobiClient,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    ProjectSettings,
    ResponseError,
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


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_json_takes_what_an_error_is_turned_into(kind: type[KodmobiError]) -> None:
    error = made(kind, Outcome.UNKNOWN)
    error.add_note("for people")
    plain = error.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["error"], plain["outcome"], plain["text"]) == (kind.__name__, "unknown", "x")
    numbers = set(vars(error)) - {"outcome", "error", "__notes__"}
    assert numbers <= set(plain)
    assert "__notes__" not in plain


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


# -- errors that may pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (TransportError("no route"), True),
        (CooldownError("x", retry_after=1.0, session_id=None, channel=None), True),
        (CooldownError("x", retry_after=1.0, session_id=None, channel=None, outcome=Outcome.ACCEPTED), False),
        (ServerError("x", status=503, outcome=Outcome.REFUSED), True),
        (ServerError("x", status=500, outcome=Outcome.UNKNOWN), False),
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


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_what_may_have_been_sent_is_never_retryable(kind: type[KodmobiError]) -> None:
    for outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED):
        assert not made(kind, outcome).retryable


# -- pydantic ----------------------------------------------------------------------------------------------------------


@each_result
def test_a_result_is_a_field_of_a_model_and_comes_back_from_json(result: Plain) -> None:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type(result))
    assert adapter.validate_python(result) is result
    written = adapter.dump_json(result)
    assert json.loads(written) == result.to_dict() == adapter.dump_python(result)
    if getattr(result, "error", None) is None:
        read = adapter.validate_json(written)
        assert read == result
        assert adapter.validate_python(result.to_dict()) == result
        if isinstance(read, SendResult):
            assert type(read.channel.type) is type(result.channel.type)


def test_a_result_of_another_shape_is_not_validated() -> None:
    adapter = pydantic.TypeAdapter(SendResult)
    good = SENT.to_dict()
    wrongs: tuple[dict[str, object], ...] = (
        {"session_id": "x"},
        {"channel": {}},
        {"session_expired_at": "2025-10-28T10:31:00"},
        {"attempts": []},
    )
    for wrong in wrongs:
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python(good | wrong)


def test_an_error_in_a_model_is_written_and_not_read() -> None:
    class Report(pydantic.BaseModel):
        error: KodmobiError | None

    error = TransportError("no route")
    assert Report(error=error).model_dump() == {"error": error.to_dict()}
    with pytest.raises(pydantic.ValidationError):
        Report.model_validate({"error": error.to_dict()})
    assert "outcome" in str(Report.model_json_schema())


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
MOMENTS = st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5, minutes=30))))
SENDS = st.builds(
    SendResult,
    session_id=st.binary(min_size=16, max_size=16).map(ULID),
    session_expired_at=st.none() | MOMENTS,
    channel=CHANNELS,
    attempts=st.integers(1, 9),
    confirmed=st.booleans(),
    window=st.sampled_from(("local", "shared")),
    expires_in=st.none() | st.floats(-1e9, 1e9),
    request_id=st.none() | st.text(),
)


@given(SENDS.filter(lambda send: int(send.session_id) < 2**125 * 8))
def test_every_send_survives_json(send: SendResult) -> None:
    adapter = pydantic.TypeAdapter(SendResult)
    assert adapter.validate_json(json.dumps(send.to_dict())) == send


# -- FastAPI -----------------------------------------------------------------------------------------------------------


def service_of(client: KodmobiClient) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.post("/annotated/{session_id}")
    async def annotated(session_id: str) -> SendResult:
        return await client.send(session_id, "telegram")

    @app.post("/plain/{session_id}", response_model=None)
    async def plain(session_id: str):  # type: ignore[no-untyped-def] # noqa: ANN202 so it is written without types
        return await client.send(session_id, "telegram")

    @app.get("/channels/{session_id}")
    async def channels(session_id: str) -> list[SessionChannel]:
        return list(await client.channels(session_id))

    return app


async def test_a_web_service_returns_results_as_they_are(emulator: Emulator, client: KodmobiClient) -> None:
    app = service_of(client)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as browser:
        for path in ("annotated", "plain"):
            session = emulator.add_session()
            response = await browser.post(f"/{path}/{session}")
            assert response.status_code == 200
            read = response.json()
            assert (read["session_id"], read["channel"]["type"]) == (session, "telegram")
            assert datetime.fromisoformat(read["session_expired_at"]).tzinfo is not None
        listed = (await browser.get(f"/channels/{session}")).json()
        assert [channel["timeout"] for channel in listed] == [60, 0, 0, 0]


def test_openapi_shows_the_documented_shape() -> None:
    document = service_of(KodmobiClient("key")).openapi()
    described = document["paths"]["/annotated/{session_id}"]["post"]["responses"]["200"]
    sent = described["content"]["application/json"]["schema"]
    assert set(sent["properties"]) == {field.name for field in attrs.fields(SendResult)}
    channel = sent["properties"]["channel"]
    assert channel["properties"]["timeout"]["description"].startswith("Seconds until")
    assert "Crockford" not in json.dumps(document)
    assert sent["properties"]["session_id"]["pattern"].startswith("^[0-7]")
    assert sent["description"] == "A code that is on its way."
    listed = document["paths"]["/channels/{session_id}"]["get"]["responses"]["200"]
    assert listed["content"]["application/json"]["schema"]["items"]["properties"].keys() == channel["properties"].keys()


def test_pydantic_is_imported_only_when_it_asks() -> None:
    code = (
        "import sys, kodmobi_async as k;"
        "k.SendRequest('x', 'sms').to_dict(); k.TransportError('x').to_dict();"
        "print([name for name in sys.modules if name.partition('.')[0] in ('pydantic', 'pydantic_core')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=os.environ, timeout=60
    )
    assert done.stdout.strip() == "[]"
