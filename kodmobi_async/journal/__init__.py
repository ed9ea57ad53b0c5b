"""Runs of many sends that may be killed at any moment, and go on.

async with Journal.open("run.journal") as journal, client.send_many(requests, journal=journal) as outcomes:
    async for outcome in outcomes: ...
"""

from __future__ import annotations

from kodmobi_async.journal._cursor import Cursor
from kodmobi_async.journal._entries import Entry, JournalError, State
from kodmobi_async.journal._journal import Journal
from kodmobi_async.journal._run import JournaledSends

__all__ = ("Cursor", "Entry", "Journal", "JournalError", "JournaledSends", "State")
