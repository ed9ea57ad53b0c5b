"""``kodmobi bulk``: send the rows of an input, show how it gets on, and account for every one of them.

With a journal, a row goes: its turn by ``--rate`` → its intent on the disk → the request → its outcome in the journal.
A run that resumes first asks about every intent without an outcome; what stays unknown is reported, and never sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs

from kodmobi_async._calls.bulk import PAUSES_IN_A_ROW, SendMany
from kodmobi_async._rules.cooldown import MemoryCooldownTracker
from kodmobi_async._rules.pacing import Gate
from kodmobi_async._values.addresses import resolve_base_url
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import (
    BulkStoppedError,
    CooldownError,
    KodmobiError,
    Outcome,
    RateLimitedError,
    SendInterruptedError,
)
from kodmobi_async._values.settings import Limits, check_concurrency, check_max_wait
from kodmobi_async.cli._connect import reached
from kodmobi_async.cli._exits import ExitCode, facts, sentence
from kodmobi_async.cli._files import Files, Report, check_apart
from kodmobi_async.cli._fleet import fleet
from kodmobi_async.cli._journal import Journal, JournalError, State
from kodmobi_async.cli._progress import BAD, Tally
from kodmobi_async.cli._resume import OF_THE_ACCOUNT, Reader, resolve
from kodmobi_async.cli._rows import BadRow, InputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._values.models import SendOutcome, SendRequest, SendResult
    from kodmobi_async.cli._connect import Connection
    from kodmobi_async.cli._journal import Entry
    from kodmobi_async.cli._output import Output
    from kodmobi_async.cli._rows import Input, Row

__all__ = ("Options", "bulk", "check_rows")

T = TypeVar("T")

_AT_ONCE: Final = 2
"""The interrupt that ends the run without waiting for what is under way."""


@attrs.frozen(kw_only=True)
class Options:
    """How to work the input; checked when built.

    Raises:
        ConfigurationError: One of them makes no sense.
    """

    source: str
    channel: str | None
    concurrency: int
    rate: float | None
    max_wait: float
    journal: Path | None
    retry_failed: bool
    files: Files
    quiet: bool
    queue: str | None = attrs.field(default=None, repr=False)
    """Where the workers are that send; ``None``: this process sends."""

    def __attrs_post_init__(self) -> None:
        check_concurrency(self.concurrency)
        check_max_wait(self.max_wait)
        Limits(rate=self.rate)
        check_apart(self.source, self.journal, self.files)


def check_rows(source: Input, output: Output, *, quiet: bool) -> int:
    """Read all rows, send nothing, and tell which are bad."""
    bad = 0
    try:
        for row in source:
            if isinstance(row, BadRow):
                bad += 1
                output.remark(f"line {row.line}: {row.reason}")
    except InputError as error:
        output.error(str(error))
        return ExitCode.STORAGE
    if output.as_json:
        output.write_json({"rows": source.rows, "good": source.rows - bad, BAD: bad})
    elif not quiet:
        output.say(f"{source.rows:,} rows: {source.rows - bad:,} can be sent, {bad:,} are bad; nothing was sent")
    return ExitCode.SOME_FAILED if bad else ExitCode.SENT


async def bulk(connection: Connection, output: Output, source: Input, options: Options) -> int:
    """Send the rows, and tell what became of them."""
    return await _Run(output, source, options).work(connection)


class _Run:
    def __init__(self, output: Output, source: Input, options: Options) -> None:
        self._output = output
        self._source = source
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._tally = Tally(source.rows, self._loop.time())
        self._gate = Gate(options.rate)
        self._cooldowns = MemoryCooldownTracker()
        self._stopping = asyncio.Event()
        self._outcomes: SendMany | None = None
        self._journal: Journal | None = None
        self._interrupts = 0
        self._account: KodmobiError | None = None
        self._storage: str | None = None
        self._reader: Reader
        self._report: Report
        self._client: KodmobiClient
        self._enrol: Callable[[str], None]
        self._hand_over: Callable[[Row], Awaitable[SendResult]] | None = None
        self._handed_over: set[int] = set()
        self._pairs: set[tuple[str, str]] = set()
        """Of the rows that are about to be sent."""

    async def work(self, connection: Connection) -> int:
        task = cast("asyncio.Task[int]", asyncio.current_task())
        with self._interruptible(task):
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await self._open(connection, stack)
                    await self._work_through()
            except asyncio.CancelledError:
                if self._interrupts < _AT_ONCE:
                    raise
                task.uncancel()
            except JournalError as error:  # it cannot even be begun
                self._fail(str(error))
        self._tally.add_rest()
        return self._conclude()

    async def _open(self, connection: Connection, stack: contextlib.AsyncExitStack) -> None:
        options = self._options
        if options.journal is not None:
            settings = {
                "the input": self._source.digest,
                "--channel": options.channel or "",
                **self._source.columns.as_settings(),
                "the service": self._service(connection),
            }
            self._journal = await stack.enter_async_context(Journal.open(options.journal, settings))
        self._reader = Reader(
            self._source,
            self._journal,
            retry_failed=options.retry_failed,
            retry_open=options.queue is not None,
            tell_bad=self._count_bad,
            tell_done=self._count_done,
        )
        self._report = stack.enter_context(Report.open(options.files, self._source, self._fail))
        if options.queue is not None:
            run = self._source.digest[:16] if self._journal is not None else secrets.token_hex(8)
            self._hand_over = await stack.enter_async_context(fleet(options.queue, run))
            return
        self._client, self._enrol = await stack.enter_async_context(
            reached(
                connection,
                self._output,
                limits=Limits(connections=options.concurrency),
                cooldowns=self._cooldowns,
            )
        )

    def _service(self, connection: Connection) -> str:
        if self._options.queue is not None:
            return "a queue"
        if connection.api_key is None:
            return "emulated"
        return resolve_base_url(connection.base_url, allow_http=connection.allow_http)

    async def _work_through(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if not self._options.quiet:
                tally = self._tally
                progress = self._output.progress(lambda: self._now(tally.picture), lambda: self._now(tally.words))
                await stack.enter_async_context(progress)
            try:
                if self._journal is not None and self._hand_over is None:
                    await resolve(
                        self._client,
                        self._journal,
                        self._cooldowns,
                        concurrency=self._options.concurrency,
                        stopping=self._stopping.is_set,
                    )
                await self._send_all()
            except BulkStoppedError as stopped:
                self._account = stopped.error
            except (JournalError, InputError) as error:
                self._fail(str(error))
            try:
                async for row in self._reader.rows():
                    self._count(row, State.LEFT, None)
                if self._journal is not None:
                    await self._journal.flush()
            except (JournalError, InputError) as error:
                self._fail(str(error))
        self._report.close()

    def _now(self, tell: Callable[[float], T]) -> T:
        self._tally.paused_for = 0.0 if self._outcomes is None else self._outcomes.paused_for
        return tell(self._loop.time())

    # -- stopping --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _interruptible(self, task: asyncio.Task[int]) -> Generator[None]:
        signals = (signal.SIGINT, signal.SIGTERM)

        def interrupt() -> None:
            self._interrupts += 1
            if self._interrupts < _AT_ONCE:
                under_way = self._tally.in_flight
                self._output.remark(f"stopping: {under_way} in flight come to their end; once more ends at once")
                self._stop()
            elif self._interrupts == _AT_ONCE:
                task.cancel()

        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; a loop of another thread
            for number in signals:
                self._loop.add_signal_handler(number, interrupt)
        try:
            yield
        finally:
            for number in signals:
                with contextlib.suppress(NotImplementedError):
                    self._loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self._stopping.set()
        if self._outcomes is not None:
            self._outcomes.stop()

    def _fail(self, reason: str) -> None:
        self._storage = self._storage or reason
        self._stop()

    # -- rows that are not sent ------------------------------------------------------------------------------------

    def _count_bad(self, row: BadRow) -> None:
        self._output.remark(f"line {row.line}: {row.reason}")
        self._tally.add(BAD)
        self._report.bad_row(row)

    def _count_done(self, row: Row, known: Entry) -> None:
        self._tally.earlier += 1
        self._count(row, State.UNKNOWN if known.state is State.INTENT else known.state, known.detail)

    # -- sending ---------------------------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        if self._stopping.is_set():
            return
        outcomes = self._outcomes = SendMany(
            self._reader.rows(),
            self._send if self._hand_over is None else self._send_by_others,
            remaining=self._remaining,
            worth_waiting=self._worth_waiting,
            concurrency=self._options.concurrency,
            max_wait=self._options.max_wait,
            grace=0.0,  # that is the second interrupt; the first one stops it
            pauses=PAUSES_IN_A_ROW if self._hand_over is None else 0,  # the workers have had theirs
            on_stop=self._stopping.set,
        )
        try:
            async for outcome in outcomes:
                self._settle(outcome)
        finally:
            await outcomes.aclose()
            for outcome in outcomes.unread:
                self._settle(outcome)

    async def _send(self, request: SendRequest) -> SendResult:
        row = cast("Row", request)
        session_id = cast("str", row.session_id)
        blocked_for = await self._cooldowns.remaining(session_id, row.channel)
        pair = session_id, row.channel.lower()
        if pair in self._pairs:
            blocked_for = WINDOW
        if blocked_for > 0:  # an intent would say that it may have been sent
            raise CooldownError(
                f"{row.channel} was sent to less than a window ago; the next send may go in {blocked_for:.1f} s",
                retry_after=blocked_for,
                session_id=session_id,
                channel=row.channel,
            )
        self._pairs.add(pair)
        try:
            return await self._send_alone(row, session_id)
        finally:
            self._pairs.discard(pair)

    async def _send_alone(self, row: Row, session_id: str) -> SendResult:
        if self._options.rate is not None:
            await self._await_turn()
        self._enrol(session_id)
        self._tally.in_flight += 1
        try:
            if self._journal is not None:
                await self._journal.intend(row)
            return await self._client.send(session_id, row.channel, max_wait=0.0)
        except (CooldownError, RateLimitedError) as error:
            if self._journal is not None and error.outcome is not Outcome.ACCEPTED:
                self._journal.settle(row, State.LEFT)  # it may wait now, and must not look as if it had been sent
            raise
        finally:
            self._tally.in_flight -= 1

    async def _send_by_others(self, request: SendRequest) -> SendResult:
        """Have a worker send the row; it is the one to wait for cooldowns."""
        row = cast("Row", request)
        if self._options.rate is not None:
            await self._await_turn()
        self._tally.in_flight += 1
        try:
            if self._journal is not None:
                await self._journal.intend(row)
            assert self._hand_over is not None  # noqa: S101 chosen by that
            self._handed_over.add(row.line)
            return await self._hand_over(row)
        finally:
            self._tally.in_flight -= 1

    async def _remaining(self, request: SendRequest) -> float:
        if self._hand_over is not None:
            return WINDOW if cast("Row", request).line in self._handed_over else 0.0  # a worker may have it
        return await self._client.remaining(request.session_id, request.channel)

    def _worth_waiting(self, request: SendRequest, patience: float) -> float:
        # the client, of this same package, is the one to know when sessions end
        return self._client._ends.worth_waiting(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            str(request.session_id), patience
        )

    async def _await_turn(self) -> None:
        """Wait for the turn that ``--rate`` gives; it is not part of the time that a send may take."""
        now = self._loop.time()
        turn = self._gate.opens_at(now)
        self._gate.pass_at(turn, now)
        if turn > now:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(turn):
                    await self._stopping.wait()
        if self._stopping.is_set():
            raise SendInterruptedError("the run was stopped before the request was sent")

    def _settle(self, outcome: SendOutcome) -> None:
        row = cast("Row", outcome.request)
        self._handed_over.discard(row.line)
        state, detail = _judge(outcome)
        if self._journal is not None:
            # one that was cut off stays an intent: the next run asks about it
            is_open = state is State.UNKNOWN and isinstance(outcome.error, SendInterruptedError)
            self._journal.settle(row, State.INTENT if is_open else state, detail)
        self._count(row, state, detail)

    def _count(self, row: Row, state: State, detail: str | None) -> None:
        if detail is None:
            self._tally.add(state.word)
        else:
            known: dict[str, Any] = json.loads(detail)
            self._tally.add(state.word, None if state in (State.LEFT, State.BLOCKED) else _reason(known))
            self._tally.confirmed += "confirmed" in known
        self._report.row(row, state, detail)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _conclude(self) -> int:
        output, tally, now = self._output, self._tally, self._loop.time()
        known = tally.as_json(now)
        if self._storage is not None:
            output.error(self._storage)
            known["error"] = {"message": self._storage}
        elif self._account is not None:
            output.error(sentence(self._account))
            known["error"] = facts(self._account)
        if output.as_json:
            output.write_json(known)
        elif not self._options.quiet:
            tally.summarize(output, now)
        if self._options.journal is not None and tally.counts[State.LEFT.word]:
            output.remark("the journal holds what was done: the same command sends what is left")
        return self._exit_code()

    def _exit_code(self) -> ExitCode:
        if self._storage is not None:
            return ExitCode.STORAGE
        if self._tally.counts[State.SENT.word] == self._tally.rows:
            return ExitCode.SENT
        if self._interrupts:
            return ExitCode.INTERRUPTED
        return ExitCode.SOME_FAILED if self._account is None else ExitCode.ACCOUNT


def _judge(outcome: SendOutcome) -> tuple[State, str | None]:
    """Return what became of a row, and what there is to say about it, in JSON."""
    error = outcome.error
    if error is None:
        result = cast("SendResult", outcome.result)
        told: dict[str, object] = {"confirmed": True} if result.confirmed else {}
        if result.channel.type.lower() != outcome.request.channel.lower():
            told["sent_to"] = result.channel.type
        return State.SENT, json.dumps(told) if told else None
    detail = json.dumps({"error": facts(error)})
    if error.outcome is Outcome.ACCEPTED:
        return State.SENT, detail
    if error.outcome is Outcome.UNKNOWN:
        return State.UNKNOWN, detail
    if isinstance(error, (SendInterruptedError, RateLimitedError, *OF_THE_ACCOUNT)):
        return State.LEFT, detail
    if isinstance(error, CooldownError):
        return State.BLOCKED, detail
    return State.REFUSED if error.outcome is Outcome.REFUSED else State.NOT_SENT, detail


def _reason(known: dict[str, Any]) -> str | None:
    error: dict[str, str] = known.get("error", {})
    return error.get("sys_message") or error.get("type")
