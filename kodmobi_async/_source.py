"""What a run of many sends reads from: an iterable or an asynchronous one, read by one worker at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import Final, cast

from kodmobi_async._errors import ConfigurationError

END: Final = object()
"""What comes after the last request."""


class Source:
    """The input, read by one worker at a time."""

    def __init__(self, requests: object) -> None:
        self.is_open = True
        self.is_async = isinstance(requests, AsyncIterable)
        self._reader: asyncio.Task[object] | None = None
        self._in_line: deque[asyncio.Future[None]] = deque()
        if isinstance(requests, AsyncIterable):
            self._later = aiter(cast("AsyncIterable[object]", requests))
        elif isinstance(requests, Iterable) and not isinstance(requests, (str, bytes)):
            self._now = iter(cast("Iterable[object]", requests))
        else:
            raise ConfigurationError(f"requests takes an iterable of requests, not {type(requests).__name__}")

    def next(self) -> object:
        """Return the next of an iterable's requests, or ``END``."""
        try:
            return next(self._now)
        except BaseException as end:
            self.is_open = False
            if not isinstance(end, StopIteration):
                raise
        return END

    async def anext(self) -> object:
        """Return the next of an asynchronous iterable's requests, or ``END``.

        Not an `asyncio.Lock`: it is handed on from turn to turn, one request each, even where nobody has to wait.
        """
        while self._reader is not None:
            await self._stand_in_line()
        if not self.is_open:
            return END
        self._reader = asyncio.current_task()
        try:
            return await anext(self._later)
        except BaseException as end:
            self.is_open = False
            if not isinstance(end, StopAsyncIteration):
                raise
        finally:
            self._reader = None
            self._call_next()
        return END

    def stop(self) -> None:
        """Read nothing more. Whoever waits for an asynchronous input waits no longer."""
        self.is_open = False
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()

    async def _stand_in_line(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_line.append(turn)
        try:
            await turn
        except BaseException:
            self._call_next()  # this may have been its turn
            raise
        if not self.is_open:
            self._call_next()  # there is nothing to read that would do it

    def _call_next(self) -> None:
        while self._in_line:
            turn = self._in_line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
