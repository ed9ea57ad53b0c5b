"""What a run of many sends reads from: an iterable, or an asynchronous one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import Final, cast

from kodmobi_async._values.errors import ConfigurationError

END: Final = object()
"""What comes after the last request."""


class Source:
    """The input. An asynchronous one is read by one worker at a time."""

    def __init__(self, requests: object) -> None:
        self.is_open = True
        self.is_async = isinstance(requests, AsyncIterable)
        self._reader: asyncio.Task[object] | None = None
        if isinstance(requests, AsyncIterable):
            self._later = aiter(cast("AsyncIterable[object]", requests))
        elif isinstance(requests, Iterable) and not isinstance(requests, (str, bytes)):
            self._now = iter(cast("Iterable[object]", requests))
        else:
            raise ConfigurationError(f"requests takes an iterable of requests, not {type(requests).__name__}")

    @property
    def is_being_read(self) -> bool:
        """Whether somebody waits for the next request of an asynchronous input."""
        return self._reader is not None

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
        """Return the next of an asynchronous iterable's requests, or ``END``; not while it is being read."""
        self._reader = asyncio.current_task()
        try:
            return await anext(self._later)
        except BaseException as end:
            self.is_open = False
            if not isinstance(end, StopAsyncIteration):
                raise
        finally:
            self._reader = None
        return END

    def stop(self) -> None:
        """Read nothing more, and cancel a read of an asynchronous input that has not returned."""
        self.is_open = False
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
