"""Clients that outlive their loop, that are carried into a child process, or that nobody closes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest
from background import Background, emulator_in_background

from kodmobi_async import ClientClosedError, CooldownError, KodmobiClient, Outcome, SendResult, WrongLoopError
from kodmobi_async._shared.loop_bound import LoopBound, cancel_and_wait
from kodmobi_async.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

# (newer Pythons warn of forking a process that has threads: the service's is one)
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def service() -> Iterator[Background]:
    with emulator_in_background() as background:
        yield background


def client_of(service: Background, session: aiohttp.ClientSession | None = None) -> KodmobiClient:
    return KodmobiClient(service.emulator.api_key, base_url=service.emulator.base_url, session=session)


def until_asked(service: Background) -> None:
    while not service.call(service.emulator.requests.total):
        pass


def in_a_child(work: Callable[[], Coroutine[object, object, object]]) -> int:
    """Fork, run ``work`` in the child, and return the child's exit code: 0 if it ended well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(work())
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_that_closes_its_copy_leaves_the_parents_connections_open(service: Background) -> None:
    session = service.add_session()
    client = client_of(service)
    with asyncio.Runner() as parent:
        parent.run(client.send(session, "telegram"))
        assert in_a_child(client.aclose) == 0
        parent.run(client.send(session, "sms"))
        assert service.emulator.connections == 1
        parent.run(client.aclose())


def test_a_child_does_not_wait_for_the_calls_of_its_parent(service: Background) -> None:
    session = service.add_session()
    service.call(service.emulator.script, Fault.delay(0.5))
    client = client_of(service)

    async def send_in_the_child() -> None:
        assert isinstance(await client.send(session, "sms"), SendResult)
        await client.aclose()
        with pytest.raises(ClientClosedError):
            await client.send(session, "sms")

    async def main() -> None:
        sending = asyncio.create_task(client.send(session, "telegram"))
        await asyncio.to_thread(until_asked, service)
        # off this thread: a child forked from a running loop would take itself to be in it
        assert await asyncio.to_thread(in_a_child, send_in_the_child) == 0
        assert (await sending).attempts == 1
        await client.aclose()

    asyncio.run(main())
    assert service.emulator.requests == {"send": 2}


def test_a_child_holds_to_a_window_of_a_send_that_was_under_way(service: Background) -> None:
    session = service.add_session()
    service.call(service.emulator.script, Fault.silence())
    client = client_of(service)

    async def send_in_the_child() -> None:
        with pytest.raises(CooldownError):
            await client.send(session, "sms")

    async def main() -> None:
        sending = asyncio.create_task(client.send(session, "sms"))
        await asyncio.to_thread(until_asked, service)
        assert await asyncio.to_thread(in_a_child, send_in_the_child) == 0
        await client.aclose(grace=0.0)
        with pytest.raises(ClientClosedError) as caught:
            await sending
        assert caught.value.outcome is Outcome.UNKNOWN

    asyncio.run(main())
    assert service.emulator.requests == {"send": 1}


def test_a_borrowed_session_is_of_no_use_in_a_child_which_is_told_so_before_any_byte(service: Background) -> None:
    session = service.add_session()

    async def borrow() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    with asyncio.Runner() as parent:
        borrowed = parent.run(borrow())
        client = client_of(service, session=borrowed)
        parent.run(client.send(session, "telegram"))

        async def send_in_the_child() -> None:
            for call in (client.send(session, "sms"), client.channels()):
                with pytest.raises(WrongLoopError):
                    await call

        assert in_a_child(send_in_the_child) == 0
        parent.run(client.send(session, "email"))
        parent.run(borrowed.close())
    assert service.emulator.requests == {"send": 2}
    assert service.emulator.connections == 1


# Each loop is left with connections open, and one with a call under way; nothing is ever closed.
NEGLIGENT: Final = """
import asyncio, sys
from kodmobi_async import CooldownError, KodmobiClient

client = KodmobiClient("emulator-key", base_url=sys.argv[1])

async def send(channel):
    await client.send(sys.argv[2], channel)

async def leave(channel):
    asyncio.ensure_future(client.send(sys.argv[2], channel))
    await asyncio.sleep(0.1)

for channel in ("telegram", "sms"):
    asyncio.run(send(channel))
asyncio.run(leave("email"))
try:
    asyncio.run(send("sms"))
except CooldownError:
    print("too soon")
asyncio.run(send("whatsapp"))
print("done")
"""


def test_a_program_that_closes_nothing_ends_without_a_complaint(service: Background) -> None:
    session = service.add_session()
    program = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", NEGLIGENT, service.emulator.base_url, session],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (program.stdout, program.stderr, program.returncode) == ("too soon\ndone\n", "", 0)
    assert service.emulator.requests == {"send": 4}


async def test_a_background_task_whose_library_swallows_cancellations_is_ended_all_the_same() -> None:
    swallowed = 0

    async def read() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await cancel_and_wait([reading])
    assert (reading.cancelled(), swallowed) == (True, 3)


class Connections(LoopBound):
    """What takes a while to close."""

    closed = 0

    async def _close(self) -> None:
        self.closed += 1
        await asyncio.sleep(1.0)


@pytest.mark.parametrize("loop_first", [True, False])
async def test_what_its_owner_and_the_loop_close_at_the_same_time_is_closed_once(*, loop_first: bool) -> None:
    connections = Connections()
    await connections.open()
    by_the_loop, by_the_owner = connections._guard.aclose(), connections.aclose()  # (a loop ends all generators)
    await asyncio.gather(*((by_the_loop, by_the_owner) if loop_first else (by_the_owner, by_the_loop)))
    assert connections.closed == 1
