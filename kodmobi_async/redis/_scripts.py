"""What the server does, in one step each.

A pair has one key. Its value is the token of whoever holds the reservation, or ``-`` while the window is open; its
expiry is the end of the lease, or of the window. Every script touches that one key, so that a cluster can run it, and
decides by the server's clock. Whoever waits elsewhere is told of a change over the channel of the key's own name.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs


@attrs.frozen
class Script:
    """A script, and the digest by which a server that has seen it knows it.

    Attributes:
        text: In Lua.
        digest: What ``EVALSHA`` takes.
    """

    text: str
    digest: str = attrs.field(
        default=attrs.Factory(
            lambda self: hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest(), takes_self=True
        )
    )


FREE: Final = 0
BLOCKED: Final = 1
RESERVED: Final = 2

# token, lease in ms → state that stands in the way (FREE: none, the slot is ours), its rest in ms
RESERVE: Final = Script("""
local held = redis.call('GET', KEYS[1])
if not held or held == ARGV[1] then  -- our own token: the reply to an earlier try was lost
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {0, 0}
end
local left = redis.call('PTTL', KEYS[1])
if left < 0 then  -- somebody took the expiry away: nothing may block a pair for ever
  left = tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {held == '-' and 1 or 2, left}
""")

# token, window in ms → {1, 0}, or {0, 0} where another holds the slot: its own settling counts then
START: Final = Script("""
local held = redis.call('GET', KEYS[1])
local window = tonumber(ARGV[2])
if held == '-' then
  if redis.call('PTTL', KEYS[1]) < window then
    redis.call('PEXPIRE', KEYS[1], window)
  end
  return {1, 0}
end
if held and held ~= ARGV[1] then
  return {0, 0}
end
if window > 0 then
  redis.call('SET', KEYS[1], '-', 'PX', window)
else
  redis.call('DEL', KEYS[1])
end
redis.pcall('PUBLISH', KEYS[1], '')
return {1, 0}
""")

# token → {1, 0}, or {0, 0} where the slot is not this token's
RELEASE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {0, 0}
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', KEYS[1], '')
return {1, 0}
""")

# a name for it, window in ms → state, and what is left of it in ms; a reservation is left as it is
OBSERVE: Final = Script("""
local held = redis.call('GET', KEYS[1])
local window = tonumber(ARGV[2])
local left = held and redis.call('PTTL', KEYS[1]) or 0
if held and held ~= '-' then
  return {2, left}
end
if left < window then
  redis.call('SET', KEYS[1], '-', 'PX', window)
  left = window
end
return {1, left}
""")

# → state, its rest in ms
LOOK: Final = Script("""
local held = redis.call('GET', KEYS[1])
if not held then
  return {0, 0}
end
return {held == '-' and 1 or 2, redis.call('PTTL', KEYS[1])}
""")
