"""The emulator's control interface, as a test suite in another language would use it: HTTP and JSON."""

from __future__ import annotations

import asyncio
import base64
import inspect
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from raw_http import SESSION, UNKNOWN, Response, call, clean_emulator, connect, exchange, get, jump, request_bytes, send

from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.emulator._choices import ENDPOINTS, REFUSALS
from kodmobi_async.emulator._control._faults import describe_fault, read_fault
from kodmobi_async.emulator._control._operations import Operations
from kodmobi_async.emulator._control._schema import document, validate
from kodmobi_async.emulator._events import Event, LostEventsError, Subscription
from kodmobi_async.emulator._script import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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


@pytest.fixture
def control(emulator: Emulator, http: aiohttp.ClientSession) -> Control:
    return Control(emulator, http)


class Control:
    """The control interface of an emulator."""

    def __init__(self, emulator: Emulator, http: aiohttp.ClientSession) -> None:
        self.root = f"http://127.0.0.1:{emulator.port}/_emulator"
        self._http = http

    async def get(self, path: str) -> Response:
        return await get(self._http, f"{self.root}/{path}")

    async def post(self, path: str, body: object = None, **headers: str) -> Response:
        return await call(self._http, f"{self.root}/{path}", body, **headers)

    async def delete(self, path: str) -> Response:
        return await call(self._http, f"{self.root}/{path}", method="DELETE")


# --- deliveries -------------------------------------------------------------------------------------------------------


async def test_deliveries_show_who_got_which_code(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    emulator.add_session(SESSION, to=PHONE)
    await send(http, emulator, SESSION, "sms")
    jump(10)
    response = await control.get("deliveries")
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    (delivery,) = response.json["deliveries"]
    assert delivery.pop("at").endswith("Z")
    code = emulator.last_code(PHONE)
    assert delivery == {"id": 1, "session_id": SESSION, "to": PHONE, "channel": "sms", "code": code, "timeout": 50}


async def test_deliveries_can_be_chosen(emulator: Emulator, http: aiohttp.ClientSession, control: Control) -> None:
    one, other = emulator.add_session(SESSION, to=PHONE), emulator.add_session(to=EMAIL)
    for session_id, channel in ((one, "sms"), (one, "email"), (other, "sms")):
        await send(http, emulator, session_id, channel)
    for query, ids in (
        ("", [1, 2, 3]),
        (f"session_id={one.lower()}", [1, 2]),
        ("to=%2B14155550123", [1, 2]),
        (f"to={EMAIL}", [3]),
        ("channel=sms", [1, 3]),
        (f"session_id={one}&channel=email", [2]),
        ("after=1", [2, 3]),
        ("limit=1", [3]),
        ("after=3", []),
        ("channel=pigeon", []),
    ):
        found = (await control.get(f"deliveries?{query}")).json["deliveries"]
        assert [delivery["id"] for delivery in found] == ids, query


async def test_deliveries_of_a_session_that_was_forgotten_have_no_window(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    emulator.keep = 1
    await send(http, emulator, emulator.add_session())
    jump(30)
    emulator.expire_session(emulator.ledger[0].session_id)
    emulator.add_session()
    assert (await control.get("deliveries")).json["deliveries"][0]["timeout"] == 0


async def test_a_wait_ends_with_the_next_delivery_that_matches(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    one, other = emulator.add_session(), emulator.add_session()
    waiting = asyncio.ensure_future(control.get(f"deliveries?session_id={other}&wait=30"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(5)
    await send(http, emulator, one)
    await asyncio.sleep(5)
    await send(http, emulator, other)
    assert [delivery["session_id"] for delivery in (await waiting).json["deliveries"]] == [other]
    assert loop.time() - began == pytest.approx(10, abs=0.1)
    assert len((await control.get(f"deliveries?session_id={other}&wait=30")).json["deliveries"]) == 1
    assert loop.time() - began == pytest.approx(10, abs=0.1)


async def test_a_wait_for_a_delivery_has_an_end(emulator: Emulator, control: Control) -> None:
    emulator.clock.speed = 100  # the wait is for real
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await control.get("deliveries?wait=2.5")).json == {"deliveries": []}
    assert loop.time() - began == pytest.approx(2.5, abs=0.1)


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_session_can_be_opened_listed_and_ended(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    opened = await control.post("sessions", {"session_id": SESSION.lower(), "to": PHONE, "active": ["telegram"]})
    assert opened.status == 201
    assert opened.json.pop("session_expired_at").endswith("Z")
    await send(http, emulator, SESSION)
    await call(http, f"{emulator.base_url}/check", {"session_id": SESSION, "code": "made up"})
    jump(20.5)
    (session,) = (await control.get("sessions")).json["sessions"]
    assert session.pop("session_expired_at").endswith("Z")
    assert session == {
        "session_id": SESSION,
        "to": PHONE,
        "state": "live",
        "expires_in": 159.5,
        "wrong_codes": 1,
        "blocked": False,
        "channels": [
            {"type": "telegram", "is_active": True, "timeout": 40},
            {"type": "whatsapp", "is_active": False, "timeout": 0},
            {"type": "sms", "is_active": True, "timeout": 0},
            {"type": "email", "is_active": True, "timeout": 0},
        ],
    }
    ended = (await control.post(f"sessions/{SESSION.lower()}/expire")).json
    assert (ended["state"], ended["expires_in"]) == ("over", 0)
    assert (await send(http, emulator, SESSION, "sms")).json["sys_message"] == "ERROR_SESSION_EXPIRED"


async def test_a_session_needs_no_body(control: Control) -> None:
    one, other = (await control.post("sessions")).json, (await control.post("sessions", {})).json
    assert one["session_id"] != other["session_id"]
    assert one["to"] != other["to"]
    assert [each["session_id"] for each in (await control.get("sessions")).json["sessions"]] == [
        other["session_id"],
        one["session_id"],
    ]


async def test_sessions_can_be_chosen(emulator: Emulator, control: Control) -> None:
    emulator.add_session(SESSION, to=PHONE)
    newest = emulator.add_session()
    of_one = (await control.get("sessions?to=%2B14155550123")).json["sessions"]
    assert [session["session_id"] for session in of_one] == [SESSION]
    assert [session["session_id"] for session in (await control.get("sessions?limit=1")).json["sessions"]] == [newest]
    emulator.add_session(SESSION)
    everyone = (await control.get("sessions")).json["sessions"]
    assert [session["session_id"] for session in everyone] == [SESSION, newest]


async def test_a_session_shows_that_its_code_was_right(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    emulator.add_session(SESSION, to=PHONE)
    await send(http, emulator, SESSION)
    body = {"session_id": SESSION, "code": emulator.last_code(PHONE)}
    await call(http, f"{emulator.base_url}/check", body)
    assert (await control.get("sessions")).json["sessions"][0]["state"] == "confirmed"


async def test_an_unknown_session_cannot_be_ended(control: Control) -> None:
    refused = await control.post(f"sessions/{UNKNOWN}/expire")
    assert (refused.status, refused.json) == (404, {"error": "there is no such session"})


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_requests_show_what_came_in_and_what_went_out(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    emulator.add_session(SESSION)
    sent = await send(http, emulator, SESSION, Accept_Language="ru", User_Agent="test/1")
    (request,) = (await control.get("requests")).json["requests"]
    assert request.pop("at").endswith("Z")
    assert request == {
        "id": 1,
        "request_id": sent.headers["X-Request-Id"],
        "method": "POST",
        "path": "/session/send",
        "endpoint": "send",
        "query": {},
        "headers": {"accept-language": "ru", "content-type": "application/octet-stream", "user-agent": "test/1"},
        "key": "public",
        "challenge": False,
        "body": {"session_id": SESSION, "type": "telegram"},
        "fault": None,
        "status": 200,
        "response": sent.json,
    }


async def test_requests_show_no_key_no_code_and_no_token(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    emulator.challenge = True
    emulator.add_session(SESSION, to=PHONE)
    await send(http, emulator, SESSION, x_cf_turnstile_token="captcha-canary")
    code = emulator.last_code(PHONE)
    check = f"{emulator.base_url}/check"
    body = {"session_id": SESSION, "code": code}
    token = (await call(http, check, body, x_cf_turnstile_token="captcha-canary-2")).json["verify_token"]
    verify = {"verify_token": token, code: code, "to": {"key": "canary"}, "send": True}
    await call(http, f"{emulator.base_url}/verify", verify, x_api_key=emulator.secret_key)
    await call(http, f"{emulator.base_url}/verify?key=canary", b"canary", x_api_key="canary")
    await call(http, check, [code])
    async with aiohttp.ClientSession() as stranger:
        await get(stranger, f"{emulator.base_url}/channels?session_id={SESSION}")
    response = await control.get("requests")
    log = response.json["requests"]
    assert [request["key"] for request in log] == ["public", "public", "secret", "unknown", "public", None]
    assert [request["challenge"] for request in log] == [True, True, False, False, False, False]
    assert log[1]["body"] == {"session_id": SESSION, "code": "••••••"}
    assert log[1]["response"] == {"verify_token": "••••••", "is_test": False}
    assert log[2]["body"] == {"verify_token": "••••••", code: "••••••", "to": "••••••", "send": True}
    assert log[3]["query"] == {"key": "••••••"}
    assert [log[3]["body"], log[4]["body"]] == [{}, {}]
    assert log[5]["query"] == {"session_id": SESSION}
    text = response.raw.decode().replace(f'"{code}":"••••••"', "")  # a name that the client gave
    for secret in ("canary", code, token, emulator.api_key, emulator.secret_key):
        assert secret not in text


async def test_requests_show_how_a_fault_changed_them(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    emulator.add_session(SESSION)
    for fault in (Fault.close("before_reading"), Fault.silence(), Fault.close("after_reading"), Fault.malformed(b"")):
        emulator.script(fault)
        async with connect(emulator) as (_, writer):
            writer.write(request_bytes(emulator, SESSION))
            await asyncio.sleep(1)
    emulator.script(Fault.close("mid_answer"))
    await exchange(emulator, request_bytes(emulator, SESSION))
    emulator.script(Fault.answer(418, body="<p>teapot"))
    await send(http, emulator, SESSION)
    log = (await control.get("requests")).json["requests"]
    assert [(request["fault"], request["status"]) for request in log] == [
        ("close", None),
        ("silence", None),
        ("close", None),
        ("malformed", None),
        ("close", 429),
        ("answer", 418),
    ]
    assert [request["body"] is None for request in log] == [True, False, False, False, False, False]
    assert [log[0]["response"], log[5]["response"]] == [None, "<p>teapot"]


async def test_requests_can_be_chosen(emulator: Emulator, http: aiohttp.ClientSession, control: Control) -> None:
    for path in ("channels", "settings", "channels", "elsewhere"):
        await get(http, f"{emulator.base_url}/{path}")
    for query, ids in (
        ("", [1, 2, 3, 4]),
        ("endpoint=channels", [1, 3]),
        ("after=2", [3, 4]),
        ("limit=2", [3, 4]),
    ):
        assert [request["id"] for request in (await control.get(f"requests?{query}")).json["requests"]] == ids


async def test_large_bodies_and_long_texts_are_not_kept(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    emulator.script(Fault.answer(200, body="x" * 5_000))
    emulator.script(Fault.answer(200, body="y" * 500))
    emulator.script(Fault.answer(200, body=[1]))
    await send(http, emulator, "x" * 5_000)
    await send(http, emulator, "y" * 500)
    await send(http, emulator, SESSION)
    large, long, short = (await control.get("requests")).json["requests"]
    assert (large["body"], large["response"]) == ({}, "")
    assert (long["body"]["session_id"], long["response"]) == ("y" * 256, "y" * 256)
    assert short["response"] == [1]


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_fault_makes_the_next_requests_fail(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    scripted = await control.post("faults", {"kind": "answer", "status": 503, "times": 2})
    assert scripted.status == 201
    pending = {"kind": "answer", "times": 2, "endpoint": "send", "status": 503, "headers": {}, "body": ""}
    assert scripted.json == {"faults": [{**pending, "process": False}]}
    assert (await send(http, emulator, emulator.add_session())).status == 503
    assert (await control.get("faults")).json["faults"][0]["times"] == 1
    assert (await control.delete("faults")).json == {"faults": []}
    assert (await send(http, emulator, emulator.add_session())).status == 200


async def test_a_fault_may_be_for_any_endpoint(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    await control.post("faults", {"kind": "refuse", "sys_message": "ERROR_BLOCKED", "endpoint": None})
    await control.post("faults", {"kind": "refuse", "sys_message": "ERROR_WRONG_BALANCE", "endpoint": "settings"})
    assert (await get(http, f"{emulator.base_url}/channels")).json["sys_message"] == "ERROR_BLOCKED"
    assert (await get(http, f"{emulator.base_url}/settings")).json["sys_message"] == "ERROR_WRONG_BALANCE"


EVERY_FAULT: list[tuple[dict[str, Any], Fault]] = [
    ({"kind": "answer", "status": 204}, Fault.answer(204)),
    (
        {"kind": "answer", "status": 502, "headers": {"X-Odd": "²"}, "body": "да", "process": True},
        Fault.answer(502, {"X-Odd": "²"}, "да", process=True),
    ),
    ({"kind": "answer", "status": 200, "body": {"a": [1]}}, Fault.answer(200, body={"a": [1]})),
    ({"kind": "answer", "status": 200, "body": [1]}, Fault.answer(200, body=[1])),
    ({"kind": "answer", "status": 200, "body_base64": "/w=="}, Fault.answer(200, body=b"\xff")),
    ({"kind": "refuse", "sys_message": "ERROR_PHONE_BLOCKED"}, Fault.refuse("ERROR_PHONE_BLOCKED")),
    (
        {"kind": "refuse", "sys_message": "ERROR_NEW", "status": 409, "retry_after": 6.5, "errors": {"phone": ["no"]}},
        Fault.refuse("ERROR_NEW", 409, 6.5, errors={"phone": ["no"]}),
    ),
    ({"kind": "delay", "seconds": 0.5}, Fault.delay(0.5)),
    ({"kind": "delay", "seconds": 20, "before_processing": True}, Fault.delay(20, before_processing=True)),
    ({"kind": "close"}, Fault.close()),
    (
        {"kind": "close", "when": "after_reading", "reset": True, "process": True},
        Fault.close("after_reading", reset=True, process=True),
    ),
    ({"kind": "close", "when": "mid_headers"}, Fault.close("mid_headers")),
    ({"kind": "malformed"}, Fault.malformed()),
    ({"kind": "malformed", "raw": "SSH-2.0", "process": False}, Fault.malformed(b"SSH-2.0", process=False)),
    ({"kind": "malformed", "raw_base64": "AP8="}, Fault.malformed(b"\x00\xff")),
    ({"kind": "silence"}, Fault.silence()),
    ({"kind": "silence", "process": False}, Fault.silence(process=False)),
    ({"kind": "drip", "seconds_per_byte": 0.1}, Fault.drip(0.1)),
    ({"kind": "drip", "seconds_per_byte": 0, "part": "body", "process": False}, Fault.drip(0, "body", process=False)),
]


@pytest.mark.parametrize(("body", "fault"), EVERY_FAULT)
async def test_every_fault_can_be_scripted_and_read_back(control: Control, body: dict[str, Any], fault: Fault) -> None:
    shown = (await control.post("faults", body)).json["faults"][0]
    schema = {"$ref": "#/components/schemas/Fault"}
    assert shown == orjson.loads(orjson.dumps(describe_fault(Entry(fault, 1, "send"))))
    assert read_fault(validate("the fault", shown, schema)) == fault


def test_every_kind_of_fault_has_its_schema() -> None:
    constructors = {name for name, value in vars(Fault).items() if isinstance(value, classmethod)}
    assert set(document()["components"]["schemas"]["Fault"]["discriminator"]["mapping"]) == constructors
    for name in constructors:
        properties = document()["components"]["schemas"][name.capitalize()]["properties"]
        arguments = {each for each in properties if not each.endswith("_base64")} - {"kind", "times", "endpoint"}
        assert arguments == set(inspect.signature(getattr(Fault, name)).parameters)
        assert properties["endpoint"]["enum"] == [*ENDPOINTS, None]
    known = document()["components"]["schemas"]["Refuse"]["anyOf"][1]["properties"]["sys_message"]["enum"]
    assert known == list(REFUSALS)


# --- the clock, and all of it -----------------------------------------------------------------------------------------


async def test_the_clock_can_be_moved_and_sped_up(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    session_id = emulator.add_session()
    await send(http, emulator, session_id)
    before = (await control.get("clock")).json
    moved = await control.post("clock", {"advance": 60})
    assert moved.json["now"][:16] > before["now"][:16]
    assert (await send(http, emulator, session_id)).status == 200
    assert (await control.post("clock", {"speed": 10, "advance": 0})).json["speed"] == 10
    jump(6)
    assert (await send(http, emulator, session_id)).status == 200


async def test_the_clock_stays_within_dates(emulator: Emulator, control: Control) -> None:
    emulator.clock.advance(86_400 * 365 * 900)
    while (response := await control.post("clock", {"advance": 31_622_400})).status == 200:
        pass
    assert (response.status, response.json) == (400, {"error": "the clock cannot be moved beyond the year 3000"})
    assert (await control.get("sessions")).status == 200


async def test_a_reset_forgets_everything(emulator: Emulator, http: aiohttp.ClientSession, control: Control) -> None:
    await send(http, emulator, emulator.add_session())
    await control.post("faults", {"kind": "silence"})
    await control.post("clock", {"speed": 5})
    before = (await control.get("health")).json
    counts = ("sessions", "delivered", "requests", "pending_faults", "speed")
    assert [before[name] for name in counts] == [1, 1, 1, 1, 5]
    after = (await control.post("reset")).json
    assert [after[name] for name in counts] == [0, 0, 0, 0, 1]
    assert (await control.get("deliveries")).json == {"deliveries": []}


async def test_health_says_how_the_emulator_is_set(control: Control) -> None:
    health = (await control.get("health")).json
    assert health.pop("now").endswith("Z")
    assert health == {
        "status": "ok",
        "speed": 1,
        "window": 60,
        "session_lifetime": 180,
        "channels": ["telegram", "whatsapp", "sms", "email"],
        "sessions": 0,
        "delivered": 0,
        "requests": 0,
        "pending_faults": 0,
    }


async def test_control_requests_are_neither_counted_nor_logged_and_meet_no_faults(
    emulator: Emulator, control: Control
) -> None:
    emulator.script(Fault.answer(503), endpoint=None)
    assert (await control.get("health")).json["requests"] == 0
    assert emulator.requests == {}
    assert emulator.pending_faults == 1


# --- events -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def events(control: Control) -> AsyncIterator[Callable[[], Any]]:
    """Subscribe, and yield a function that waits for the next event."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{control.root}/events", timeout=aiohttp.ClientTimeout()) as response,
    ):
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert await response.content.readuntil(b"\n\n") == b": connected\nretry: 1000\n\n"

        async def following() -> tuple[str, Any]:
            event = await response.content.readuntil(b"\n\n")
            if not event:
                raise EOFError
            kind, data, _, _ = event.decode().split("\n")
            return kind.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))

        yield following


async def test_events_show_everything_as_it_happens(
    emulator: Emulator, http: aiohttp.ClientSession, control: Control
) -> None:
    async with events(control) as following:
        session_id = emulator.add_session(to=PHONE)
        kind, session = await following()
        assert (kind, session["session_id"], session["state"]) == ("session", session_id, "live")

        await send(http, emulator, session_id)
        kind, delivery = await following()
        assert (kind, delivery) == ("delivery", (await control.get("deliveries")).json["deliveries"][0])
        kind, request = await following()
        assert (kind, request) == ("request", (await control.get("requests")).json["requests"][0])

        await control.post("faults", {"kind": "answer", "status": 503})
        kind, faults = await following()
        assert (kind, len(faults["faults"])) == ("faults", 1)
        await send(http, emulator, session_id)
        assert await following() == ("faults", {"faults": []})
        assert (await following())[1]["fault"] == "answer"

        await control.post("clock", {"speed": 3})
        kind, clock = await following()
        assert (kind, clock["speed"]) == ("clock", 3)

        emulator.expire_session(session_id)
        kind, session = await following()
        assert (kind, session["state"]) == ("session", "over")

        emulator.reset()
        assert [(await following())[0] for _ in range(3)] == ["faults", "clock", "reset"]


async def test_events_reach_every_subscriber_until_it_leaves(emulator: Emulator, control: Control) -> None:
    async with events(control) as following:
        async with events(control) as other:
            emulator.add_session()
            assert (await following())[0] == (await other())[0] == "session"
        await asyncio.sleep(1)
        emulator.reset()
        assert (await following())[0] == "faults"


async def test_a_subscriber_that_cannot_keep_up_is_dropped(emulator: Emulator, control: Control) -> None:
    async with events(control) as following:
        for _ in range(1_500):
            emulator.clear_faults()
        for _ in range(1_000):
            assert (await following())[0] == "faults"
        with pytest.raises(EOFError):
            await following()


async def test_nothing_follows_an_event_that_was_lost() -> None:
    subscription = Subscription()
    for number in range(1_001):
        subscription.put(Event("faults", number))
    await subscription.next()
    subscription.put(Event("faults", 1_001))  # there is room again
    assert [(await subscription.next()).subject for _ in range(999)] == list(range(1, 1_000))
    with pytest.raises(LostEventsError):
        await subscription.next()


async def test_closing_the_emulator_ends_the_events(emulator: Emulator, control: Control) -> None:
    async with events(control) as following:
        await emulator.aclose()
        with pytest.raises(EOFError):
            await following()


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "complaint"),
    [
        ("faults", b"", "the body must be JSON"),
        ("faults", b"{", "the body must be JSON"),
        ("faults", [], "the body must be an object with 'kind'"),
        ("faults", {}, "the body must be an object with 'kind'"),
        ("faults", {"kind": "nap"}, "kind must be one of "),
        ("faults", {"kind": ["close"]}, "kind must be one of "),
        ("faults", {"kind": "answer"}, "status is missing in the body"),
        ("faults", {"kind": "answer", "status": 600}, "status must be at most 599"),
        ("faults", {"kind": "answer", "status": True}, "status must be of type integer"),
        ("faults", {"kind": "answer", "status": 200, "headers": {"a b": ""}}, "a name in headers must match"),
        ("faults", {"kind": "answer", "status": 200, "headers": {"a": 1}}, 'headers["a"] must be of type string'),
        ("faults", {"kind": "answer", "status": 200, "headers": {"a": "b\r\nc: d"}}, 'headers["a"] must match'),
        ("faults", {"kind": "answer", "status": 200, "body": 5}, "body must be of type string or object or array"),
        ("faults", {"kind": "answer", "status": 200, "body": "", "body_base64": ""}, "exclude each other"),
        ("faults", {"kind": "malformed", "raw_base64": "A"}, "raw_base64 must match"),
        ("faults", {"kind": "close", "tims": 2}, '"tims" is not known in the body; allowed are: kind, times, '),
        ("faults", {"kind": "close", "x" * 99: 2}, f'"{"x" * 39}… is not known'),
        ("faults", {"kind": "close", "times": 0}, "times must be at least 1"),
        ("faults", {"kind": "close", "times": 1.5}, "times must be of type integer"),
        ("faults", {"kind": "close", "when": "later"}, 'when must be one of "before_reading", '),
        ("faults", {"kind": "close", "when": "before_reading", "process": True}, "not read cannot be processed"),
        ("faults", {"kind": "close", "endpoint": "resend"}, 'endpoint must be one of "create", '),
        ("faults", {"kind": "refuse", "sys_message": "ERROR_NEW"}, "the body must have a status or a sys_message that"),
        ("faults", {"kind": "refuse", "sys_message": ""}, "sys_message must have at least 1 characters"),
        ("sessions", {"session_id": "hello"}, "session_id must match"),
        ("sessions", {"session_id": SESSION + "\n"}, "session_id must match"),
        ("sessions", {"to": "0123"}, "to must match"),
        ("sessions", {"to": f"{'x' * 250}@example.com"}, "to must have at most 254 characters"),
        ("sessions", {"active": ["SMS"]}, "active[0] must match"),
        ("sessions", {"active": ["sms"] * 101}, "active must have at most 100 items"),
        ("sessions/hello/expire", None, "session_id must match"),
        ("clock", {}, "the body must have at least 1 fields"),
        ("clock", {"advance": -1}, "advance must be at least 0"),
        ("clock", {"advance": None}, "advance must be of type number"),
        ("clock", {"speed": 1001}, "speed must be at most 1000"),
        ("clock?now=1", {"speed": 1}, "'now' is not known in the query; allowed are: none"),
    ],
)
async def test_a_wrong_body_is_refused_with_what_is_allowed(
    control: Control, path: str, body: object, complaint: str
) -> None:
    refused = await control.post(path, body)
    assert refused.status == 400
    assert set(refused.json) == {"error"}
    assert complaint in refused.json["error"]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("deliveries?limit=0", "limit must be at least 1"),
        ("deliveries?limit=1e3.", "limit must be of type integer"),
        ("deliveries?limit=true", "limit must be of type integer"),
        ("deliveries?limit=NaN", "limit must be of type integer"),
        ("deliveries?limit= 5", "limit must be of type integer"),
        ("deliveries?wait=31", "wait must be at most 30"),
        ("deliveries?wait=", "wait must be of type number"),
        ("deliveries?session_id=hello", "session_id must match"),
        ("deliveries?limit=1&limit=2", "limit must be given once"),
        ("deliveries?since=5", "'since' is not known in the query; allowed are: session_id, to, "),
        ("requests?endpoint=resend", 'endpoint must be one of "create", '),
    ],
)
async def test_a_wrong_query_is_refused_with_what_is_allowed(control: Control, query: str, complaint: str) -> None:
    refused = await control.get(query)
    assert refused.status == 400
    assert complaint in refused.json["error"]


async def test_a_request_that_is_too_large_is_refused(control: Control) -> None:
    refused = await control.post("faults", b" " * 65_537)
    assert (refused.status, refused.json) == (400, {"error": "the request is not HTTP, or larger than 64 KiB"})


async def test_an_integer_may_be_written_with_a_fraction_of_zero(control: Control) -> None:
    scripted = await control.post("faults", b'{"kind": "silence", "times": 2.0}')
    assert scripted.json["faults"][0]["times"] == 2
    assert (await control.get("deliveries?limit=5.0")).status == 200


@pytest.mark.parametrize("path", ["/nothing", "/deliveries/", "/sessions/a/b/expire"])
async def test_an_unknown_path_says_where_to_look(control: Control, path: str, http: aiohttp.ClientSession) -> None:
    refused = await get(http, f"{control.root}{path}")
    assert refused.status == 404
    assert "/_emulator/openapi.json" in refused.json["error"]


async def test_a_wrong_method_says_which_are_right(control: Control, http: aiohttp.ClientSession) -> None:
    refused = await control.post("health")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert refused.json == {"error": "the method must be one of GET, HEAD"}
    refused = await call(http, f"{control.root}/reset", method="GET")
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["health", "events"])
async def test_the_response_to_head_has_no_body(http: aiohttp.ClientSession, control: Control, path: str) -> None:
    response = await call(http, f"{control.root}/{path}", method="HEAD")
    assert (response.status, response.raw) == (200, b"")


async def test_its_own_failure_is_a_500_and_a_line_in_the_log(
    control: Control, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Operations) -> None:
        raise OSError("no clock")

    monkeypatch.setattr(Operations, "show_clock", fail)
    failed = await control.get("clock")
    assert (failed.status, failed.json) == (500, {"error": "the emulator failed; its log says how"})
    assert [record.name for record in caplog.records] == ["kodmobi_async.emulator"]


async def test_it_can_be_left_out() -> None:
    async with Emulator(control=False) as emulator, aiohttp.ClientSession() as http:
        response = await Control(emulator, http).get("health")
    assert response.json["sys_message"] == "ERROR_NOT_FOUND"


# --- who may use it ---------------------------------------------------------------------------------------------------


def raw(headers: str, *, line: str = "GET /_emulator/health HTTP/1.1") -> bytes:
    return f"{line}\r\nConnection: close\r\n{headers}\r\n".encode()


@pytest.mark.parametrize(
    "headers",
    [
        "Host: localhost:8765\r\n",
        "Host: LOCALHOST\r\n",
        "Host: localhost.\r\n",
        "Host: emulator.localhost:80\r\n",
        "Host: 127.0.0.1\r\n",
        "Host: 127.9.9.9:1\r\n",
        "Host: [::1]:8765\r\n",
        "Host: localhost:8765\r\nOrigin: http://localhost:8765\r\n",
        "Host: localhost:8765\r\nOrigin: http://LOCALHOST:8765\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: localhost\r\nSec-Fetch-Site: none\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n",
    ],
)
async def test_this_machine_may_use_it(emulator: Emulator, headers: str) -> None:
    assert (await exchange(emulator, raw(headers))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Host: \r\n",
        "Host: example.com\r\n",
        "Host: localhost.example.com\r\n",
        "Host: 127.0.0.1.example.com\r\n",
        "Host: 10.0.0.1\r\n",
        "Host: [::1\r\n",
        "Host: localhost:8765\r\nOrigin: http://localhost:3000\r\n",
        "Host: localhost:8765\r\nOrigin: https://localhost:8765\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nOrigin: https://shop.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n",
    ],
)
async def test_another_name_and_another_origin_may_not(emulator: Emulator, headers: str) -> None:
    response = await exchange(emulator, raw(headers))
    assert response.startswith(b"HTTP/1.1 403 ")
    assert b"Access-Control-Allow-Origin" not in response
    assert b"the control interface is" in response


async def test_a_form_of_another_site_may_not_post(emulator: Emulator) -> None:
    headers = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"
    response = await exchange(emulator, raw(headers, line="POST /_emulator/reset HTTP/1.1"))
    assert response.startswith(b"HTTP/1.1 403 ")


async def test_a_page_of_another_origin_gets_no_preflight(emulator: Emulator) -> None:
    headers = "Host: localhost\r\nOrigin: https://shop.example\r\nAccess-Control-Request-Method: POST\r\n"
    response = await exchange(emulator, raw(headers, line="OPTIONS /_emulator/reset HTTP/1.1"))
    assert response.startswith(b"HTTP/1.1 403 ")


async def test_the_address_that_it_listens_on_is_its_own() -> None:
    async with Emulator(host="0.0.0.0") as emulator, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{emulator.port}/_emulator/health"
        assert (await call(http, url, method="GET", Host="127.0.0.1")).status == 200
        assert (await call(http, url, method="GET", Host="0.0.0.0")).status == 200
        assert (await call(http, url, method="GET", Host="10.0.0.1")).status == 403


# --- its document -----------------------------------------------------------------------------------------------------


async def test_its_document_is_served_and_describes_every_operation(control: Control) -> None:
    served = (await control.get("openapi.json")).json
    assert served == document()
    described = {
        operation["operationId"]: operation for path in served["paths"].values() for operation in path.values()
    }
    built = {name for name, value in vars(Operations).items() if inspect.iscoroutinefunction(value)}
    assert set(described) == built | {"watch"}
    for name in built:
        parameters = {parameter["name"] for parameter in described[name].get("parameters", ())}
        body = {"body"} if "requestBody" in described[name] else set()
        assert parameters | body == set(inspect.signature(getattr(Operations, name)).parameters) - {"self"}


def test_base64_is_what_python_reads() -> None:
    pattern = document()["components"]["schemas"]["Malformed"]["properties"]["raw_base64"]
    for value in (b"", b"a", b"ab", b"abc", bytes(range(256))):
        encoded = base64.b64encode(value).decode()
        assert validate("raw_base64", encoded, pattern) == encoded
