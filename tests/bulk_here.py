"""``kodmobi bulk`` on the loop of a test, and on its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kodmobi_async.cli._bulk import bulk
from kodmobi_async.cli._bulk_options import Options
from kodmobi_async.cli._connect import Connection
from kodmobi_async.cli._files import Files
from kodmobi_async.cli._output import Output
from kodmobi_async.cli._rows import Input

if TYPE_CHECKING:
    from pathlib import Path

    from kodmobi_async.emulator import Emulator


async def bulk_here(emulator: Emulator, source: Path, journal: Path | None = None, **changed: Any) -> int:
    """Send the rows of a file, one at a time unless ``changed`` says otherwise; the summary is JSON."""
    with Input.open(str(source), None) as found:
        return await send_rows(emulator, found, journal=journal, **changed)


async def send_rows(emulator: Emulator, source: Input, **changed: Any) -> int:
    """Send the rows of an input that is open."""
    connection = Connection(
        base_url=emulator.base_url, api_key=emulator.api_key, language=None, timeout=None, allow_http=False
    )
    settings: dict[str, Any] = {
        "source": "rows.csv",
        "channel": None,
        "concurrency": 1,
        "rate": None,
        "max_wait": 0.0,
        "journal": None,
        "retry_failed": False,
        "files": Files(),
        "quiet": True,
    }
    return await bulk(connection, Output(as_json=True), source, Options(**(settings | changed)))
