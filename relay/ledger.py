"""What alerts keep in Redis, and the scripts that change it.

This file owns these keys, the scripts, and the ledger of alerts in Redis. It decides nothing about alerts, and starts
no thread: a ledger belongs to the thread that has its link. The keys, beside those of `relay.scripts`:

    state      also: `alerts` ("fence holder end", the lease), `alerts_listed` (there is a list: 1, or
               `begun` if it began with an alert of a process that may have known no list), `notes` (the last one)
    desks      hash: process → "end notifies", its heartbeat; `notifies` is 1 if it has notify URLs
    alerts     hash: alert → "number ticker armed raised_at JSON"
    judged     JSON: the last live price of each ticker with alerts, as the holder of the lease has judged it
    raised     hash: ring → "targets JSON", and "ring target" → the delivery as JSON
    rung       sorted set of the rings, by number
    waiting    sorted set of "target number ring": the deliveries that wait
    notes      capped stream: entry `number`-0 has `kind` (alert, gone, raised), `id` and `text`

All that the holder of the lease writes in one order is written in one step, and only while the fence that it was given
is that of the lease: nobody else got the lease since. Then every process has a note of it. An alert that is deleted
can't ring any more, and what is there already stays, so that an order may be written twice.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from quotes import State, compact_json
from relay.link import EpochEnded, Link
from relay.scripts import ALERT_KEYS, QUOTES, STATE, from_json
from storage.ledger import (
    AlertRow,
    Delivery,
    DeliveryState,
    delivery_of,
    with_deliveries,
)

DESKS, ALERTS, JUDGED, RAISED, RUNG, WAITING, NOTES = ALERT_KEYS
LISTED = "alerts_listed"
MAX_NOTES = 10_000  # about
OTHERS_WAIT_MS = 86_400_000  # a delivery for a URL that this process doesn't have may be another process's

# --- scripts ----------------------------------------------------------------------------------------------------------

ALERT_PRELUDE = f"""
local desks, alerts, judged, raised, rung, waiting, notes = unpack(KEYS, #KEYS - 6)
local function lease()
  local fence, holder, ends = string.match(redis.call('HGET', state, 'alerts') or '', '^(%d+) (%S+) (%d+)$')
  return fence or '0', holder, tonumber(ends or 0)
end
local function note(kind, id, text)
  local number = redis.call('HINCRBY', state, 'notes', 1)
  redis.call('XADD', notes, 'MAXLEN', '~', {MAX_NOTES}, number .. '-0', 'kind', kind, 'id', id, 'text', text)
  return number
end
local function keep(id, rest)
  local old = redis.call('HGET', alerts, id)
  local number = old and string.match(old, '^%d+') or redis.call('HINCRBY', state, 'notes', 0) + 1
  redis.call('HSET', alerts, id, number .. ' ' .. rest)
  note('alert', id, rest)
end
local function drop(id)
  if redis.call('HDEL', alerts, id) == 0 then return 0 end
  note('gone', id, '')
  return 1
end
"""

# ARGV: epoch, process, the fence that it holds, length of a lease, whether it has notify URLs, the prices it has
# judged. Gets or keeps the lease. Returns the time, the fence or 0, when the lease ends.
TAKE = (
    ALERT_PRELUDE
    + """
local fence, holder, ends = lease()
local ours, best = holder == ARGV[2] and fence == ARGV[3], ARGV[5]
redis.call('HSET', desks, ARGV[2], (now + ARGV[4]) .. ' ' .. ARGV[5])
local all = redis.call('HGETALL', desks)
for i = 1, #all, 2 do
  local last, notifies = string.match(all[i + 1], '^(%d+) (%d)$')
  if tonumber(last) < now then redis.call('HDEL', desks, all[i]) elseif notifies > best then best = notifies end
end
if ARGV[5] < best then
  if ours then redis.call('HDEL', state, 'alerts') end
  return {time, '0', now}
end
if ours then
  redis.call('SET', judged, ARGV[6])
elseif ends < now or holder == ARGV[2] then
  fence = redis.call('HINCRBY', state, 'fence', 1)
else
  return {time, '0', ends}
end
redis.call('HSET', state, 'alerts', fence .. ' ' .. ARGV[2] .. ' ' .. (now + ARGV[4]))
return {time, fence, now + ARGV[4]}
"""
)

# ARGV: epoch, process, the fence that it holds. The lease is free at once.
LEAVE = (
    ALERT_PRELUDE
    + """
redis.call('HDEL', desks, ARGV[2])
if lease() == ARGV[3] then redis.call('HDEL', state, 'alerts') end
return 1
"""
)

# ARGV: epoch, most alerts, most of a ticker, ticker, id, rest, the alert that it replaces or nothing. Returns why it is
# not made: '' if it is, 'all' or 'ticker' if that is full, 'gone' if there is no such alert to replace.
MAKE = (
    ALERT_PRELUDE
    + """
if redis.call('HEXISTS', alerts, ARGV[5]) == 1 then return '' end
local all, count, all_alerts = 0, 0, redis.call('HGETALL', alerts)
for i = 1, #all_alerts, 2 do
  if all_alerts[i] ~= ARGV[7] then
    all = all + 1
    if string.match(all_alerts[i + 1], '^%d+ (%S+) ') == ARGV[4] then count = count + 1 end
  end
end
if ARGV[7] ~= '' and redis.call('HEXISTS', alerts, ARGV[7]) == 0 then return 'gone' end
if all >= tonumber(ARGV[2]) then return 'all' end
if count >= tonumber(ARGV[3]) then return 'ticker' end
redis.call('HSETNX', state, 'alerts_listed', 'begun')
drop(ARGV[7])
keep(ARGV[5], ARGV[6])
return ''
"""
)

# ARGV: epoch, id. Returns whether there was such an alert.
DELETE = ALERT_PRELUDE + "return drop(ARGV[2])"

# ARGV: epoch; then id and rest of each. Returns whether there was no list at all, or one that began with an alert.
REFILL = (
    ALERT_PRELUDE
    + """
if redis.call('HGET', state, 'alerts_listed') == '1' then return 0 end
redis.call('HSET', state, 'alerts_listed', 1)
for i = 2, #ARGV, 2 do keep(ARGV[i], ARGV[i + 1]) end
return 1
"""
)

# ARGV: epoch, fence, JSON of what to write, most that were raised, most with those that wait to be delivered. Returns
# 'kept'; 'lost' if another process has the lease; 'void' if an alert that rings was deleted. And how many of what was
# raised had to go although deliveries waited.
WRITE = (
    ALERT_PRELUDE
    + """
if lease() ~= ARGV[2] then return {'lost', 0} end
local dropped = 0
local function place(target, id)
  return target .. ' ' .. string.format('%012d', redis.call('ZSCORE', rung, id)) .. ' ' .. id
end
local function targets(id) return string.gmatch(string.match(redis.call('HGET', raised, id), '^%S*'), '[^,]+') end
local function waits(id)
  for target in targets(id) do if redis.call('ZSCORE', waiting, place(target, id)) then return true end end
  return false
end
local function forget(id)
  for target in targets(id) do
    redis.call('HDEL', raised, id .. ' ' .. target)
    redis.call('ZREM', waiting, place(target, id))
  end
  redis.call('HDEL', raised, id)
  redis.call('ZREM', rung, id)
end
local function ring(id, alert, text, fields, deliveries)
  redis.call('ZADD', rung, note('raised', id, fields), id)
  redis.call('HSET', raised, id, text .. ' ' .. fields)
  for i = 1, #deliveries, 2 do
    redis.call('HSET', raised, id .. ' ' .. deliveries[i], deliveries[i + 1])
    redis.call('ZADD', waiting, 0, place(deliveries[i], id))
  end
  local edge = redis.call('ZREVRANGE', rung, ARGV[4], ARGV[4])[1]
  if edge and not waits(edge) then forget(edge) end
  local most = redis.call('ZREVRANGE', rung, ARGV[5], ARGV[5])[1]
  if most then
    forget(most)
    dropped = dropped + 1
  end
end
local function deliver(id, target, is_waiting, text)
  if redis.call('HEXISTS', raised, id .. ' ' .. target) == 0 then return end
  redis.call('HSET', raised, id .. ' ' .. target, text)
  if is_waiting then return end
  redis.call('ZREM', waiting, place(target, id))
  if redis.call('ZREVRANK', rung, id) >= tonumber(ARGV[4]) and not waits(id) then forget(id) end
end
for _, part in ipairs(cjson.decode(ARGV[3])) do
  local kind, id = part[1], part[2]
  if kind == 'alert' then
    if redis.call('HEXISTS', alerts, id) == 1 then keep(id, part[3]) end
  elseif kind == 'gone' then
    drop(id)
  elseif kind == 'delivery' then
    deliver(id, part[3], part[4], part[5])
  elseif redis.call('HEXISTS', raised, id) == 1 then
    return {'kept', 0}
  elseif redis.call('HEXISTS', alerts, part[3]) == 0 then
    return {'void', 0}
  else
    ring(id, unpack(part, 3))
  end
end
return {'kept', dropped}
"""
)

# --- the ledger -------------------------------------------------------------------------------------------------------


class RedisLedger:
    """The ledger in Redis (storage.ledger.Ledger). What it is told to keep is in `parts`, until someone runs WRITE.

    Its reading raises RedisError.
    """

    def __init__(self, link: Link) -> None:
        self.parts: list[list[Any]] = []
        self._link = link
        self._judged: dict[str, str] | None = None

    @property
    def written(self) -> list[str | int]:
        """The arguments of WRITE after the fence."""
        limits = self._link.settings.alerts
        return [compact_json(self.parts), limits.raised, limits.undelivered]

    # --- alerts -------------------------------------------------------------------------------------------------------

    def alerts(self) -> list[AlertRow]:
        (values,) = self._ask(("HGETALL", ALERTS))
        numbered = [(int((parts := value.partition(" "))[0]), id, parts[2]) for id, value in values.items()]
        return [row_of(id, rest) for _, id, rest in sorted(numbered)]

    def keep_alert(self, row: AlertRow) -> None:
        self.parts.append(["alert", row.id, rest_of(row)])

    def forget_alert(self, id: str) -> None:
        self.parts.append(["gone", id])

    def last_live_price(self, ticker: str) -> str | None:
        """The one that was judged last; or else the relay's, if it is live."""
        if self._judged is None:
            (text,) = self._ask(("GET", JUDGED))
            self._judged = json.loads(text or "{}")
        if ticker in self._judged:
            return self._judged[ticker]
        (value,) = self._ask(("HGET", QUOTES, ticker))
        quote = from_json(value.partition(" ")[2], 0)[0] if value else None
        return quote.price_text if quote is not None and quote.state is State.LIVE else None

    # --- what was raised ----------------------------------------------------------------------------------------------

    def keep_raised(self, id: str, at: int, fields: Mapping[str, Any], deliveries: Iterable[Delivery]) -> int:
        """Void if its alert is not there any more. How many others have to go is known once it is written."""
        deliveries = list(deliveries)
        targets = ",".join(delivery.target for delivery in deliveries)
        flat = [text for delivery in deliveries for text in (delivery.target, compact_json(delivery))]
        self.parts.append(["raised", id, fields["alert"], targets, compact_json(fields), flat])
        return 0

    def raised(self, limit: int) -> list[dict[str, Any]]:
        (ids,) = self._ask(("ZREVRANGE", RUNG, 0, limit - 1))
        texts = dict(zip(ids, self._values(ids), strict=True))
        known = {id: text.partition(" ") for id, text in texts.items() if text is not None}
        places = [(id, target) for id, (targets, _, _) in known.items() for target in targets.split(",") if target]
        found: dict[str, list[Delivery]] = {}
        for (id, _), text in zip(places, self._values(" ".join(place) for place in places), strict=True):
            if text is not None:
                found.setdefault(id, []).append(delivery_of(json.loads(text)))
        return [with_deliveries(json.loads(fields), found.get(id, [])) for id, (_, _, fields) in known.items()]

    # --- deliveries ---------------------------------------------------------------------------------------------------

    def keep_delivery(self, delivery: Delivery) -> None:
        is_waiting = delivery.state is DeliveryState.WAITING
        self.parts.append(["delivery", delivery.raised, delivery.target, is_waiting, compact_json(delivery)])

    def waiting(self, target: str, limit: int) -> Iterator[tuple[dict[str, Any], Delivery]]:
        (places,) = self._ask(("ZRANGEBYLEX", WAITING, f"[{target} ", f"({target}!", "LIMIT", 0, limit))
        yield from self._at(places)

    def count_waiting(self, target: str) -> int:
        (count,) = self._ask(("ZLEXCOUNT", WAITING, f"[{target} ", f"({target}!"))
        return int(count)

    def give_up_others(self, targets: Collection[str], at: int, error: str) -> None:
        """Those that have waited for a day: the URL may be in the settings of a process that isn't running now."""
        (places,) = self._ask(("ZRANGE", WAITING, 0, -1))
        for raised, delivery in self._at(place for place in places if place.partition(" ")[0] not in targets):
            if raised["at"] < at - OTHERS_WAIT_MS:
                failed = delivery._replace(state=DeliveryState.FAILED, at=at, next_try_at=None, error=error)
                self.keep_delivery(failed)

    # --- Redis --------------------------------------------------------------------------------------------------------

    def _at(self, places: Iterable[str]) -> Iterator[tuple[dict[str, Any], Delivery]]:
        """What was raised, and its delivery, of members of `waiting`."""
        values = self._values(name for place in places for name in names_of(place))
        for raised, delivery in zip(values[::2], values[1::2], strict=True):
            if raised is not None and delivery is not None:
                yield json.loads(raised.partition(" ")[2]), delivery_of(json.loads(delivery))

    def _values(self, names: Iterable[str]) -> list[str | None]:
        """Of the hash `raised`."""
        names = list(names)
        return self._ask(("HMGET", RAISED, *names))[0] if names else []

    def _ask(self, *commands: tuple[str | int, ...]) -> list[Any]:
        """The answers of Redis, all of one moment. Raises EpochEnded."""
        with self._link.redis.pipeline(transaction=True) as pipe:
            pipe.hget(STATE, "epoch")
            for command in commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]
            epoch, *answers = pipe.execute()
        self._link.check()
        if epoch != self._link.epoch:
            raise EpochEnded
        return answers


# --- texts ------------------------------------------------------------------------------------------------------------


def rest_of(row: AlertRow) -> str:
    """An alert as Redis has it, after its number."""
    raised_at = "-" if row.raised_at is None else row.raised_at
    return f"{row.fields['ticker']} {row.armed:d} {raised_at} {compact_json(row.fields)}"


def row_of(id: str, rest: str) -> AlertRow:
    """The alert of which `rest_of` made this."""
    _, armed, raised_at, fields = rest.split(" ", 3)
    return AlertRow(id, json.loads(fields), armed == "1", None if raised_at == "-" else int(raised_at))


def names_of(place: str) -> tuple[str, str]:
    """The names in `raised` of a member of `waiting`: what was raised, and its delivery."""
    target, _, id = place.split(" ")
    return id, f"{id} {target}"
