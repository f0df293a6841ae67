"""What Pluto keeps in Redis, and the scripts that change it.

This file owns the keys, the scripts, and how their arguments and answers are written. It connects to nothing and keeps
no state, so any thread may use it. All keys share one slot, so that a cluster can hold them:

    state      hash: `run` (of the server), `simulated` (whether the prices are), `epoch`, `sequence`, `fence`,
               `listed` (there is a watchlist: 1, or `begun` if it began with a change by a process that may have known
               no list)
    quotes     hash: ticker → "sequence JSON", its newest quote; its keys are the watchlist
    proofs     hash: ticker → the end of the newest proof, in ms of Redis' clock
    leases     hash: ticker → "fence scraper end"; a lease that has ended is free
    scrapers   hash: scraper → "end capacity has_browser", its heartbeat
    stream     capped stream: entry `sequence`-0 has `at` and the JSON of each changed ticker, empty for a removed one
    retries    hash: ticker → when a user last asked its owner for a try, in ms of Redis' clock

Every change is one entry, and every entry one number, so that a gap shows. A script does nothing if the caller knows
another epoch: an emptied or restarted Redis begins a new one, and no number of the old one means anything there. Redis
decides by its own clock when a lease ends; leases are a hash, not keys that expire, because one script renews them all.

A scraper publishes while the fence it was given is that of the lease: nobody else got the lease since. So one that was
stopped, or that couldn't reach Redis for a while, is refused exactly when another one has taken over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum

from quotes import Quote, Source, State, compact_json

_NAMES = ("state", "quotes", "proofs", "leases", "scrapers", "stream", "retries")
_NAMES_OF_ALERTS = ("desks", "alerts", "judged", "raised", "rung", "waiting", "notes")  # see relay.ledger
KEYS = [f"{{pluto}}:{name}" for name in _NAMES + _NAMES_OF_ALERTS]
STATE, QUOTES, PROOFS, LEASES, SCRAPERS, STREAM, _, *ALERT_KEYS = KEYS

PRELUDE = """
local state, quotes, proofs, leases, scrapers, stream, retries = unpack(KEYS)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function lease_of(ticker)
  local fence, holder, ends = string.match(redis.call('HGET', leases, ticker) or '', '^(%d+) (%S+) (%d+)$')
  return fence, holder, tonumber(ends or 0)
end
local function append(fields, length)
  if #fields == 0 then return 0 end
  local sequence = redis.call('HINCRBY', state, 'sequence', 1)
  for i = 1, #fields, 2 do
    if fields[i + 1] == '' then
      for _, key in ipairs({quotes, proofs, leases, retries}) do redis.call('HDEL', key, fields[i]) end
    else
      redis.call('HSET', quotes, fields[i], sequence .. ' ' .. fields[i + 1])
    end
  end
  redis.call('XADD', stream, 'MAXLEN', '~', length, sequence .. '-0', 'at', now, unpack(fields))
  return sequence
end
if redis.call('HGET', state, 'epoch') ~= ARGV[1] then return false end
"""

# ARGV: the server's run, a new epoch, whether our prices are simulated. Returns the epoch, and whether those in Redis
# are simulated. It comes first on every connection. A new epoch begins without a proof: what Redis has may be older
# than what it had, after a crash or where a replica took over.
BEGIN = """
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'epoch') == 0 then
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'epoch', ARGV[2])
  redis.call('DEL', KEYS[3])
end
redis.call('HSETNX', KEYS[1], 'simulated', ARGV[3])
return redis.call('HMGET', KEYS[1], 'epoch', 'simulated')
"""

# ARGV: epoch, scraper, length of the stream; then ticker, fence, proof, JSON of each. Returns the refused tickers.
PUBLISH = """
local fields, refused = {}, {}
for i = 4, #ARGV, 4 do
  local ticker, fence, holder = ARGV[i], lease_of(ARGV[i])
  if fence == ARGV[i + 1] and holder == ARGV[2] then
    fields[#fields + 1], fields[#fields + 2] = ticker, ARGV[i + 3]
    if ARGV[i + 2] == '' then redis.call('HDEL', proofs, ticker)
    else redis.call('HSET', proofs, ticker, ARGV[i + 2]) end
  else
    refused[#refused + 1] = ticker
  end
end
append(fields, ARGV[3])
return refused
"""

# ARGV: epoch, scraper, its capacity, whether it has a browser, length of a lease; then ticker, fence, proof of each
# that it owns. Returns the time, the lost tickers, the scrapers that are alive, all leases, all tickers, `listed`,
# `retries`.
TICK = """
local ends, lost, alive = now + ARGV[5], {}, {}
redis.call('HSET', scrapers, ARGV[2], ends .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
for i = 6, #ARGV, 3 do
  local ticker, fence, holder = ARGV[i], lease_of(ARGV[i])
  if fence == ARGV[i + 1] and holder == ARGV[2] then
    redis.call('HSET', leases, ticker, fence .. ' ' .. holder .. ' ' .. ends)
    if ARGV[i + 2] ~= '' then redis.call('HSET', proofs, ticker, ARGV[i + 2]) end
  else
    lost[#lost + 1] = ticker
  end
end
local all = redis.call('HGETALL', scrapers)
for i = 1, #all, 2 do
  local last, capacity, has_browser = string.match(all[i + 1], '^(%d+) (%d+) (%d)$')
  if tonumber(last) < now then
    redis.call('HDEL', scrapers, all[i])
  else
    for _, value in ipairs({all[i], capacity, has_browser}) do alive[#alive + 1] = value end
  end
end
local listed = redis.call('HGET', state, 'listed') or ''
return {time, lost, alive, redis.call('HGETALL', leases), redis.call('HKEYS', quotes), listed,
  redis.call('HGETALL', retries)}
"""

# ARGV: epoch, scraper, length of a lease; then of each ticker: itself, the fence of the lease that it may take over or
# nothing, the state that its new page shows. Returns ticker, fence, quote and proof of each that the scraper now owns.
CLAIM = """
local claimed = {}
for i = 4, #ARGV, 3 do
  local ticker, quote, fence, holder, ends = ARGV[i], redis.call('HGET', quotes, ARGV[i]), lease_of(ARGV[i])
  local shown = ARGV[i + 2]
  if quote and (not fence or ends < now or holder == ARGV[2] or (fence == ARGV[i + 1] and (shown == 'live'
      or shown == 'closed' or shown == cjson.decode(string.match(quote, ' (.*)')).state))) then
    local new = redis.call('HINCRBY', state, 'fence', 1)
    redis.call('HSET', leases, ticker, new .. ' ' .. ARGV[2] .. ' ' .. (now + ARGV[3]))
    for _, value in ipairs({ticker, new, quote, redis.call('HGET', proofs, ticker) or ''}) do
      claimed[#claimed + 1] = value
    end
  end
end
return claimed
"""

# ARGV: epoch, ticker, ms between two tries. Asks the ticker's owner for a try, which sees it at its next tick. Returns
# the ms until that is allowed, 0 if it is now; -1 if the ticker has no owner.
RETRY = """
local fence, holder, ends = lease_of(ARGV[2])
if not fence or ends < now then return -1 end
local waits = tonumber(redis.call('HGET', retries, ARGV[2]) or 0) + ARGV[3] - now
if waits > 0 and waits <= tonumber(ARGV[3]) then return waits end
redis.call('HSET', retries, ARGV[2], now)
return 0
"""

# ARGV: epoch, scraper; then ticker and fence of each that it owns. All of them are free at once.
RELEASE = """
redis.call('HDEL', scrapers, ARGV[2])
for i = 3, #ARGV, 2 do
  local fence, holder = lease_of(ARGV[i])
  if fence == ARGV[i + 1] and holder == ARGV[2] then redis.call('HDEL', leases, ARGV[i]) end
end
return 1
"""

# ARGV: epoch, length of the stream, what to do, most tickers; then ticker and first quote of each. Returns the sequence
# of the change, 0 if nothing changed; the tickers for which there is no room; and the sequence by now.
CHANGE = """
local listed = redis.call('HGET', state, 'listed')
if ARGV[3] == 'refill' and listed == '1' then return {0, {}, 0} end
if ARGV[3] == 'refill' or ARGV[3] == 'replace' then redis.call('HSET', state, 'listed', 1)
elseif not listed then redis.call('HSET', state, 'listed', 'begun') end
local fields, refused, named, count = {}, {}, {}, redis.call('HLEN', quotes)
local function note(ticker, json) fields[#fields + 1], fields[#fields + 2] = ticker, json end
for i = 5, #ARGV, 2 do named[ARGV[i]] = true end
for _, ticker in ipairs(redis.call('HKEYS', quotes)) do
  if ARGV[3] == 'remove' and named[ticker] or ARGV[3] == 'replace' and not named[ticker] then
    note(ticker, '')
    count = count - 1
  end
end
if ARGV[3] ~= 'remove' then
  for i = 5, #ARGV, 2 do
    if redis.call('HEXISTS', quotes, ARGV[i]) == 0 then
      if count < tonumber(ARGV[4]) then
        note(ARGV[i], ARGV[i + 1])
        count = count + 1
      else
        refused[#refused + 1] = ARGV[i]
      end
    end
  end
end
local changed = append(fields, ARGV[2])
return {changed, refused, tonumber(redis.call('HGET', state, 'sequence') or 0)}
"""


class How(StrEnum):
    """How a change of the watchlist is meant.

    `refill` does nothing if Redis has a list, even an empty one; it adds to one that began with a single change.
    """

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    REFILL = "refill"


LISTED, BEGUN = "1", "begun"  # see `listed`


# --- arguments and answers --------------------------------------------------------------------------------------------

_ENUMS = {"state": State, "source": Source}
_OURS = ("proven_until", "position")  # they mean something else in each process
_USUAL = {entry.name: entry.default for entry in fields(Quote) if entry.name not in _OURS}


def to_json(quote: Quote, proof: int | None = None) -> str:
    """The quote with the end of its proof by Redis' clock, and without its position. Unknown values are left out."""
    known = {name: value for name, usual in _USUAL.items() if (value := getattr(quote, name)) != usual}
    if proof is not None:
        known["proof"] = proof
    return compact_json(known)


def from_json(text: str, position: int) -> tuple[Quote, int | None]:
    """The quote, still without its proof, and the end of that by Redis' clock. Ignores what a later version adds."""
    told = json.loads(text)
    values = {name: value for name, value in told.items() if name in _USUAL}
    values |= {name: kind(values[name]) for name, kind in _ENUMS.items() if name in values}
    return Quote(**values, position=position), told.get("proof")


def pairs_of(flat: Sequence[str]) -> dict[str, str]:
    """A dictionary from what a script returns of a hash."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def text_of(proof: int | None) -> str | int:
    return "" if proof is None else proof
