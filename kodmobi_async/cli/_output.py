"""What people and programs get to see: text on a terminal or in a pipe, or JSON.

All text passes through `plain`: what comes from the service is neither markup nor a control sequence. An output that is
gone (a closed pipe, a full disk) changes nothing about what was done, so it never becomes the command's error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from rich.console import RenderableType

__all__ = ("Output", "clock", "plain", "seconds")

_PIPE_WIDTH: Final = 10_000
"""Columns where no terminal sets a limit: lines are for tools then, and stay whole."""

_COUNTDOWN_STEP: Final = 0.2

_PROGRESS_STEP: Final = 5.0
"""Seconds between two lines of progress where there is no terminal."""


def plain(text: str) -> str:
    """Return ``text`` on one line, without anything that a terminal would act on."""
    return "".join(char if char.isprintable() else " " for char in text)


def seconds(value: float) -> str:
    """Write a number of seconds, to a tenth."""
    return f"{value:.1f}".removesuffix(".0") + " s"


def clock(moment: datetime) -> str:
    """Write a moment as local wall-clock time, with the date unless it is today."""
    try:
        local = moment.astimezone()
    except (OverflowError, ValueError, OSError):  # at the edges of the calendar
        return moment.isoformat(sep=" ", timespec="seconds")
    today = local.date() == datetime.now(UTC).astimezone().date()
    return f"{local:%H:%M:%S}" if today else local.isoformat(sep=" ", timespec="seconds")


class _Stream(io.TextIOBase):
    """One of the process's outputs, which may go away at any time."""

    def __init__(self, target: io.TextIOBase) -> None:
        self._target = target
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override] # pyright: ignore[reportIncompatibleVariableOverride] a property is what it is in io
        return getattr(self._target, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self._target.isatty()

    def write(self, text: str, /) -> int:
        if self.failure is None:
            try:
                self._target.write(text)
                self._target.flush()
            except OSError as failure:
                self._give_up(failure)
        return len(text)

    def _give_up(self, failure: OSError) -> None:
        self.failure = failure
        # What is still in the interpreter's own buffer goes nowhere at exit, instead of failing there.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._target.fileno())
        os.close(nowhere)


class Output:
    """The process's two outputs: results on one, remarks and errors on the other."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out, self._err = _Stream(_standard("stdout")), _Stream(_standard("stderr"))
        self._console, self._remarks = _console(self._out), _console(self._err)

    @property
    def reader_is_gone(self) -> bool:
        """Whether what is said on the standard output reaches nobody any more."""
        return self._out.failure is not None

    def say(self, text: str = "", *, style: str = "") -> None:
        """Write a line of the result."""
        self._console.print(Text(plain(text), style))
        self._note_loss()

    def field(self, label: str, text: str) -> None:
        """Write one fact of the result, under its label."""
        self._console.print(Text.assemble((f"  {label:<10} ", "dim"), plain(text)), soft_wrap=True)
        self._note_loss()

    def paste(self, *lines: str) -> None:
        """Write a command to be copied: no line of it is broken, however narrow the terminal."""
        self.say()
        for line in lines:
            self._console.print(Text(plain(line)), soft_wrap=True)
        self._note_loss()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write the result as a table."""
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(cell)) for cell in row))
        self._console.print(table)
        self._note_loss()

    def columns(self, rows: Iterable[Sequence[str]]) -> None:
        """Write facts of the result: a label, a number, and words on it, which go on below each other."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="dim")
        table.add_column(justify="right")
        table.add_column(overflow="fold")
        for label, number, words in rows:
            table.add_row(Text(f"  {label}"), Text(number), Text(plain(words)))
        self._console.print(table)
        self._note_loss()

    def write_json(self, value: object) -> None:
        """Write the result for programs, in ASCII, on a line of its own."""
        self._out.write(json.dumps(value).replace("\x7f", "\\u007f") + "\n")
        self._note_loss()

    def remark(self, text: str, *, style: str = "yellow") -> None:
        """Say on the side what is not the result."""
        self._remarks.print(Text(plain(text), style))

    def error(self, text: str) -> None:
        """Say in one line what went wrong."""
        self._remarks.print(Text.assemble(("error: ", "bold red"), plain(text)))

    @contextlib.asynccontextmanager
    async def countdown(self, text: str, duration: float, *, is_remark: bool = False) -> AsyncGenerator[None]:
        """Show how long a wait still takes while the body waits; without a terminal, say so once.

        Args:
            text: What is waited for.
            duration: How long, in seconds.
            is_remark: Whether it is a remark, rather than part of the result.
        """
        console, stream = (self._remarks, self._err) if is_remark else (self._console, self._out)
        if not stream.isatty() or console.is_dumb_terminal:
            (self.remark if is_remark else self.say)(f"{text}: {seconds(duration)}")
            yield
            return
        loop = asyncio.get_running_loop()
        ends = loop.time() + duration

        async def count(live: Live) -> None:
            while True:
                live.update(Text(f"{text}: {max(0.0, ends - loop.time()):.0f} s", "yellow"), refresh=True)
                await asyncio.sleep(_COUNTDOWN_STEP)

        with Live(console=console, auto_refresh=False, transient=True) as live:
            counting = asyncio.create_task(count(live))
            try:
                yield
            finally:
                counting.cancel()

    @contextlib.asynccontextmanager
    async def progress(self, picture: Callable[[], RenderableType], words: Callable[[], str]) -> AsyncGenerator[None]:
        """Show on the side how the body gets on: a picture on a terminal, elsewhere a line from time to time.

        Remarks made meanwhile appear above the picture.
        """
        live = Live(console=self._remarks, auto_refresh=False, transient=True)

        async def draw() -> None:
            while True:
                live.update(picture(), refresh=True)
                await asyncio.sleep(_COUNTDOWN_STEP)

        async def report() -> None:
            while True:
                await asyncio.sleep(_PROGRESS_STEP)
                self.remark(words())

        is_live = self._err.isatty() and not self._remarks.is_dumb_terminal
        with live if is_live else contextlib.nullcontext():
            showing = asyncio.create_task(draw() if is_live else report())
            try:
                yield
            finally:
                showing.cancel()

    def _note_loss(self) -> None:
        failure = self._out.failure
        if failure is not None and failure.errno not in {errno.EPIPE, None}:
            self.error(f"the result could not be written: {failure.strerror}")
            self._out.failure = OSError()  # said once


def _standard(name: str) -> io.TextIOBase:
    stream = getattr(sys, name)
    if stream is None:  # the process was started without it
        return io.StringIO()
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # whatever alphabet it takes, no text is an error
    return stream  # type: ignore[no-any-return]


def _console(stream: _Stream) -> Console:
    return Console(
        file=stream,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] it is a text stream in all but name
        width=None if stream.isatty() else _PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )
