"""The clock that every other test leans on."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from kodmobi_async.testing import VirtualClockLoop


async def test_a_minute_passes_at_once() -> None:
    loop = asyncio.get_running_loop()
    began, real = loop.time(), time.perf_counter()
    await asyncio.sleep(60)
    assert loop.time() == began + 60
    assert time.perf_counter() - real < 30


async def test_timers_fire_in_order_at_their_moment() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, round(loop.time() - began, 6)))

    for name, delay in (("late", 60.001), ("early", 59.999), ("on time", 60.0)):
        loop.call_later(delay, note, name)
    await asyncio.sleep(61)
    assert seen == [("early", 59.999), ("on time", 60.0), ("late", 60.001)]


async def test_a_real_socket_is_served_before_the_clock_jumps() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(3600):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello\n")
            assert await reader.read() == b"hello\n"
            writer.close()
            await writer.wait_closed()


async def test_time_stands_still_while_a_thread_works() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(3600):
        await asyncio.to_thread(time.sleep, 0.01)
    assert loop.time() == began


def test_a_loop_that_ends_waits_for_its_threads_in_real_time() -> None:
    at_work = threading.Event()

    def work() -> None:
        at_work.set()
        time.sleep(0.02)

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        loop = runner.get_loop()
        began = loop.time()
        abandoned = loop.run_in_executor(None, work)
        at_work.wait()
        abandoned.cancel()
    assert loop.time() == began


def test_the_clock_starts_where_it_is_told_and_never_goes_back() -> None:
    loop = VirtualClockLoop(start=5.0)
    try:
        loop.jump(1.5)
        assert loop.time() == 6.5
        with pytest.raises(ValueError, match="does not go back"):
            loop.jump(-1)
    finally:
        loop.close()


async def test_the_loop_tells_which_sockets_it_watches() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        waiting = asyncio.ensure_future(loop.sock_recv(ours, 1))
        await asyncio.sleep(0)
        assert loop.remove_reader(ours) is True
        assert loop.remove_reader(ours) is False
        waiting.cancel()
