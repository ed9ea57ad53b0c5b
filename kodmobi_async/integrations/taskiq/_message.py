"""What feeders and workers write to each other about a batch: the message with its rows, and reports.

A report goes into the stream of results that its batch names. It tells outcomes, as they become known, and that the
worker is at work; so it may have no outcomes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from orjson import Fragment, dumps, loads

from kodmobi_async._values.models import SendRequest

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen
class Row(SendRequest):
    """A send of a batch.

    Attributes:
        index: Its place in the batch.
        send_id: What it is known by, in whichever batch it comes.
    """

    index: int
    send_id: str = attrs.field(repr=False)  # it may hold the session's


@attrs.frozen
class Batch:
    """Sends that one worker makes.

    Attributes:
        results: The stream for the reports.
        batch_id: What it is known by.
        rows: All that are left of it.
        keeps_outcomes: Whether outcomes are kept with the sends, since they may be asked for again.
    """

    results: str
    batch_id: str
    rows: tuple[Row, ...]
    keeps_outcomes: bool

    def dump(self) -> str:
        """Return the message."""
        rows = [[row.index, row.session_id, row.channel] for row in self.rows]
        message: dict[str, Any] = {"results": self.results, "batch": self.batch_id, "rows": rows}
        if self.keeps_outcomes:
            message["ids"] = [row.send_id for row in self.rows]
        return dumps(message).decode()

    @classmethod
    def load(cls, text: str) -> Batch:
        """Return the batch of a message."""
        message = loads(text)
        batch_id, rows, ids = message["batch"], message["rows"], message.get("ids")
        ids = [f"{batch_id}:{row[0]}" for row in rows] if ids is None else ids
        found = (Row(session, channel, index, each) for (index, session, channel), each in zip(rows, ids, strict=True))
        return cls(message["results"], batch_id, tuple(found), "ids" in message)


@attrs.frozen
class Report:
    """What a worker tells.

    Attributes:
        batch_id: Of which batch.
        worker: Who it is.
        in_flight: Sends that the worker makes at this moment, of any batch.
        waiting: Sends that it will make later, as their channels are blocked, say.
        outcomes: Indexes of rows, and their outcomes as plain values.
    """

    batch_id: str
    worker: str
    in_flight: int
    waiting: int
    outcomes: tuple[tuple[int, Any], ...]

    @classmethod
    def load(cls, data: bytes) -> Report:
        """Return what `dump_report` has written."""
        batch_id, worker, in_flight, waiting, outcomes = loads(data)
        return cls(batch_id, worker, in_flight, waiting, tuple((index, outcome) for index, outcome in outcomes))


def dump_report(
    batch_id: str, worker: str, in_flight: int, waiting: int, outcomes: Iterable[tuple[int, Fragment]]
) -> bytes:
    """Return a report whose outcomes are in JSON already."""
    return dumps((batch_id, worker, in_flight, waiting, tuple(outcomes)))


@attrs.frozen
class WorkerProgress:
    """What a worker tells about itself.

    Attributes:
        worker: Who it is: the id of its process, and some random characters.
        done: Outcomes that it has brought to this feeder.
        in_flight: Sends that it makes at this moment, for any feeder.
        waiting: Sends that it will make later, as their channels are blocked, say.
        is_alive: Whether it was heard of lately.
    """

    worker: str
    done: int
    in_flight: int
    waiting: int
    is_alive: bool = True
