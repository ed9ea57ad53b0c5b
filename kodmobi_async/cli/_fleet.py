"""``kodmobi bulk --queue``: rows go to a fleet of workers through Redis Streams, and their outcomes come back.

The workers' side is `kodmobi_async.integrations.taskiq.add_resend`. A row's task has the same id however often it is
handed over, so a row that was in the queue when a run ended is asked for again, not sent again. One whose outcome is
known, and that is to be sent again, gets another.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from kodmobi_async import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from kodmobi_async import SendResult
    from kodmobi_async.cli._rows import Row

__all__ = ("fleet",)

_EXTRAS: Final = frozenset({"taskiq", "taskiq_redis", "redis"})


@contextlib.asynccontextmanager
async def fleet(url: str, run: str) -> AsyncGenerator[Callable[[Row], Awaitable[SendResult]]]:
    """Connect to the queue, and yield what hands over a row and waits for its result.

    Args:
        url: Of the Redis or Valkey server.
        run: What the ids of the tasks begin with; the same for a run that goes on.

    Raises:
        ConfigurationError: The extra is missing, or the server is unavailable.
    """
    try:
        from taskiq.serializers import JSONSerializer  # noqa: PLC0415 of an extra
        from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker  # noqa: PLC0415 of an extra

        from kodmobi_async.integrations.taskiq import add_resend, send_through  # noqa: PLC0415 needs an extra
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRAS:
            raise
        raise ConfigurationError("--queue needs its extra: pip install 'kodmobi_async[cli,queue]'") from None
    try:
        results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(url, serializer=JSONSerializer())
        broker = RedisStreamBroker(url).with_result_backend(results)
        resend = add_resend(broker)
        await broker.startup()
    except Exception as error:  # noqa: BLE001 of the address, of the network, of the server: all mean the same here
        raise ConfigurationError(f"--queue: the server is unavailable ({type(error).__name__})") from None

    async def send(row: Row) -> SendResult:
        handed_over = send_through(resend, [row], outstanding=1, task_id=lambda _: f"{run}:{row.line}:{row.tries}")
        async with contextlib.aclosing(handed_over) as outcomes:
            outcome = await anext(outcomes)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None  # noqa: S101 an outcome has one of the two
        return outcome.result

    try:
        yield send
    finally:
        await broker.shutdown()
