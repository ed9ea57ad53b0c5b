"""The shared tracker on a client of one's own, on a cluster, and behind Sentinels; and with a set-up that is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import trustme
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from tracker_contract import LEASE, OTHER, SESSION, TrackerContract
from valkey_server import WRONG_ADDRESSES, running_valkey
from valkey_topologies import running_cluster, running_sentinels, wait_until

from kodmobi_async import (
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    KodmobiClient,
    Outcome,
    Record,
    TrackerDegraded,
    WrongLoopError,
)
from kodmobi_async.redis import RedisCooldownTracker
from kodmobi_async.redis._address import open_backend
from kodmobi_async.redis._subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from valkey_server import Valkey
    from valkey_topologies import Cluster, Sentinels

    from kodmobi_async.emulator import Emulator

pytestmark = pytest.mark.real_clock


async def back_to_normal(tracker: RedisCooldownTracker) -> None:
    """Wait until the tracker has reached its server again, and has no pending writes."""
    if tracker._store.flusher is not None:
        await asyncio.wait_for(asyncio.shield(tracker._store.flusher), 30.0)
    assert not tracker._store.outage
    assert not tracker._store.backlog


async def assert_shared(one: RedisCooldownTracker, other: RedisCooldownTracker) -> None:
    """Try what two processes have to see of each other."""
    held = await one.acquire(SESSION, "sms", lease=LEASE)
    assert (held.window, held.degraded) == ("shared", None)
    with pytest.raises(CooldownError):
        await other.acquire(SESSION, "sms", lease=LEASE)
    waiting = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0.4)
    began = time.monotonic()
    await one.release(held)
    held = await waiting
    assert time.monotonic() - began < 0.5
    await other.start(held, 30.0)
    assert (held.window, held.degraded) == ("shared", None)
    assert 29.0 < await one.remaining(SESSION, "sms") <= 30.0
    await other.observe(SESSION, "email", 30.0)
    assert 29.0 < await one.remaining(SESSION, "email") <= 30.0


# -- a client of one's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decode_responses": True},
        {"protocol": 2},
        {"protocol": 3, "decode_responses": True},
        {"encoding": "utf-16"},
        {"retry": Retry(NoBackoff(), 10)},
        {"single_connection_client": True},
        {"max_connections": 3},
        {"socket_timeout": 0.1},
        {"health_check_interval": 1},
        {"legacy_responses": False},
    ],
    ids=str,
)
async def test_a_client_of_ones_own_serves_whatever_its_settings(valkey: Valkey, options: dict[str, Any]) -> None:
    async with (
        Redis(port=valkey.port, **options) as client,
        RedisCooldownTracker(client) as tracker,
        RedisCooldownTracker(client) as other,
    ):
        await assert_shared(tracker, other)


async def test_a_client_whose_settings_cannot_work_is_a_wrong_set_up(valkey: Valkey) -> None:
    async with (
        Redis(port=valkey.port, encoding="utf-16", decode_responses=True) as client,
        RedisCooldownTracker(client) as tracker,
    ):
        with pytest.raises(ConfigurationError, match="options of the client"):
            await tracker.acquire(SESSION, "sms", lease=LEASE)


async def test_a_pool_that_blocks_serves_as_well(valkey: Valkey) -> None:
    pool = BlockingConnectionPool(port=valkey.port, max_connections=4)
    async with (
        Redis.from_pool(pool) as client,
        RedisCooldownTracker(client) as tracker,
        RedisCooldownTracker(valkey.url) as other,
    ):
        await assert_shared(tracker, other)


async def test_a_client_with_a_single_connection_serves_by_polling(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodmobi_async.redis._subscription._POLL_OTHERWISE", 0.05)
    async with (
        Redis(port=valkey.port, max_connections=1) as client,
        RedisCooldownTracker(client) as tracker,
        RedisCooldownTracker(valkey.url) as other,
    ):
        await assert_shared(other, tracker)
        results = await asyncio.gather(
            *(tracker.acquire(f"{number:026d}", "sms", lease=LEASE) for number in range(1_000))
        )
        assert {held.window for held in results} == {"shared"}


async def test_the_tracker_does_not_close_a_client_that_it_was_given(valkey: Valkey) -> None:
    async with Redis(port=valkey.port) as client:
        async with RedisCooldownTracker(client) as tracker:
            await tracker.acquire(SESSION, "sms", lease=LEASE)
            (connection,) = client.connection_pool._available_connections
        assert connection.is_connected
        assert await client.ping()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_use_its_parents_client(valkey: Valkey) -> None:
    client = Redis(port=valkey.port)
    tracker = RedisCooldownTracker(client)
    with asyncio.Runner() as runner:
        runner.run(tracker.acquire(SESSION, "sms", lease=LEASE))
        child = os.fork()
        if child == 0:  # pragma: no cover the child leaves no data
            status = 1
            try:
                asyncio.run(tracker.acquire(SESSION, "email", lease=LEASE))
            except WrongLoopError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        runner.run(tracker.acquire(SESSION, "telegram", lease=LEASE))
        runner.run(tracker.aclose())
        runner.run(client.aclose())


async def test_a_subscription_outlasts_the_timeout_of_the_socket(valkey: Valkey) -> None:
    backend = open_backend(f"{valkey.url}?socket_timeout=0.05", timeout=1.0)
    subscription = Subscription(backend, timeout=1.0)
    async with subscription.listen("key") as listener:
        await asyncio.sleep(0.2)
        assert listener.is_active
    await subscription.aclose()
    await backend.aclose()


# -- a cluster ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """Return a cluster, common to the tests of this module, that is empty."""
    for node in _cluster.primaries():
        _cluster.command(node, "FLUSHALL")
    return _cluster


class TestOnACluster(TrackerContract):
    scale: ClassVar[float] = 0.005
    grain: ClassVar[float] = 0.02
    slack: ClassVar[float] = 1.0
    windows: ClassVar[tuple[float, ...]] = (20.0, 40.0)

    @pytest.fixture
    async def tracker(self, cluster: Cluster) -> AsyncIterator[RedisCooldownTracker]:
        async with RedisCooldownTracker(cluster.url) as tracker:
            yield tracker


@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True, "protocol": 3}, {"read_from_replicas": True}], ids=str
)
@pytest.mark.filterwarnings("ignore:.*read_from_replicas.*:DeprecationWarning")
async def test_a_cluster_client_of_ones_own_serves_whatever_its_settings(
    cluster: Cluster, options: dict[str, Any]
) -> None:
    client = RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, **options)
    async with RedisCooldownTracker(client) as tracker, RedisCooldownTracker(cluster.url) as other:
        await assert_shared(tracker, other)
        await assert_pairs_are_shared(tracker, other)
    assert await client.ping()
    await client.aclose()


async def assert_pairs_are_shared(one: RedisCooldownTracker, other: RedisCooldownTracker) -> None:
    sessions = [f"{number:026d}" for number in range(300)]
    held = await asyncio.gather(*(one.acquire(session, "sms", lease=LEASE) for session in sessions))
    assert {each.window for each in held} == {"shared"}
    refused = await asyncio.gather(
        *(other.acquire(session, "sms", lease=LEASE) for session in sessions), return_exceptions=True
    )
    assert {type(each) for each in refused} == {CooldownError}


async def test_every_primary_that_may_evict_keys_is_warned_about(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    node = cluster.primaries()[1]
    cluster.command(node, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        async with RedisCooldownTracker(cluster.url) as tracker:
            await tracker.acquire(SESSION, "sms", lease=LEASE)
    finally:
        cluster.command(node, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    (record,) = caplog.records
    assert "allkeys-lru" in record.getMessage()


async def test_a_cluster_that_does_not_show_its_settings_serves_as_well(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    for node in cluster.nodes:
        cluster.command(node, "ACL", "SETUSER", "quiet", "on", ">hunter2", "~*", "&*", "+@all", "-info")
    async with RedisCooldownTracker(cluster.url.replace("//", "//quiet:hunter2@")) as tracker:
        assert (await tracker.acquire(SESSION, "sms", lease=LEASE)).window == "shared"
    for node in cluster.nodes:
        cluster.command(node, "ACL", "DELUSER", "quiet")
    assert caplog.records == []


class Crowd:
    """Clients of several processes that send the same codes at the same time, again and again."""

    def __init__(self, emulator: Emulator, server: str, *, processes: int = 3, timeout: float = 0.25) -> None:
        self._emulator = emulator
        self._server = server
        self._processes = processes
        self._timeout = timeout
        self.ended: Counter[str] = Counter()
        self.longest = 0.0
        self.sessions: list[str] = []
        self.records: list[Record] = []

    async def send_while(self, happening: asyncio.Task[Any]) -> None:
        """Send, until something has happened, and once more."""
        async with contextlib.AsyncExitStack() as stack:
            trackers = [
                await stack.enter_async_context(RedisCooldownTracker(self._server, timeout=self._timeout))
                for _ in range(self._processes)
            ]
            clients = [
                await stack.enter_async_context(
                    KodmobiClient(
                        self._emulator.api_key,
                        base_url=self._emulator.base_url,
                        cooldowns=tracker,
                        hooks=[self.records.append],
                    )
                )
                for tracker in trackers
            ]
            while not happening.done():
                await self._send_to_a_few(clients)
                await asyncio.sleep(0.02)  # the servers have their own work to do meanwhile
            await happening
            for tracker in trackers:
                await back_to_normal(tracker)
            before = self.ended["sent, shared"]
            await self._send_to_a_few(clients)
            assert self.ended["sent, shared"] > before

    async def _send_to_a_few(self, clients: list[KodmobiClient]) -> None:
        sessions = [self._emulator.add_session() for _ in range(10)]
        self.sessions += sessions
        await asyncio.gather(*(self._send(client, session) for client in clients for session in sessions))

    async def _send(self, client: KodmobiClient, session: str) -> None:
        began = time.monotonic()
        try:
            result = await client.send(session, "sms")
        except CooldownError:
            self.ended["refused"] += 1
        else:
            self.ended[f"sent, {result.window}"] += 1
        self.longest = max(self.longest, time.monotonic() - began)

    def judge(self) -> None:
        """Let the service's own ledger say whether all of this was right: one code each, and each send that says so."""
        codes = [len(self._emulator.delivered(session)) for session in self.sessions]
        assert set(codes) == {1}
        assert self.ended["sent, shared"] + self.ended["sent, local"] == len(self.sessions)
        degraded = sum(isinstance(record, TrackerDegraded) for record in self.records)
        assert degraded >= self.ended["sent, local"]
        # two decisions; the rest is for the request, on a busy machine
        assert self.longest < 2 * self._timeout + 3.0


async def test_keys_that_move_between_nodes_lose_nothing(cluster: Cluster, emulator: Emulator) -> None:
    async with (
        RedisCooldownTracker(cluster.url, timeout=2.0) as tracker,
        RedisCooldownTracker(cluster.url, timeout=2.0) as other,
    ):
        held = [await tracker.acquire(f"{number:026d}", "sms", lease=LEASE) for number in range(30)]
        slots = {cluster.command(cluster.nodes[0], "CLUSTER", "KEYSLOT", each.key) for each in held}

        def move() -> None:
            for slot in slots:
                source = cluster.primary_of_slot(slot)
                target = next(node for node in cluster.primaries() if node is not source)
                cluster.move_slot(slot, source, target)

        crowd = Crowd(emulator, cluster.url, timeout=2.0)  # long enough for a machine that is busy with all of this
        await crowd.send_while(asyncio.create_task(asyncio.to_thread(move)))
        crowd.judge()
        assert crowd.ended["sent, local"] == 0
        for number in range(30):
            with pytest.raises(CooldownError):
                await other.acquire(f"{number:026d}", "sms", lease=LEASE)
        for each in held:
            await tracker.start(each, 60.0)
            assert (each.window, each.degraded) == ("shared", None)


async def test_a_primary_that_is_killed_costs_no_second_code(
    cluster: Cluster, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    victim = cluster.primaries()[0]

    def kill() -> None:
        time.sleep(0.3)
        victim.kill()
        wait_until(lambda: len(cluster.primaries()) == 3)
        time.sleep(0.5)

    crowd = Crowd(emulator, cluster.url)
    try:
        await crowd.send_while(asyncio.create_task(asyncio.to_thread(kill)))
    finally:
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(cluster.settle)
    crowd.judge()
    assert crowd.ended["sent, local"] > 0
    # once for each process: nodes that still serve do not end the outage
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) <= 2 * 3


# -- Sentinels ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    with running_sentinels() as sentinels:
        yield sentinels


async def test_sentinels_name_the_primary(sentinels: Sentinels) -> None:
    hosts = [("127.0.0.1", port) for port in sentinels.ports]
    sentinel = Sentinel(hosts)  # type: ignore[no-untyped-call]
    client = sentinel.master_for(sentinels.SERVICE, decode_responses=True)
    async with RedisCooldownTracker(client) as tracker, RedisCooldownTracker(f"{sentinels.url}/0") as other:
        await tracker.ping()
        await other.ping()
        await assert_shared(tracker, other)
    await client.aclose()
    await sentinel.aclose()


async def test_a_replica_that_a_sentinel_names_is_a_wrong_set_up(sentinels: Sentinels) -> None:
    sentinel = Sentinel([("127.0.0.1", sentinels.ports[0])])  # type: ignore[no-untyped-call]
    client = sentinel.slave_for(sentinels.SERVICE)
    async with RedisCooldownTracker(client) as tracker:
        with pytest.raises(ConfigurationError, match="read-only replica"):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
    await client.aclose()
    await sentinel.aclose()


async def test_a_service_that_no_sentinel_knows_is_a_wrong_set_up(sentinels: Sentinels) -> None:
    await assert_wrong(sentinels.url.replace(sentinels.SERVICE, "other"), "no Sentinel knows the service")


async def test_sentinels_that_name_no_primary_are_an_outage(sentinels: Sentinels) -> None:
    with sentinels.watching_nothing("down") as address:
        async with RedisCooldownTracker(address) as tracker:
            assert (await tracker.acquire(SESSION, "sms", lease=LEASE)).degraded == "MasterNotFoundError"


@pytest.fixture
def own_sentinels() -> Iterator[Sentinels]:
    """Return Sentinels whose primary may be killed."""
    with running_sentinels() as sentinels:
        yield sentinels


async def test_a_failover_costs_no_second_code(own_sentinels: Sentinels, emulator: Emulator) -> None:
    old = own_sentinels.primary()

    def kill() -> None:
        time.sleep(0.3)
        old.kill()
        wait_until(lambda: own_sentinels.primary() is not old)
        time.sleep(0.5)

    crowd = Crowd(emulator, own_sentinels.url)
    await crowd.send_while(asyncio.create_task(asyncio.to_thread(kill)))
    crowd.judge()
    assert crowd.ended["sent, local"] > 0


# -- what a failover can lose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [False, True], ids=["lost", "lost and taken"])
async def test_a_reservation_that_the_server_has_lost_is_told(
    valkey: Valkey, emulator: Emulator, session: str, taken: bool
) -> None:
    async with RedisCooldownTracker(valkey.url) as tracker, RedisCooldownTracker(valkey.url) as other:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        with valkey.client() as client:
            client.flushall()
        if taken:
            await other.acquire(SESSION, "sms", lease=LEASE)
        await tracker.start(held, 60.0)
        assert (held.window, held.degraded) == ("local", "reservation lost")


async def test_a_start_after_the_lease_is_not_taken_for_a_loss(valkey: Valkey) -> None:
    async with RedisCooldownTracker(valkey.url) as tracker:
        held = await tracker.acquire(SESSION, "sms", lease=0.05)
        await asyncio.sleep(0.1)
        await tracker.start(held, 60.0)
        assert (held.window, held.degraded) == ("shared", None)


# -- a wrong set-up ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def guest(valkey: Valkey, *rules: str) -> Iterator[str]:
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "guest", "on", ">hunter2", *rules)
        try:
            yield valkey.url.replace("//", "//guest:hunter2@")
        finally:
            client.execute_command("ACL", "DELUSER", "guest")


async def assert_wrong(server: str, words: str) -> None:
    """Look whether every use says what is wrong, without the address."""
    async with RedisCooldownTracker(server, timeout=1.0) as tracker:
        for use in (
            tracker.ping(),
            tracker.acquire(SESSION, "sms", lease=LEASE),
            tracker.acquire(SESSION, "sms", lease=LEASE),
        ):
            with pytest.raises(ConfigurationError, match=words) as caught:
                await use
            shown = "".join(traceback.format_exception(caught.value))
            assert "hunter2" not in shown
            assert "127.0.0.1" not in shown
        assert tracker._store.outage is None


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (("~*", "&*", "+@all", "-evalsha"), "ACL"),
        (("~*", "&*", "+@all", "-set"), "ACL"),
        (("~other:*", "&*", "+@all"), "ACL"),
    ],
    ids=str,
)
async def test_missing_rights_are_a_wrong_set_up(valkey: Valkey, rules: tuple[str, ...], words: str) -> None:
    with guest(valkey, *rules) as url:
        await assert_wrong(url, words)


@pytest.mark.parametrize(("change", "words"), WRONG_ADDRESSES, ids=str)
async def test_a_wrong_address_is_a_wrong_set_up(valkey: Valkey, change: tuple[str, str], words: str) -> None:
    await assert_wrong(valkey.url.replace(*change), words)


async def test_a_node_of_a_cluster_is_a_wrong_set_up(cluster: Cluster) -> None:
    async with RedisCooldownTracker(cluster.primaries()[0].url) as tracker:
        results = await asyncio.gather(
            *(tracker.acquire(f"{number:026d}", "sms", lease=LEASE) for number in range(30)), return_exceptions=True
        )
        wrong = [result for result in results if isinstance(result, ConfigurationError)]
        assert wrong  # this node may serve some of them
        assert "redis+cluster" in str(wrong[0])
        assert tracker._store.outage is None


async def test_a_replica_is_a_wrong_set_up() -> None:
    with running_valkey(replicaof="127.0.0.1 1") as replica:
        await assert_wrong(replica.url, "read-only replica")


async def test_something_else_than_a_server_is_a_wrong_set_up() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        await assert_wrong(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", "protocol")


async def test_a_certificate_that_is_not_trusted_is_a_wrong_set_up() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        await assert_wrong(f"rediss://localhost:{server.sockets[0].getsockname()[1]}", "certificate")


async def test_a_server_that_becomes_a_replica_is_unavailable(emulator: Emulator, session: str) -> None:
    with running_valkey() as valkey:
        async with RedisCooldownTracker(valkey.url) as tracker:
            held = await tracker.acquire(SESSION, "sms", lease=LEASE)
            with valkey.client() as client:
                client.replicaof("127.0.0.1", "1")
                await tracker.start(held, 60.0)
                assert (held.window, held.degraded) == ("local", "ReadOnlyError")
                client.replicaof("NO", "ONE")
                await back_to_normal(tracker)
                assert await tracker.remaining(OTHER, "sms") == 0.0


async def test_a_set_up_that_turns_out_wrong_when_an_outage_ends_is_told() -> None:
    with running_valkey() as valkey:
        valkey.kill()
        async with RedisCooldownTracker(valkey.url.replace("//", "//guest:hunter2@")) as tracker:
            held = await tracker.acquire(SESSION, "sms", lease=LEASE)
            assert held.window == "local"
            await tracker.start(held, 60.0)
            valkey.start()
            await asyncio.to_thread(wait_until, lambda: tracker._store.outage is None)
            with pytest.raises(ConfigurationError, match="user and password"):
                await tracker.acquire(OTHER, "sms", lease=LEASE)
            await tracker.observe(OTHER, "sms", 30.0)  # which does not fail for it
            assert 29.0 < await tracker.remaining(OTHER, "sms") <= 30.0


async def test_a_ping_finds_rights_that_are_needed_later(valkey: Valkey) -> None:
    for command in ("pttl", "pexpire", "del", "get", "set"):
        with guest(valkey, "~*", "&*", "+@all", f"-{command}") as url:
            async with RedisCooldownTracker(url) as tracker:
                with pytest.raises(ConfigurationError, match="ACL"):
                    await tracker.ping()


async def test_a_ping_is_content_with_a_server_that_works(valkey: Valkey) -> None:
    async with RedisCooldownTracker(valkey.url) as tracker:
        await tracker.ping()
        await tracker.ping()
        assert await tracker.remaining(SESSION, "sms") == 0.0


async def test_a_ping_without_a_server_says_so() -> None:
    async with RedisCooldownTracker("redis://127.0.0.1:1") as tracker:
        with pytest.raises(CooldownUnavailableError) as caught:
            await tracker.ping()
        assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    "server",
    [
        "redis+sentinel://user:hunter2@localhost:26379",
        "redis+sentinel://user:hunter2@localhost:26379/service/x",
        "redis+sentinel://user:hunter2@localhost:port/service",
        "redis+cluster://user:hunter2@",
        "redis+cluster://user:hunter2@localhost/1",
        "redis+cluster://user:hunter2@localhost?no_such_option=1",
        "redis://user:hunter2@localhost?single_connection_client=true",
        "redis://user:hunter2@localhost?no_such_option=1",
    ],
)
def test_an_address_that_cannot_work_fails_where_it_is_written(server: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisCooldownTracker(server)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "server",
    [
        "rediss://user:hunter2@localhost",
        "rediss+cluster://user:hunter2@localhost,[::1]:6380/0",
        "rediss+sentinel://user:hunter2@localhost,[::1]:26380/service/1?sentinel_username=u&sentinel_password=hunter2",
        "unix:///tmp/valkey.sock",
    ],
)
def test_an_address_may_have_all_that_a_server_needs(server: str) -> None:
    assert repr(RedisCooldownTracker(server)) == "<RedisCooldownTracker 'kodmobi:'>"


@pytest.mark.parametrize("options", ["?encoding=utf-16", "?decode_responses=true", "?protocol=3", "?max_connections=2"])
async def test_options_of_an_address_that_do_not_matter_do_no_harm(valkey: Valkey, options: str) -> None:
    async with RedisCooldownTracker(valkey.url + options) as tracker, RedisCooldownTracker(valkey.url) as other:
        await assert_shared(tracker, other)
