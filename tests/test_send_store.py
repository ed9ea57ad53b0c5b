"""What is known of sends in a fleet: the same in memory and on real servers, of every kind that taskiq-redis knows."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
from taskiq import InMemoryBroker
from taskiq.brokers.inmemory_broker import InmemoryResultBackend
from taskiq.result_backends.dummy import DummyResultBackend
from taskiq_redis import (
    RedisAsyncClusterResultBackend,
    RedisAsyncResultBackend,
    RedisAsyncSentinelResultBackend,
)
from valkey_server import running_valkey
from valkey_topologies import running_cluster, running_sentinels

from kodmobi_async import CooldownUnavailableError
from kodmobi_async.integrations.taskiq._store import BatchStore, Elsewhere, Finished, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from taskiq import AsyncResultBackend
    from valkey_server import Valkey
    from valkey_topologies import Cluster, Sentinels

pytestmark = pytest.mark.real_clock

REFUSED = {"outcome": "refused", "error": "BalanceError", "words": ["no"], "numbers": {}}


@contextlib.asynccontextmanager
async def opened(backend: AsyncResultBackend[Any], name: str = "test") -> AsyncGenerator[BatchStore]:
    store = open_store(InMemoryBroker().with_result_backend(backend), name)
    assert isinstance(store, BatchStore)
    try:
        yield store
    finally:
        await store.aclose()
        await backend.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    with running_sentinels() as sentinels:
        yield sentinels


@pytest.fixture(params=["memory", "redis", "redis, text", "redis, RESP3", "cluster", "sentinel"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[BatchStore]:
    async with opened(make_backend(request)) as store:
        yield store


def make_backend(request: pytest.FixtureRequest) -> AsyncResultBackend[Any]:
    if request.param == "memory":
        return InmemoryResultBackend()
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        return RedisAsyncClusterResultBackend(f"redis://127.0.0.1:{cluster.nodes[0].port}")
    if request.param == "sentinel":
        sentinels: Sentinels = request.getfixturevalue("sentinels")
        return RedisAsyncSentinelResultBackend([("127.0.0.1", port) for port in sentinels.ports], sentinels.SERVICE)
    valkey: Valkey = request.getfixturevalue("valkey")
    options: dict[str, dict[str, Any]] = {"redis, text": {"decode_responses": True}, "redis, RESP3": {"protocol": 3}}
    return RedisAsyncResultBackend(valkey.url, **options.get(request.param, {}))


async def test_of_many_runs_one_begins_a_send(store: BatchStore) -> None:
    found = await asyncio.gather(*(store.begin("a send", f"run {number}") for number in range(50)))
    assert found.count(None) == 1
    others = [each for each in found if each is not None]
    assert all(isinstance(each, Elsewhere) and each.age < 5.0 for each in others)


async def test_a_run_begins_many_sends_at_a_time(store: BatchStore) -> None:
    await store.begin("7", "another")
    found = await asyncio.gather(*(store.begin(str(number), "mine") for number in range(600)))
    assert [number for number, each in enumerate(found) if each is not None] == [7]
    assert await asyncio.gather(*(store.begin(str(number), "mine") for number in range(5))) == [None] * 5


async def test_an_id_may_be_anything(store: BatchStore) -> None:
    ids = ["", "\n", "%0A", "a\nb", "a%0Ab", "ключ", "x y:z"]
    assert await asyncio.gather(*(store.begin(each, "mine") for each in ids)) == [None] * len(ids)
    held = [await store.begin(each, "another") for each in ids]
    assert all(isinstance(each, Elsewhere) for each in held)
    for each in ids:
        await store.finish(each, {"id": each})
    assert [await store.begin(each, "another") for each in ids] == [Finished({"id": each}) for each in ids]


async def test_a_send_that_was_released_may_begin_elsewhere(store: BatchStore) -> None:
    await store.begin("released", "mine")
    await store.release("released", "another")
    assert isinstance(await store.begin("released", "another"), Elsewhere)
    await store.release("released", "mine")
    assert await store.begin("released", "another") is None


async def test_a_send_keeps_the_first_of_its_outcomes(store: BatchStore) -> None:
    await store.begin("finished", "mine")
    await store.finish("finished", REFUSED)
    await store.finish("finished", {"outcome": "accepted"})
    assert await store.begin("finished", "another") == Finished(REFUSED)


async def test_reports_are_read_in_order_and_their_outcomes_are_kept(store: BatchStore) -> None:
    reading = asyncio.create_task(store.read("mine", "0", timeout=10.0))
    await store.publish("mine", b"first", [("one", b'{"outcome":"accepted"}'), ("two", b"")])
    position, reports = await reading
    assert reports == [b"first"]
    assert await store.begin("one", "another") == Finished({"outcome": "accepted"})
    assert await store.begin("two", "another") == Finished(None)
    for number in range(3):
        await store.publish("mine", b"%d" % number, [])
    await store.publish("another", b"none of mine", [])
    await store.forget("mine", position)
    position, reports = await store.read("mine", position, timeout=10.0)
    assert reports == [b"0", b"1", b"2"]
    assert await store.read("mine", position, timeout=0.01) == (position, [])
    await store.forget("mine")
    assert (await store.read("mine", "0", timeout=0.01))[1] == []


async def test_each_task_has_sends_of_its_own(valkey: Valkey) -> None:
    async with (
        opened(RedisAsyncResultBackend(valkey.url), "one") as one,
        opened(RedisAsyncResultBackend(valkey.url), "another") as another,
    ):
        assert await one.begin("x", "a") is None
        assert await another.begin("x", "b") is None


def test_without_the_extra_single_tasks_are_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "taskiq_redis", None)
    monkeypatch.delitem(sys.modules, "kodmobi_async.integrations.taskiq._redis_store")
    broker = InMemoryBroker().with_result_backend(DummyResultBackend())
    assert not isinstance(open_store(broker, "test"), BatchStore)


async def test_what_is_kept_expires(valkey: Valkey) -> None:
    async with opened(RedisAsyncResultBackend(valkey.url), "expires") as store:
        await store.begin("begun", "mine")
        await store.finish("finished", REFUSED)
        await store.publish("results", b"report", [("published", b"")])
    with valkey.client() as client:
        keys = client.keys("kodmobi:{expires}:*")
        assert isinstance(keys, list)
        assert len(keys) == 4
        assert all(86_000 < client.ttl(key) <= 86_400 for key in keys)


async def test_a_server_that_is_away_is_said_to_be() -> None:
    with running_valkey() as server:
        async with opened(RedisAsyncResultBackend(server.url)) as store:
            assert await store.begin("before", "mine") is None
            server.kill()
            for call in (
                store.begin("x", "mine"),
                store.finish("x", REFUSED),
                store.publish("results", b"", []),
                store.read("results", "0", timeout=0.1),
            ):
                with pytest.raises(CooldownUnavailableError, match="results is unavailable"):
                    await call
            await store.release("before", "mine")
            await store.forget("results", "1-0")
            server.start()
            assert await store.begin("x", "mine") is None


async def test_a_caller_that_is_cancelled_disturbs_no_other(valkey: Valkey) -> None:
    async with opened(RedisAsyncResultBackend(valkey.url), "cancelled") as store:
        first, second = (asyncio.ensure_future(store.begin(name, "mine")) for name in "ab")
        first.cancel()
        assert await second is None
    with running_valkey() as server:
        async with opened(RedisAsyncResultBackend(server.url)) as store:
            server.kill()
            first, second = (asyncio.ensure_future(store.begin(name, "mine")) for name in "ab")
            first.cancel()
            with pytest.raises(CooldownUnavailableError):
                await second
