"""The tracker that all processes share: the contract, and what only it promises, on a real Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from tracker_contract import TrackerContract

from kodmobi_async.redis import RedisCooldownTracker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from valkey_server import Valkey

pytestmark = pytest.mark.real_clock


@pytest.fixture
async def tracker(valkey: Valkey) -> AsyncIterator[RedisCooldownTracker]:
    async with RedisCooldownTracker(valkey.url) as tracker:
        yield tracker


class TestRedisCooldownTracker(TrackerContract):
    # a second of the contract's times is 5 ms of the server's
    scale: ClassVar[float] = 0.005
    grain: ClassVar[float] = 0.02
    slack: ClassVar[float] = 1.0
    windows: ClassVar[tuple[float, ...]] = (20.0, 40.0)
