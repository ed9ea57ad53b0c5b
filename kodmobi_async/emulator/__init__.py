"""The kod.mobi API on a loopback port: real HTTP, a ledger of deliveries, and faults on demand.

Point a client at it and look at what people would have received:

    async with Emulator() as emulator:
        session_id = emulator.add_session()
        emulator.script(Fault.close(when="after_reading"), times=2)

        client = KodmobiClient(emulator.api_key, base_url=emulator.base_url)
        await client.send(session_id, "telegram")

        assert len(emulator.delivered(session_id, "telegram")) == 1
        assert emulator.requests["send"] == 3

Sessions and windows use the running loop's clock, so a loop with a virtual clock moves them too; ``emulator.clock``
moves them on any loop. Programs in any language drive it over HTTP, as ``/_emulator/openapi.json`` describes, and
``/_emulator`` is a page that shows the codes as they arrive.

The emulator shares no code with the SDK and implements HTTP by itself: a bug in the client, or in its HTTP library,
cannot cancel itself out here. ``_choices`` lists what the documentation leaves open, and what the emulator does about
it.
"""

from __future__ import annotations

from kodmobi_async.emulator._clock import Clock
from kodmobi_async.emulator._emulator import Emulator
from kodmobi_async.emulator._fault import Fault
from kodmobi_async.emulator._sessions import Delivery

__all__ = ("Clock", "Delivery", "Emulator", "Fault")
