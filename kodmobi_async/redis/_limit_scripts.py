"""The scripts for the limits of an account: its queue of turns, and the processes that take them.

An account has one key, a sorted set. It holds, each with its negative as the score, the earliest moment for the next
turn (``next``), the end of the closure (``opens``), and the server's time when this was written (``at``); and, with the
moment itself as the score, turns that were given back. All are microseconds of the server's clock. Where that clock is
set back, so are the moments: nobody waits for longer because of it.

The invariant: **no two turns are the same moment, and turns that are taken at one spacing are never closer than that.**
The active processes are the members of another key, with their last sign of life as the score.
"""

from __future__ import annotations

from typing import Final

_ACCOUNT: Final = """
local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('ZMSCORE', key, 'at', 'next', 'opens')
local at, following, opens = -(kept[1] or 0), -(kept[2] or 0), -(kept[3] or 0)
if now < at then
  following, opens = following - (at - now), opens - (at - now)
  redis.call('ZREMRANGEBYSCORE', key, 0, '+inf')
end
local function text(number)
  return string.format('%.0f', number)
end
local function keep()
  redis.call('ZADD', key, text(-now), 'at', text(-following), 'next', text(-opens), 'opens')
  redis.call('PEXPIRE', key, text(math.max(0, following - now, opens - now) / 1000 + 60000))
end
"""

TURN: Final = (
    _ACCOUNT
    + """
local spacing, longest = math.abs(ARGV[1]), tonumber(ARGV[2])
local paced = tonumber(ARGV[1]) >= 0
local held, closed = tonumber(ARGV[3] or 0), tonumber(ARGV[4] or 0)
local learned = closed > 0 and now + closed > opens + 250000  -- less is the time that messages take
if learned then
  opens = now + closed
end
local left = math.max(0, opens - now)
local moment, wait = held, 0
if held == 0 or held < opens then
  local earliest = math.max(now, opens)
  moment = (paced or left > 0) and math.max(earliest, following) or now
  local free = moment > now and redis.call('ZRANGE', key, text(earliest), '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  local is_free = free and tonumber(free) < moment
  if is_free then
    moment = tonumber(free)
  end
  wait = moment - now
  if wait > 0 and wait >= longest then
    moment = 0
  elseif is_free then
    redis.call('ZREMRANGEBYSCORE', key, free, free)
  elseif paced or wait > 0 then
    following = moment + spacing
  end
end
if moment ~= 0 and moment ~= held and (paced or wait > 0) or learned then
  keep()
end
if learned then
  redis.call('PUBLISH', key, '')
end
return moment ~= 0 and wait + left == 0 and 0 or {moment, wait, left}
"""
)

GIVE_BACK: Final = (
    _ACCOUNT
    + """
local moment, spacing = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', key, 0, text(now))
if moment > now and moment < following then
  if moment + spacing == following then
    following = moment
  else
    redis.call('ZADD', key, text(moment), text(moment))
  end
  keep()
end
return 0
"""
)

CLOSE: Final = (
    _ACCOUNT
    + """
local closes_until = now + ARGV[2] * 1000
if closes_until > opens then
  opens = closes_until
  keep()
  redis.call('PUBLISH', key, '')
end
return 0
"""
)

PRESENT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
local is_new = redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1]) == 1
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if is_new and ARGV[3] then
  redis.call('PUBLISH', ARGV[3], '')  -- the others' shares are smaller now
end
return redis.call('ZCARD', KEYS[1]) * 4
"""
