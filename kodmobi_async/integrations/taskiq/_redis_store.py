"""The sends of a fleet in Redis: a key each, and a stream of reports for each feeder.

The value of a key is ``s``, the token of the run that has begun the send, and the server's time in milliseconds; or
``d`` and the outcome in JSON. All keys of a task share a hash slot, so that a script may touch several of them in a
cluster, too.

The sends that begin in one turn of the event loop are one command. While it is under way, the next ones gather.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import quote

from orjson import dumps, loads
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError
from taskiq_redis import (
    RedisAsyncClusterResultBackend,
    RedisAsyncResultBackend,
    RedisAsyncSentinelResultBackend,
)

from kodmobi_async._values.errors import CooldownUnavailableError
from kodmobi_async.integrations.taskiq._store import BatchStore, Elsewhere, Finished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskiq import AsyncResultBackend

T = TypeVar("T")
R = TypeVar("R")
Client: TypeAlias = Any
"""A ``Redis`` or a ``RedisCluster``; their types say little that a checker understands."""

_MOST: Final = 256
"""Sends in a command."""
_MANY: Final = 4
"""Sends in a command after which more are waited for, for a moment: a busy worker gathers, an idle one does not."""
_GATHERING: Final = 0.0015
"""Seconds of that moment."""
_TIMEOUT: Final = 10.0
"""Seconds for a command."""
_MOST_REPORTS: Final = 100
"""Reports that are read at a time."""


class _Script:
    """A script, and its digest by which the server knows it once it has run it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Client, key: str, *arguments: str | int | bytes) -> Any:
        """Run it."""
        operands = (1, key, *arguments)
        async with asyncio.timeout(_TIMEOUT):
            try:
                return await client.execute_command("EVALSHA", self._digest, *operands)
            except NoScriptError:
                return await client.execute_command("EVAL", self._text, *operands)


# All take what the names of keys begin with as the key: each name has the same hash tag, so all are in one slot. Names
# and tokens come as lines, which are parsed in a fraction of the time that as many arguments take.

# Replies 0 if all have begun; else a list of what is held: '' = begun, 's' and its age in ms, or 'd' and the outcome.
_BEGIN: Final = _Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found, all = {}, true
for id, token in string.gmatch(ARGV[2], '([^\\n]+)\\n([^\\n]+)\\n') do
  local key = KEYS[1] .. id
  local held = redis.call('GET', key)
  local mine = 's' .. token .. ':'
  if not held or string.sub(held, 1, #mine) == mine then
    redis.call('SET', key, string.format('%s%.0f', mine, now), 'PX', ARGV[1])
    found[#found + 1] = ''
  else
    all = false
    if string.sub(held, 1, 1) == 'd' then
      found[#found + 1] = held
    else
      found[#found + 1] = string.format('s%.0f', now - tonumber(string.match(held, ':(%d+)$')))
    end
  end
end
return all and 0 or found
""")

_RELEASE: Final = _Script("""
for id, token in string.gmatch(ARGV[1], '([^\\n]+)\\n([^\\n]+)\\n') do
  local key = KEYS[1] .. id
  local held = redis.call('GET', key)
  local mine = 's' .. token .. ':'
  if held and string.sub(held, 1, #mine) == mine then
    redis.call('DEL', key)
  end
end
return 0
""")

# JSON has no line breaks of its own.
_FINISH: Final = _Script("""
if ARGV[2] ~= '' then
  local results = KEYS[1] .. ARGV[2]
  redis.call('XADD', results, '*', 'r', ARGV[3])
  redis.call('PEXPIRE', results, ARGV[1])
end
for id, outcome in string.gmatch(ARGV[4], '([^\\n]+)\\n([^\\n]*)\\n') do
  local key = KEYS[1] .. id
  local held = redis.call('GET', key)
  if not held or string.sub(held, 1, 1) ~= 'd' then
    redis.call('SET', key, 'd' .. outcome, 'PX', ARGV[1])
  end
end
return 0
""")


class _Gathering(Generic[T, R]):
    """Calls of one turn of the event loop as one; while it is under way, the next ones gather.

    Args:
        run: Does it for many.
    """

    def __init__(self, run: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._run = run
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._is_scheduled = False

    def __call__(self, item: T) -> asyncio.Future[R]:
        """Do it for one, along with others."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._start)
        return future

    def _start(self) -> None:
        self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            busy = len(group) >= _MANY
            futures = [future for _, future in group]
            try:
                replies = await self._run([item for item, _ in group])
            except Exception as error:  # noqa: BLE001 whatever the library raises
                for future in futures:
                    if not future.done():
                        future.set_exception(_unavailable(error))
                continue
            for future, reply in zip(futures, replies, strict=True):
                if not future.done():
                    future.set_result(reply)
            if busy:
                await asyncio.sleep(_GATHERING)
        self._is_scheduled = False


class RedisStore(BatchStore):
    """Sends that all processes with one Redis share.

    Args:
        client: Of the server.
        task_name: The keys begin with it.
        keep: Seconds for which a send is remembered.
        owned: Whether the client is closed with the store.
    """

    def __init__(self, client: Client, task_name: str, keep: float, *, owned: bool) -> None:
        self._client = client
        self._prefix = f"kodmobi:{{{task_name}}}:"
        self._keep = round(keep * 1000)
        self._owned = owned
        self._begin_gathered = _Gathering(self._begin)
        self._release_gathered = _Gathering(self._release)

    def begin(self, send_id: str, token: str) -> Awaitable[Elsewhere | Finished | None]:
        """Begin a send."""
        return self._begin_gathered((send_id, token))

    async def _begin(self, sends: Sequence[tuple[str, str]]) -> Sequence[Elsewhere | Finished | None]:
        reply = await _BEGIN(self._client, self._prefix, self._keep, _lines(sends))
        return [None] * len(sends) if reply == 0 else [_held(_bytes(each)) for each in reply]

    def release(self, send_id: str, token: str) -> Awaitable[None]:
        """Let other runs begin a send; if the server is unavailable, they will ask the service about it."""
        return self._release_gathered((send_id, token))

    async def _release(self, sends: Sequence[tuple[str, str]]) -> Sequence[None]:
        with contextlib.suppress(RedisError, TimeoutError):
            await _RELEASE(self._client, self._prefix, _lines(sends))
        return [None] * len(sends)

    async def finish(self, send_id: str, outcome: dict[str, Any]) -> None:
        """Keep the outcome of a send."""
        await self.publish("", b"", [(send_id, dumps(outcome))])

    async def publish(self, results: str, report: bytes, finished: Sequence[tuple[str, bytes]]) -> None:
        """Append a report, and keep the outcomes in it."""
        lines = b"".join([b"%b\n%b\n" % (_name(send_id).encode(), outcome) for send_id, outcome in finished])
        try:
            await _FINISH(self._client, self._prefix, self._keep, results, report, lines)
        except (RedisError, OSError) as error:
            raise _unavailable(error) from None

    async def read(self, results: str, after: str, *, timeout: float) -> tuple[str, list[bytes]]:  # noqa: ASYNC109 of the server
        """Return the reports after a position; wait for one."""
        stream: dict[Any, Any] = {self._prefix + results: after}
        try:
            async with asyncio.timeout(timeout + _TIMEOUT):
                reply: Any = await self._client.xread(stream, count=_MOST_REPORTS, block=round(timeout * 1000))
        except (RedisError, OSError) as error:
            raise _unavailable(error) from None
        if not reply:
            return after, []
        entries = _entries(reply)
        return entries[-1][0].decode(), [report for _, report in entries]

    async def forget(self, results: str, position: str | None = None) -> None:
        """Delete the reports up to a position; where the server is unavailable, they expire."""
        name = self._prefix + results
        with contextlib.suppress(RedisError, OSError):
            if position is None:
                await self._client.delete(name)
            else:
                time, _, number = position.partition("-")
                await self._client.xtrim(name, minid=f"{time}-{int(number) + 1}", approximate=False)

    async def aclose(self) -> None:
        """Close the client, if it is the store's own."""
        if self._owned:
            await self._client.aclose()


def open_redis_store(backend: AsyncResultBackend[Any], task_name: str, keep: float) -> RedisStore | None:
    """Return the store where a backend of taskiq-redis keeps its results; ``None`` for other backends."""
    if isinstance(backend, RedisAsyncResultBackend):
        return RedisStore(Redis(connection_pool=backend.redis_pool), task_name, keep, owned=False)
    if isinstance(backend, RedisAsyncClusterResultBackend):
        return RedisStore(backend.redis, task_name, keep, owned=False)
    if isinstance(backend, RedisAsyncSentinelResultBackend):
        sentinel: Any = backend.sentinel
        return RedisStore(sentinel.master_for(backend.master_name), task_name, keep, owned=True)
    return None


def _lines(sends: Sequence[tuple[str, str]]) -> str:
    return "".join([f"{_name(send_id)}\n{token}\n" for send_id, token in sends])


def _name(send_id: str) -> str:
    """Return an id, or what stands for one that is no line."""
    return send_id if send_id and "\n" not in send_id else f"%{quote(send_id)}"


def _entries(reply: dict[Any, list[Any]] | list[tuple[Any, list[Any]]]) -> list[tuple[bytes, bytes]]:
    """Return the ids and the reports of a stream's entries, whatever the protocol."""
    streams = list(reply.items()) if isinstance(reply, dict) else reply
    found = streams[0][1]
    if not isinstance(found[0], tuple):
        found = found[0]  # with RESP3, in one more list
    return [(_bytes(each[0]), _bytes(next(iter(each[1].values())))) for each in found]


def _held(value: bytes) -> Elsewhere | Finished | None:
    if not value:
        return None
    if value.startswith(b"d"):
        return Finished(loads(value[1:]) if len(value) > 1 else None)
    return Elsewhere(int(value[1:]) / 1000)


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value  # by ``decode_responses`` of the user's


def _unavailable(error: Exception) -> CooldownUnavailableError:
    return CooldownUnavailableError(f"the server of the queue's results is unavailable ({type(error).__name__})")
