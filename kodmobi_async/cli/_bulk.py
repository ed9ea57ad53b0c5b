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
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from kodmobi_async import BulkStoppedError, KodmobiError, Limits, MemoryCooldownTracker, SendInterruptedError
from kodmobi_async.cli._connect import reached
from kodmobi_async.cli._exits import ExitCode, facts, sentence
from kodmobi_async.cli._files import Report
from kodmobi_async.cli._fleet import FleetSending, fleet
from kodmobi_async.cli._progress import BAD, Tally
from kodmobi_async.cli._reader import Reader
from kodmobi_async.cli._rows import BadRow, InputError
from kodmobi_async.cli._sending import OwnSending, entry_of
from kodmobi_async.journal import Journal, JournalError, State

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from kodmobi_async import KodmobiClient, SendOutcome, SendResult
    from kodmobi_async.cli._bulk_options import Options
    from kodmobi_async.cli._connect import Connection
    from kodmobi_async.cli._output import Output
    from kodmobi_async.cli._rows import Input, Row
    from kodmobi_async.cli._sending import Outcomes
    from kodmobi_async.journal import Entry

__all__ = ("bulk", "check_rows")

T = TypeVar("T")

_AT_ONCE: Final = 2
"""The interrupt that ends the run without waiting for what is in flight."""


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
        self._cooldowns = MemoryCooldownTracker()
        self._stopping = asyncio.Event()
        self._outcomes: Outcomes | None = None
        self._journal: Journal | None = None
        self._interrupts = 0
        self._account: KodmobiError | None = None
        self._storage: str | None = None
        self._reader: Reader
        self._report: Report
        self._sending: OwnSending | FleetSending
        self._client: KodmobiClient | None = None

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
        options, service = self._options, "a queue"
        client = enrol = None
        if options.queue is None:
            limits = Limits(connections=options.concurrency)
            reaching = reached(connection, self._output, limits=limits, cooldowns=self._cooldowns)
            client, enrol = await stack.enter_async_context(reaching)
            service = "emulated" if connection.api_key is None else client.base_url
        if options.journal is not None:
            binding = {
                "the input": self._source.digest,
                "--channel": options.channel or "",
                **self._source.columns.as_settings(),
                "the service": service,
            }
            self._journal = await stack.enter_async_context(Journal.open(options.journal, binding=binding))
        self._reader = Reader(
            self._source,
            self._journal,
            retry_failed=options.retry_failed,
            retry_open=options.queue is not None,
            on_bad=self._count_bad,
            on_done=self._count_done,
        )
        self._report = stack.enter_context(Report.open(options.files, self._source, self._fail))
        self._client = client
        own: dict[str, Any] = {
            "journal": self._journal,
            "tally": self._tally,
            "stopping": self._stopping,
            "rate": options.rate,
        }
        if client is not None and enrol is not None:
            self._sending = OwnSending(client, enrol, **own)
            return
        run = self._source.digest[:16] if self._journal is not None else secrets.token_hex(8)
        hand_over = await stack.enter_async_context(fleet(cast("str", options.queue), run))
        self._sending = FleetSending(hand_over, **own)

    async def _work_through(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if not self._options.quiet:
                tally = self._tally
                progress = self._output.progress(lambda: self._now(tally.picture), lambda: self._now(tally.words))
                await stack.enter_async_context(progress)
            try:
                if self._journal is not None and self._client is not None:
                    await self._journal.resolve(
                        self._client,
                        cooldowns=self._cooldowns,
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
                self._output.remark(f"stopping: waiting for {self._tally.in_flight} in flight; once more ends at once")
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
        outcomes = self._outcomes = self._sending.many(self._reader.rows(), self._options)
        try:
            async for outcome in outcomes:
                self._settle(outcome)
        finally:
            await outcomes.aclose()
            for outcome in outcomes.unread:
                self._settle(outcome)

    def _settle(self, outcome: SendOutcome) -> None:
        row = cast("Row", outcome.request)
        state, detail = State.of(outcome.error), _detail(outcome)
        if self._journal is not None:
            # one that was cut off stays an intent: the next run asks about it
            is_open = state is State.UNKNOWN and isinstance(outcome.error, SendInterruptedError)
            self._journal.settle(entry_of(row), State.INTENT if is_open else state, detail)
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


def _detail(outcome: SendOutcome) -> str | None:
    """Return what there is to say about the outcome of a row, in JSON."""
    if outcome.error is not None:
        return json.dumps({"error": facts(outcome.error)})
    result = cast("SendResult", outcome.result)
    told: dict[str, object] = {"confirmed": True} if result.confirmed else {}
    if result.channel.type.lower() != outcome.request.channel.lower():
        told["sent_to"] = result.channel.type
    return json.dumps(told) if told else None


def _reason(known: dict[str, Any]) -> str | None:
    error: dict[str, str] = known.get("error", {})
    return error.get("sys_message") or error.get("type")
