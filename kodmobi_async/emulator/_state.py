"""Everything that the emulator remembers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs

from kodmobi_async.emulator._clock import Clock
from kodmobi_async.emulator._events import Events, Log
from kodmobi_async.emulator._requests import Exchanged
from kodmobi_async.emulator._script import Script
from kodmobi_async.emulator._sessions import Sessions
from kodmobi_async.emulator._settings import Settings

__all__ = ("State",)


@attrs.define(eq=False, repr=False)
class State:
    """What the calls change, and what the control interface shows.

    Args:
        settings: The emulator's.
        set_up: Prepares what there is to begin with.

    Attributes:
        counts: How many requests were read, by endpoint.
        requests: The newest requests.
    """

    settings: Settings
    _set_up: Callable[[], None]
    events: Events = attrs.field(init=False, factory=Events)
    clock: Clock = attrs.field(init=False)
    counts: Counter[str] = attrs.field(init=False, factory=Counter[str])
    script: Script = attrs.field(init=False)
    sessions: Sessions = attrs.field(init=False)
    requests: Log[Exchanged] = attrs.field(init=False)
    _is_set_up: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.clock = Clock(self.events)
        self.script = Script(self.events)
        self.sessions = Sessions(self.settings, self.events)
        self.requests = Log("request", self.settings, self.events)

    def begin(self) -> None:
        """Prepare what there is to begin with, the first time."""
        if not self._is_set_up:
            self._is_set_up = True
            self._set_up()

    def reset(self) -> None:
        """Begin anew, except for the time, and let the clock run at its normal speed."""
        self.script.clear()
        self.sessions.clear()
        self.requests.clear()
        self.counts.clear()
        self.clock.speed = 1.0
        self._set_up()
        self.events.publish("reset")
