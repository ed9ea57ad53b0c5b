"""The processes that `benchmarks.bulk` starts: the server, and one run of a kind, measured from inside.

The server says that a channel is blocked for a second and that a session lives for three: so the open windows, whose
number follows the rate and not the length of the run, are the same few in all of them.

    python -m benchmarks.bulk_worker serve
    python -m benchmarks.bulk_worker KIND ROWS PORT [watched]
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import re
import resource
import secrets
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kodmobi_async import KodmobiClient, Limits
from kodmobi_async.cli._app import run as run_command
from kodmobi_async.redis import RedisCooldownTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONCURRENCY = 64
EXAMPLE_ID = b"01K8N1VMPN0EE389K72YW0CBM2"
_SESSION_ID = re.compile(rb'"session_id":"([0-9A-Z]{26})"')
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


# -- the server -------------------------------------------------------------------------------------------------------


class Server(asyncio.Protocol):
    """Answers every request at once that it was accepted."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing read."""
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answer every request that is there in full."""
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            _, _, length = head.lower().partition(b"content-length: ")
            size = int(length.partition(b"\r\n")[0] or b"0")
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            assert isinstance(self.transport, asyncio.Transport)
            named = _SESSION_ID.search(rest, 0, size)
            before, _, after = Server.answer.partition(EXAMPLE_ID)
            self.transport.write(before + (named[1] if named else EXAMPLE_ID) + after)

    @classmethod
    async def serve(cls) -> None:
        """Listen until the standard input ends; the first line out is the port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(cls, "127.0.0.1", 0, backlog=1024)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        end = loop.run_in_executor(None, sys.stdin.read)
        while not end.done():
            now = datetime.now(UTC)
            body = json.dumps(
                {
                    "session_id": EXAMPLE_ID.decode(),
                    "session_expired_at": (now + timedelta(seconds=3)).isoformat(),
                    "channel": {
                        "name": "SMS",
                        "type": "sms",
                        "is_active": True,
                        "timeout": 1,
                        "image_url": "https://storage.kod.mobi/icons/sms.svg",
                        "link": "",
                    },
                }
            )
            head = (
                f"HTTP/1.1 200 OK\r\nDate: {now:%a, %d %b %Y %H:%M:%S} GMT\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            cls.answer = (head + body).encode()
            await asyncio.sleep(0.5)


# -- what is measured -------------------------------------------------------------------------------------------------


def sessions(rows: int) -> Iterator[str]:
    """Yield as many session ids, in no time."""
    last = list(itertools.product(_ALPHABET, repeat=2))
    tails = ["".join(pair) for pair in last]
    for number in range(rows):
        high, low = divmod(number, len(tails))
        middle, mid = divmod(high, len(tails))
        yield f"01K8N1VMPN0EE389K72Y{tails[middle % 1024]}{tails[mid]}{tails[low]}"


async def plain(client: KodmobiClient, rows: int) -> None:
    """Do the same sends without bulk: workers that share an iterator."""
    source = sessions(rows)

    async def work() -> None:
        for session in source:
            await client.send(session, "sms")

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def many(client: KodmobiClient, rows: int) -> None:
    """Send by ``send_many``."""
    run = client.send_many(((session, "sms") for session in sessions(rows)), concurrency=CONCURRENCY)
    async for outcome in run:
        assert outcome.error is None, outcome.error


def with_client(do: Callable[[KodmobiClient, int], Any]) -> Callable[[int, str], None]:
    """Return what opens a client, and does that with it."""

    async def run(rows: int, url: str) -> None:
        async with KodmobiClient("key", base_url=url, limits=Limits(connections=CONCURRENCY)) as client:
            await do(client, rows)

    return lambda rows, url: asyncio.run(run(rows, url))


async def many_shared(rows: int, url: str, server: str) -> None:
    """Send by ``send_many``, with windows that are shared."""
    limits = Limits(connections=CONCURRENCY)
    async with (
        RedisCooldownTracker(server, prefix=secrets.token_hex(4)) as cooldowns,
        KodmobiClient("key", base_url=url, limits=limits, cooldowns=cooldowns) as client,
    ):
        await many(client, rows)


def by_command(rows: int, url: str, *, journal: bool = False) -> None:
    """Send by ``kodmobi bulk``, from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        with path.open("w", encoding="ascii") as file:
            file.writelines(f"{session},sms\n" for session in sessions(rows))
        began[:] = time.perf_counter(), time.process_time()
        options = ["--journal", f"{folder}/journal"] * journal
        command = ["bulk", str(path), "--base-url", url, "--concurrency", str(CONCURRENCY), "--json", *options]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = run_command(command)
        assert code == 0, out.getvalue()
        assert json.loads(out.getvalue())["sent"] == rows


began = [0.0, 0.0]
KINDS: dict[str, Callable[[int, str], None]] = {
    "plain": with_client(plain),
    "many": with_client(many),
    "shared": lambda rows, url: asyncio.run(many_shared(rows, url, os.environ["REDIS_URL"])),
    "bulk": by_command,
    "journal": lambda rows, url: by_command(rows, url, journal=True),
}


def watch_callbacks() -> dict[str, float]:
    """Time every callback of the loop from now on."""
    longest = {"cpu": 0.0, "wall": 0.0}
    original = asyncio.Handle._run  # noqa: SLF001 asyncio has no public word for a callback's run

    def timed(handle: asyncio.Handle) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        original(handle)
        longest["cpu"] = max(longest["cpu"], time.thread_time() - cpu)
        longest["wall"] = max(longest["wall"], time.perf_counter() - wall)

    # asyncio has no public word for a callback's run
    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment] # noqa: SLF001
    return longest


def peak_kib() -> int:
    """Return the most memory that this process has had resident, in KiB."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:  # not on Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # there, what getrusage tells may be the peak of the process that has started this one
    return int(status.partition("VmHWM:")[2].split()[0])


def measure(kind: str, rows: int, url: str, *, watched: bool) -> None:
    """Measure one run in this process, and write what was found."""
    os.environ["KODMOBI_API_KEY"] = "key"
    KINDS[kind](200, url)  # whatever is made once
    longest = watch_callbacks() if watched else {}
    began[:] = time.perf_counter(), time.process_time()
    KINDS[kind](rows, url)
    found = {
        "wall": time.perf_counter() - began[0],
        "cpu": time.process_time() - began[1],
        "peak_kib": peak_kib(),
        **{f"longest_{name}": value for name, value in longest.items()},
    }
    sys.stdout.write(json.dumps(found) + "\n")


def main() -> None:
    """Do what the arguments say."""
    kind, *rest = sys.argv[1:]
    if kind == "serve":
        asyncio.run(Server.serve())
    else:
        rows, port, *watched = rest
        measure(kind, int(rows), f"http://127.0.0.1:{int(port)}/session", watched=bool(watched))


if __name__ == "__main__":
    main()
