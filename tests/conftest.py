"""Every asynchronous test runs on a virtual clock, unless it asks for the real one."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest
from ports import kept_port
from valkey_server import running_valkey

from kodmobi_async import KodmobiClient
from kodmobi_async.emulator import Emulator
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from valkey_server import Valkey

pytest.register_assert_rewrite("tracker_contract")

# how long an example takes is a matter of what else the machine does
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_clock: run on the platform's own event loop")
    # a shell starts its background jobs with Ctrl-C ignored, and the programs under test would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("real_clock"):
            # a busy machine may be late, and whoever goes by the real clock sees it; the report names each rerun
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))


def pytest_asyncio_loop_factories(
    config: pytest.Config,
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("real_clock"):
        return {"real": asyncio.SelectorEventLoop}
    return {"virtual": VirtualClockLoop}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    with kept_port() as port:  # it may be closed, and come back
        async with Emulator(port=port) as emulator:
            yield emulator


@pytest.fixture
async def session(emulator: Emulator) -> str:
    return emulator.add_session()


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[KodmobiClient]:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
        yield client


@pytest.fixture(scope="session")
def _valkey() -> Iterator[Valkey]:
    with running_valkey() as valkey:
        yield valkey


@pytest.fixture
def valkey(_valkey: Valkey) -> Valkey:
    """Return a server, common to all tests, that is empty."""
    with _valkey.client() as client:
        client.flushall()
    return _valkey
