"""Leases in Valkey or Redis: exact over several gateways. Each step is one Lua script.

    {locavore}:c:<account>   committed, until a day after its period
    {locavore}:l:<holder>    account -> held
    {locavore}:s:<holder>    account -> slot of the holder's table
    {locavore}:h             holder -> when it was last heard of (server time)
    {locavore}:o:<holder>    connection's owner -> number of its newest step
    {locavore}:t:<holder>    what its newest take granted, and the number of that step

A server that falls silent may have done what it was asked, or do it later. So steps are numbered
and each is done at most once: a take without an answer is undone before the next step, a gift
without an answer is sent again.

Numbers stay below 2^53, where Lua's are exact. The server's clock decides who is dead; gateways'
clocks only name periods.
"""

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from locavore.core.errors import StoreError
from locavore.ledger.leases import (
    SHARE,
    Account,
    Gift,
    Granted,
    Short,
    Want,
    dead_holder,
    left_behind,
)
from locavore.ledger.periods import FOREVER_S

TIMEOUT_S = 0.05
"""A call waits no longer for the limiter."""
DEAD_S = 30
"""A holder on another machine that is silent for so long is taken for dead, and all that it held
for spent."""
log = logging.getLogger(__name__)
_PREFIX = "{locavore}:"
_SPLIT = "\x1f"

# Begins every step. ARGV: holder, owner, number. A step that was done, or overtaken, is not done.
_ONCE = """
local p, holder = KEYS[1], ARGV[1]
local fresh = tonumber(ARGV[3]) > tonumber(redis.call('HGET', p..'o:'..holder, ARGV[2]) or '0')
if fresh then redis.call('HSET', p..'o:'..holder, ARGV[2], ARGV[3]) end
"""
_TAKE = f"""
{_ONCE}
if not fresh then return {{'overtaken'}} end
local lefts = {{}}
for i = 4, #ARGV, 6 do
  local left = tonumber(ARGV[i+2]) - tonumber(redis.call('GET', p..'c:'..ARGV[i]) or '0')
  if ARGV[i+4] == '1' and left < tonumber(ARGV[i+3]) then
    return {{'short', ARGV[i], string.format('%d', left)}}
  end
  lefts[i] = left
end
local out = {{'ok'}}
redis.call('DEL', p..'t:'..holder)
redis.call('HSET', p..'t:'..holder, 'step', ARGV[2]..ARGV[3])
for i = 4, #ARGV, 6 do
  local account, need = ARGV[i], tonumber(ARGV[i+3])
  local amount = math.max(need, math.floor(lefts[i] / {SHARE}))
  local text = string.format('%d', amount)
  redis.call('INCRBY', p..'c:'..account, text)
  if ARGV[i+5] ~= '' then redis.call('EXPIREAT', p..'c:'..account, ARGV[i+5]) end
  redis.call('HINCRBY', p..'l:'..holder, account, text)
  redis.call('HSET', p..'t:'..holder, account, text)
  redis.call('HSETNX', p..'s:'..holder, account, ARGV[i+1])
  out[#out+1] = text
  out[#out+1] = string.format('%d', lefts[i] - amount)
end
redis.call('ZADD', p..'h', redis.call('TIME')[1], holder)
return out
"""
_UNDO = f"""
{_ONCE}
if fresh then return 0 end
local taken = redis.call('HGETALL', p..'t:'..holder)
if redis.call('HGET', p..'t:'..holder, 'step') ~= ARGV[2]..ARGV[3] then return 0 end
for i = 1, #taken, 2 do
  if taken[i] ~= 'step' and redis.call('HEXISTS', p..'l:'..holder, taken[i]) == 1 then
    redis.call('DECRBY', p..'c:'..taken[i], taken[i+1])
    redis.call('HINCRBY', p..'l:'..holder, taken[i], '-'..taken[i+1])
  end
end
redis.call('DEL', p..'t:'..holder)
return 1
"""
# A holder that was taken for dead may come back: what it had is booked as spent, so what it gives
# back is free again. Its calls at a time were freed already and must not be freed twice.
_GIVE = f"""
{_ONCE}
if not fresh then return 0 end
for i = 4, #ARGV, 4 do
  local account, amount = ARGV[i], ARGV[i+1]
  local known = redis.call('HEXISTS', p..'l:'..holder, account) == 1
  if known or not string.find(account, ':concurrent:', 1, true) then
    redis.call('DECRBY', p..'c:'..account, amount)
    if ARGV[i+3] ~= '' then redis.call('EXPIREAT', p..'c:'..account, ARGV[i+3]) end
  end
  if known and ARGV[i+2] == '1' then
    redis.call('HDEL', p..'l:'..holder, account)
    redis.call('HDEL', p..'s:'..holder, account)
  elseif known then
    redis.call('HINCRBY', p..'l:'..holder, account, string.format('%d', -tonumber(amount)))
  end
end
redis.call('ZADD', p..'h', redis.call('TIME')[1], holder)
return 1
"""
# ARGV: holder, then account, used, account, used, ...; an account not named is spent whole.
_SETTLE = """
local p, holder = KEYS[1], ARGV[1]
local used = {}
for i = 2, #ARGV, 2 do used[ARGV[i]] = ARGV[i+1] end
local held = redis.call('HGETALL', p..'l:'..holder)
for i = 1, #held, 2 do
  local account = held[i]
  local spent = tonumber(used[account] or held[i+1])
  if string.find(account, ':concurrent:', 1, true) then spent = 0 end
  local unused = tonumber(held[i+1]) - spent
  redis.call('INCRBY', p..'c:'..account, string.format('%d', -unused))
end
redis.call('DEL', p..'l:'..holder, p..'s:'..holder, p..'t:'..holder)
redis.call('EXPIRE', p..'o:'..holder, 86400)
redis.call('ZREM', p..'h', holder)
return #held / 2
"""


class Doubt(NamedTuple):
    """A step that was not answered: done, lost, or still to be done by a server that wakes up."""

    script: Any
    args: list[str | int]


class ValkeyLeases:
    """`ledger.leases.LeaseStore` on a server that several gateways share."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """`url`: `redis://`, `rediss://` or `unix://`. Needs the extra `locavore[valkey]`."""
        import redis  # an optional dependency
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._url = url
        self._error = redis.RedisError
        self._client: Any = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # a step may have been done: we repeat it, by its number
            decode_responses=True,
        )
        self._take_script = self._client.register_script(_TAKE)
        self._undo_script = self._client.register_script(_UNDO)
        self._give_script = self._client.register_script(_GIVE)
        self._settle_script = self._client.register_script(_SETTLE)
        self._owner = f"{secrets.token_hex(8)}:"
        self._number = 0
        self._doubt: Doubt | None = None

    def _run(self, script: Any, args: list[str | int]) -> Any:
        try:
            return script(keys=[_PREFIX], args=args)
        except self._error as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreError:
        return StoreError(f"the limits at {_shown(self._url)} do not answer: {error}")

    def _next(self, holder: str) -> list[str | int]:
        """Head of a new step, once the last one is certain. Raises StoreError."""
        if self._doubt is not None:
            self._run(*self._doubt)
            self._doubt = None
        self._number += 1
        return [holder, self._owner, self._number]

    def reachable(self) -> bool:
        """Whether the server answers and takes writes now. May be asked from another thread."""
        try:
            return bool(self._client.set(f"{_PREFIX}p", 1, ex=60))
        except self._error:
            return False

    def take(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        head = self._next(holder)
        args = list(head)
        for want in wants:
            args += [_text(want.account), want.slot, want.limit, want.need, int(want.hard)]
            args.append(_expiry(want.end_s))
        try:
            answer = self._run(self._take_script, args)
        except StoreError:
            self._doubt = Doubt(self._undo_script, head)
            raise
        if answer[0] == "short":
            return Short(_account(answer[1]), int(answer[2]))
        numbers = [int(text) for text in answer[1:]]
        return [Granted(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]

    def give(self, holder: str, gifts: Sequence[Gift]) -> None:
        """Raises StoreError when nothing was given; without an answer it is given later, once."""
        args = self._next(holder)
        for gift in gifts:
            args += [_text(gift.account), gift.amount, int(gift.last), _expiry(gift.end_s)]
        try:
            self._run(self._give_script, args)
        except StoreError as error:
            self._doubt = Doubt(self._give_script, args)
            log.warning("limits: %s; told again later", error.message)

    def beat(self, holder: str) -> None:
        self._run(self._give_script, self._next(holder))

    def recover(self, leases_dir: Path, *, now_s: float) -> int:  # noqa: ARG002 - the server's clock
        try:
            seen = dict(self._client.zrange(f"{_PREFIX}h", 0, -1, withscores=True))
            server_s = self._client.time()[0]
        except self._error as error:
            raise self._failed(error) from error
        count = 0
        for holder, last_s in seen.items():
            table = leases_dir / holder
            if table.exists():
                if dead_holder(table):
                    count += self._settle(holder, table)
                    table.unlink(missing_ok=True)
            elif server_s - last_s > DEAD_S:
                count += int(self._run(self._settle_script, [holder]))
        return count

    def _settle(self, holder: str, table: Path) -> int:
        """One of this machine's own, whose table can be read."""
        try:
            slots = self._client.hgetall(f"{_PREFIX}s:{holder}")
        except self._error as error:
            raise self._failed(error) from error
        args: list[str | int] = [holder]
        for account, slot in slots.items():
            used = left_behind(table, int(slot))
            if used is not None:
                args += [account, used]
        return int(self._run(self._settle_script, args))

    def committed(self) -> dict[Account, int]:
        begin = f"{_PREFIX}c:"
        try:
            names = list(self._client.scan_iter(f"{begin}*"))
            values = self._client.mget(names) if names else []
        except self._error as error:
            raise self._failed(error) from error
        return {
            _account(name.removeprefix(begin)): int(value)
            for name, value in zip(names, values, strict=True)
            if value is not None  # its period ended between the two questions
        }

    def close(self) -> None:
        self._client.close()


def _text(account: Account) -> str:
    return _SPLIT.join((account.quota, str(account.start_s), account.subject))


def _account(text: str) -> Account:
    quota, start_s, subject = text.split(_SPLIT, 2)
    return Account(quota, subject, int(start_s))


def _expiry(end_s: int) -> str | int:
    return "" if end_s >= FOREVER_S else end_s + 86_400


def _shown(url: str) -> str:
    """The address without the password in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
