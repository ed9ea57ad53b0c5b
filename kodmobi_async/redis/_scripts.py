"""The scripts that the server runs: one atomic step each.

A pair has one key. Its value is the token of the reservation that holds it, or ``-`` while the window is open; its
expiry is the end of the lease, or of the window. Every script touches that one key, so that a cluster can run it, and
decides by the server's clock. It publishes a change of the slot on the channel that has the key's name.

A reply is one integer, which is the cheapest to parse: a state, and four times another number. What needs more numbers
replies with a list. `_limit_scripts` has the scripts for the limits of an account.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import attrs

from kodmobi_async._shared.operations import Operation
from kodmobi_async.redis import _limit_scripts as limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def _encoded(text: str) -> bytes:
    return text.encode()


@attrs.frozen
class Script:
    """A script.

    Attributes:
        text: In Lua.
        digest: What ``EVALSHA`` takes: the server knows the scripts that it has run.
    """

    text: bytes = attrs.field(converter=_encoded)
    digest: bytes = attrs.field(
        default=attrs.Factory(
            lambda self: hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode(), takes_self=True
        )
    )


def unpacked(reply: int | list[int]) -> tuple[int, ...]:
    """Return the state that a script replies and the other number, or the numbers of its list."""
    return (reply & 3, reply >> 2) if isinstance(reply, int) else tuple(reply)


def unpacked_many(reply: Any, count: int) -> list[Any]:
    """Return what some scripts reply that ran together: numbers, or the server's errors."""
    if isinstance(reply, bytes):
        return list(map(int, reply.split()))
    return [reply] * count if isinstance(reply, Exception) else [*reply]


_RESERVE: Final = Script("""
local held = redis.call('GET', KEYS[1])
if not held or held == ARGV[1] then  -- our own token: the reply to an earlier attempt was lost
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 0
end
local left = redis.call('PTTL', KEYS[1])
if left < 0 then  -- somebody removed the expiry: nothing may block a pair forever
  left = tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[1], left)
end
return left * 4 + (held == '-' and 1 or 2)
""")

_START: Final = Script("""
local held = redis.call('GET', KEYS[1])
local window = tonumber(ARGV[2])
if held == '-' then
  if redis.call('PTTL', KEYS[1]) < window then
    redis.call('PEXPIRE', KEYS[1], window)
  end
  return 1
end
if held and held ~= ARGV[1] then
  return 4
end
if window > 0 then
  redis.call('SET', KEYS[1], '-', 'PX', window)
else
  redis.call('DEL', KEYS[1])
end
redis.pcall('PUBLISH', KEYS[1], '')
return held and 1 or 5
""")

_RELEASE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', KEYS[1], '')
return 1
""")

_OBSERVE: Final = Script("""
local held = redis.call('GET', KEYS[1])
local window = tonumber(ARGV[2])
local left = held and redis.call('PTTL', KEYS[1]) or 0
if held and held ~= '-' then
  return left * 4 + 2
end
if left < window then
  redis.call('SET', KEYS[1], '-', 'PX', window)
  left = window
end
return left * 4 + 1
""")

_READ: Final = Script("""
local held = redis.call('GET', KEYS[1])
if not held then
  return 0
end
local left = redis.call('PTTL', KEYS[1])
if left < 0 then  -- without an expiry, it counts as a reservation
  return 2
end
return left * 4 + (held == '-' and 1 or 2)
""")

SCRIPTS: Final = {
    Operation.RESERVE: _RESERVE,
    Operation.START: _START,
    Operation.RELEASE: _RELEASE,
    Operation.OBSERVE: _OBSERVE,
    Operation.READ: _READ,
    Operation.TURN: Script(limits.TURN),
    Operation.GIVE_BACK: Script(limits.GIVE_BACK),
    Operation.CLOSE: Script(limits.CLOSE),
    Operation.PRESENT: Script(limits.PRESENT),
}
"""What each operation runs; `Operation` says what it replies."""

_STEPS: Final = {
    SCRIPTS[operation]: operation.name
    for operation in (Operation.RESERVE, Operation.START, Operation.RELEASE, Operation.OBSERVE, Operation.READ)
}

_TOGETHER: Final = Script(
    "local steps = {}\n"
    + "".join(f"steps.{name} = function(KEYS, ARGV)\n{script.text.decode()}end\n" for script, name in _STEPS.items())
    + """
local replies, number, all = {}, 0, true
for name, first, second in string.gmatch(ARGV[1], '(%S+) (%S*) (%S*)\\n') do
  number = number + 1
  local done, reply = pcall(steps[name], {KEYS[number]}, {first, second})
  all = all and done
  replies[number] = done and reply or type(reply) == 'table' and reply or {err = tostring(reply)}
end
return all and table.concat(replies, ' ') or replies
"""
)


@attrs.frozen
class Call:
    """A script to run with a key, or some scripts with a key each, in this order: a server parses and replies once.

    Attributes:
        script: The script.
        operands: What the server is told besides.
    """

    script: Script
    operands: tuple[bytes | int, ...]

    @classmethod
    def of_one(cls, script: Script, key: str, arguments: Iterable[str | int]) -> Call:
        """Return the call of one script."""
        return cls(script, (1, key.encode(), *map(_operand, arguments)))

    @classmethod
    def of_many(cls, steps: Sequence[tuple[Script, str, tuple[str | int, ...]]]) -> Call | None:
        """Return the call of several scripts, which `unpacked_many` takes; ``None`` if they cannot go together."""
        lines: list[str] = []
        for script, _, arguments in steps:
            name = _STEPS.get(script)
            if name is None:
                return None
            first, second = (*arguments, "", "")[:2]
            lines.append(f"{name} {first} {second}\n")
        return cls(_TOGETHER, (len(steps), *(key.encode() for _, key, _ in steps), "".join(lines).encode()))

    def by_digest(self) -> tuple[bytes | str | int, ...]:
        """Return the command for a server that knows the script."""
        return ("EVALSHA", self.script.digest, *self.operands)

    def by_text(self) -> tuple[bytes | str | int, ...]:
        """Return the command for a server that does not know the script."""
        return ("EVAL", self.script.text, *self.operands)


def _operand(value: str | int) -> bytes:
    return str(value).encode()
