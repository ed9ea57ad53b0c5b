"""How fast a client may send, and how much it may retry. One of each is shared by all calls of a client.

All of it is plain arithmetic: the time is passed in, nothing here waits.
"""

from __future__ import annotations

from typing import Final

from kodmobi_async._values.errors import Outcome, RateLimitedError


class RetryBudget:
    """A bucket that retries empty and successes fill, so that a service in trouble is not buried in retries.

    It holds 500 and begins full. A retry takes 5. A call that succeeds at once gives 1 back; one that succeeds after
    retries gives back its last retry's 5.
    """

    CAPACITY: Final = 500
    COST: Final = 5
    REWARD: Final = 1

    __slots__ = ("_level",)

    def __init__(self) -> None:
        self._level = self.CAPACITY

    def take(self) -> bool:
        """Pay for one retry; ``False`` if the bucket does not hold enough."""
        if self._level < self.COST:
            return False
        self._level -= self.COST
        return True

    def give_back(self, *, retried: bool) -> None:
        """Note a success."""
        if self._level < self.CAPACITY:
            self._level = min(self.CAPACITY, self._level + (self.COST if retried else self.REWARD))


class Gate:
    """When the next request of the client may go.

    Open, it lets requests pass as they come, or evenly spaced at ``rate``. The service's word that the *account* is
    sending too fast closes it for a while; those who come meanwhile are given moments after it, in order and
    staggered.

    Args:
        rate: Requests a second; ``None`` = as they come.
    """

    DEFAULT_CLOSURE: Final = 1.0
    """Seconds for which a 429 without a ``Retry-After`` closes the gate."""

    STAGGER: Final = 0.01
    """Seconds between those who were held back, where no rate is set."""

    __slots__ = ("_next", "_opens", "_spacing", "closures", "is_open")

    def __init__(self, rate: float | None = None) -> None:
        self._spacing = 0.0 if rate is None else 1.0 / rate
        self._opens = 0.0  # closed until then
        self._next = 0.0  # not before the requests already let through
        self.closures = 0
        self.is_open = rate is None
        """Nothing was ever held back, so that no request need ask."""

    def opens_at(self, now: float) -> float:
        """Return the moment at which a request that comes now may go; ``now`` itself, if it need not wait."""
        return max(now, self._opens, self._next)

    def pass_at(self, moment: float, now: float) -> None:
        """Take the ``moment`` that `opens_at` has named.

        Who waits for it asks again then if ``closures`` has grown meanwhile.
        """
        if moment > now:
            self._next = moment + (self._spacing or self.STAGGER)
        elif self._spacing:
            self._next = moment + self._spacing

    def close(self, now: float, seconds: float | None) -> None:
        """Hold everything back for ``seconds``, or for as long as before if that is longer."""
        opens = now + (self.DEFAULT_CLOSURE if seconds is None else seconds)
        if opens > self._opens:
            self.is_open = False
            self._opens = opens
            self.closures += 1


class OwnShare:
    """What a process keeps of a rate that it shares with others, while it cannot ask them.

    Its turns come after those that it was given before, and after the closures that it knows of.
    """

    __slots__ = ("_gates", "_latest", "closed_until", "processes")

    def __init__(self) -> None:
        self.closed_until = 0.0
        """The end of the latest closure that is known."""
        self.processes = 1
        """How many share the rate, as far as known."""
        self._latest = 0.0
        self._gates: dict[float | None, Gate] = {}  # by the rate of all processes

    def note_turn(self, moment: float) -> None:
        """Note a turn at a rate, whoever has given it."""
        self._latest = max(self._latest, moment)

    def close(self, now: float, seconds: float) -> None:
        """Note a closure."""
        self.closed_until = max(self.closed_until, now + seconds)
        for gate in self._gates.values():
            gate.close(now, seconds)

    def end(self) -> None:
        """Note that the others can be asked again."""
        self._gates.clear()

    def gate(self, rate: float | None, now: float) -> Gate:
        """Return the gate of those requests whose rate, of all processes together, is this; ``None`` = as they come."""
        gate = self._gates.get(rate)
        if gate is None:
            gate = self._gates[rate] = Gate(None if rate is None else rate / self.processes)
            gate.close(now, self.closed_until - now)
        if rate is not None:
            gate.pass_at(self._latest, now)
        return gate


def held_back(wait: float) -> RateLimitedError:
    """Return the error for a request that could go in ``wait`` seconds, which is too late for its call."""
    return RateLimitedError(
        f"the service's or the client's own rate limit holds requests back for another {wait:.1f} s",
        status=None,
        retry_after=wait,
        outcome=Outcome.NOT_SENT,
    )


class Pauses:
    """How long a run of many sends rests because the account is limited.

    The service's refusal begins a pause for everybody. Requests that were in flight then are refused, too: so a refusal
    counts as a new pause only if its request was begun after the last one. Any other answer shows that pauses help.

    Args:
        most: So many in a row, with no other answer in between, are waited for.
    """

    __slots__ = ("_in_a_row", "_most", "_turns", "_until", "begun")

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_a_row = 0
        self._until = 0.0
        self._turns = 0
        self.begun = 0
        """How many there have been."""

    def refused(self, now: float, wait: float | None, begun: int) -> float | None:
        """Return the moment at which a refused request may be tried again; ``None`` if pauses do not help.

        Those who wait are given moments one after the other.

        Args:
            now: The time.
            wait: Seconds that the service asks for.
            begun: How many pauses there had been when the request was begun.
        """
        if begun == self.begun and now >= self._until:
            if self._in_a_row == self._most:
                return None
            self.begun += 1
            self._in_a_row += 1
            self._turns = 0
        self._until = max(self._until, now + max(wait or 0.0, Gate.DEFAULT_CLOSURE))
        self._turns += 1
        return self._until + self._turns * Gate.STAGGER

    def answered(self, begun: int) -> None:
        """Note an answer that tells of no limit, to a request that was begun after so many pauses."""
        if self._in_a_row:
            self._in_a_row = min(self._in_a_row, self.begun - begun)

    def left(self, now: float) -> float:
        """Return the seconds until the pause is over; 0.0 = there is none."""
        return max(0.0, self._until - now)
