"""`SendMany`: many sends, a bounded number of them at a time, as an asynchronous iterator over their outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Protocol, cast

from kodmobi_async._calls.postponed import Later
from kodmobi_async._calls.run import Run
from kodmobi_async._values.models import SendOutcome, SendRequest
from kodmobi_async._values.settings import CLOSE_GRACE, check_concurrency, check_max_wait, check_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import AsyncGeneratorType, TracebackType
    from typing import Self

    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._calls.postponed import Item
    from kodmobi_async._calls.run import Requests
    from kodmobi_async._rules.cooldown import CooldownTracker
    from kodmobi_async._values.models import SendResult

PAUSES_IN_A_ROW: Final = 3
"""How often a run pauses for a limit of the account with no other answer in between."""


class RunJournal(Protocol):
    """What keeps account of a run: `kodmobi_async.journal.Journal`."""

    def items(
        self,
        requests: Requests,
        *,
        client: KodmobiClient,
        cooldowns: CooldownTracker,
        concurrency: int,
        retry_failed: bool,
    ) -> AsyncIterator[Item]:
        """Return what is read instead of the requests."""
        ...


class SendMany(AsyncIterator[SendOutcome]):
    """The outcomes of many sends, as they finish.

    When the loop over it is left early, nothing more is begun, and what is in flight gets ``grace`` seconds to finish.
    Use ``async with``, or call `aclose`, to wait for that; `unread` then has the outcomes.

    Args:
        requests: What to send; each a `SendRequest` or a pair.
        send: Sends one, without waiting for its cooldown.
        remaining: Says how long a request's channel is still blocked, in seconds.
        worth_waiting: Returns how much of a wait makes sense for a request; by default all of it.
        concurrency: How many are in flight at most.
        max_wait: Seconds that a request waits for its cooldown.
        grace: Seconds for what is in flight when the loop is left early; then it is cancelled.
        pauses: How often the run pauses for a limit of the account with no other answer in between.
        on_stop: Called when nothing more is begun.

    Raises:
        ConfigurationError: A setting cannot be used, or ``requests`` are nothing to iterate over.
    """

    def __init__(
        self,
        requests: Requests,
        send: Callable[[SendRequest], Awaitable[SendResult]],
        *,
        remaining: Callable[[SendRequest], Awaitable[float]],
        worth_waiting: Callable[[SendRequest, float], float] | None = None,
        concurrency: int = 64,
        max_wait: float = 0.0,
        grace: float = CLOSE_GRACE,
        pauses: int = PAUSES_IN_A_ROW,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        self._run = Run(
            requests,
            send,
            remaining=remaining,
            later=Later(check_max_wait(max_wait), worth_waiting, pauses),
            concurrency=check_concurrency(concurrency),
            grace=check_seconds("grace", grace, zero=True),
            on_stop=on_stop,
        )
        self._outcomes = cast("AsyncGeneratorType[SendOutcome, None]", self._run.outcomes())

    @property
    def done(self) -> int:
        """How many outcomes were handed out."""
        return self._run.done

    @property
    def unread(self) -> tuple[SendOutcome, ...]:
        """The outcomes that were not handed out; all of them, once closed."""
        return self._run.unread

    @property
    def paused_for(self) -> float:
        """Seconds for which the run still pauses for a limit of the account; 0.0 = it goes on."""
        return self._run.paused_for

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[SendOutcome]:
        """Return the next outcome.

        Raises:
            BulkStoppedError: Something is wrong with the account; all that was begun has been handed out before.
        """
        return anext(self._outcomes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def stop(self) -> None:
        """Begin nothing more. What is in flight is finished and handed out; then the iteration is over."""
        self._run.stop()

    async def aclose(self) -> None:
        """Begin nothing more, and wait until nothing is in flight; a caller that is cancelled waits no longer.

        Where another task is iterating, it gets the outcomes that are left.
        """
        if self._outcomes.ag_running:
            await self._run.settle()
        else:
            await self._outcomes.aclose()
