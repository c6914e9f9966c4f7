"""Usage for the demo, so that its console shows something: this month, and two that are closed.

All of it is made up. The same day gives the same records, with ids that begin with `demo-`. A
second start of the demo adds only those that have ended since.
"""

import json
import random
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol

from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy, Count
from headgate.database.connection import Connection
from headgate.identity.change_log import Actor
from headgate.ledger.importing import BATCH_LINES, Import, Source
from headgate.ledger.showback.closed import MonthError
from headgate.ledger.showback.month import read_statement
from headgate.ledger.showback.period import month_at, month_before, period_of
from headgate.management.reports import closed
from headgate.policy import limit_text

MONTHS_BEFORE = 2
SOURCE = "made-up months of the demo"
BY = Actor("demo", "127.0.0.1", "The demo")
_WAIT_S = 10.0
_IN, _CACHED, _OUT = 2_500, 500, 10_000
"""The prices of the demo's policy, in nanos for each token."""


class Connect(Protocol):
    """Opens a connection to the database."""

    def __call__(self) -> AbstractAsyncContextManager[Connection]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Team:
    """The habits of a tenant: its users, its client, and what a request of it is like."""

    tenant: str
    users: tuple[str, ...]
    client: str
    a_day: int
    prompt: int
    answer: int
    works_at_night: bool = False


_TEAMS = (
    _Team(
        tenant="demo",
        users=("alice", "bob"),
        client="openai-python/3.52",
        a_day=26,
        prompt=900,
        answer=350,
    ),
    _Team(
        tenant="globex",
        users=("carol", "claims-intake", "dana"),
        client="claims-intake/4.1",
        a_day=38,
        prompt=3800,
        answer=420,
    ),
    _Team(
        tenant="acme",
        users=("lena", "omar", "chat-frontend"),
        client="chat-frontend/3.2",
        a_day=54,
        prompt=1600,
        answer=480,
    ),
    _Team(
        tenant="initech",
        users=("nightly",),
        client="batch/1.0",
        a_day=30,
        prompt=4600,
        answer=260,
        works_at_night=True,
    ),
)


async def add_demo_months(connect: Connect, clock: Clock, policy: CompiledPolicy) -> int:
    """Adds all that has ended until now, closes the months before, returns the new records."""
    now = datetime.fromtimestamp(clock.now_s(), UTC)
    lines = [json.dumps(one).encode() for one in demo_records(now, policy)]
    numbered = list(enumerate(lines, 1))
    batches = (numbered[n : n + BATCH_LINES] for n in range(0, len(numbered), BATCH_LINES))
    fed = await Import(connect, clock, _WAIT_S, _no_line_is_bad).run([Source(SOURCE, batches)])
    async with connect() as connection:
        for month in demo_months(now, policy)[:-1]:
            statement = await read_statement(connection, policy, month, now)
            if statement.closing is None:
                with suppress(MonthError):  # a month of an earlier start may be open before it
                    await closed(connection, statement, BY, clock)
    return fed.added


def _no_line_is_bad(_source: str, number: int, why: str) -> None:
    raise AssertionError(f"line {number} of the demo's month {why}")


def demo_records(now: datetime, policy: CompiledPolicy) -> Iterator[dict[str, Any]]:
    """The records of all requests that have ended."""
    begin = period_of(demo_months(now, policy)[0], policy.showback).begin
    day = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= now:
        for team in _TEAMS:
            for record in _day_of(team, day, policy):
                at = datetime.fromisoformat(record["time"])
                if begin <= at and at + timedelta(seconds=record["duration_s"]) < now:
                    yield record
        day += timedelta(days=1)


def demo_months(now: datetime, policy: CompiledPolicy) -> list[str]:
    """The names of the months that are made up, the one that runs last."""
    months = [month_at(now, policy.showback)]
    while len(months) <= MONTHS_BEFORE:
        months.insert(0, month_before(months[0]))
    return months


def _day_of(team: _Team, day: datetime, policy: CompiledPolicy) -> Iterator[dict[str, Any]]:
    chance = random.Random(f"{team.tenant} {day:%Y-%m-%d}")  # noqa: S311 - it only makes data up
    is_weekend = day.weekday() >= 5 and not team.works_at_night
    number = chance.randint(team.a_day * 3 // 4, team.a_day * 5 // 4) // (5 if is_weekend else 1)
    for index in range(number):
        hour = chance.gauss(2, 1) % 24 if team.works_at_night else chance.gauss(11.5, 3) % 24
        at = day + timedelta(seconds=round(hour * 3600, 3))
        yield _record(team, at, _id(team, day, index), chance, policy)


def _id(team: _Team, day: datetime, index: int) -> str:
    """The id of a request, the same at each start of the demo."""
    return f"demo-{sha256(f'{team.tenant} {day:%Y-%m-%d} {index}'.encode()).hexdigest()[:8]}"


def _record(
    team: _Team, at: datetime, request_id: str, chance: random.Random, policy: CompiledPolicy
) -> dict[str, Any]:
    user = chance.choice(team.users)
    asked = {
        "schema": 2,
        "time": at.isoformat(),
        "request_id": request_id,
        "trace_id": f"{chance.getrandbits(128):032x}",
        "tenant": team.tenant,
        "user": user,
        "key": f"{user}-demo",
        "ip": f"10.20.{chance.randint(0, 40)}.{chance.randint(2, 250)}",
        "user_agent": team.client,
        "method": "POST",
        "path": "/v1/chat/completions",
        "api": "chat",
        "requested_model": "tiny",
        "stream": True,
        "choices": 1,
        "max_tokens": 2048,
        "replica": "demo",
    }
    prompt = max(20, int(chance.lognormvariate(0, 0.6) * team.prompt))
    fate = chance.random()
    if fate < 0.02 and policy.tenants[team.tenant].limits:
        return {**asked, **_refused(team, prompt, policy)}
    if fate < 0.025:
        return {**asked, "status": 403, "flags": ["UAEX"], "duration_s": 0.0031}
    return {**asked, **_computed(team, prompt, fate, chance), **_priced(at, policy)}


def _refused(team: _Team, prompt: int, policy: CompiledPolicy) -> dict[str, Any]:
    limit = policy.tenants[team.tenant].limits[-1]
    asked = prompt * _IN + 2048 * _OUT if limit.count is Count.COST else prompt + 2048
    return {
        "status": 429,
        "flags": ["RL"],
        "model": "tiny",
        "base": "tiny",
        "limit": limit_text(limit),
        "limit_count": limit.count,
        "limit_most": limit.limit,
        "limit_used": limit.limit - asked // 2,
        "limit_asked": asked,
        "estimated_tokens": prompt + 2048,
        "estimated_prompt_tokens": prompt,
        "cost": 0,
        "source": "refund",
        "duration_s": 0.0028,
    }


def _computed(team: _Team, prompt: int, fate: float, chance: random.Random) -> dict[str, Any]:
    answer = max(4, int(chance.lognormvariate(0, 0.5) * team.answer))
    cached = int(prompt * chance.choice((0, 0.3, 0.6, 0.8)))
    ttft_s = round(0.12 + (prompt - cached) / 9000 + chance.random() * 0.2, 6)
    has_failed, has_left = fate > 0.994, 0.98 < fate <= 0.994
    ended = "upstream_broke" if has_failed else "client_left" if has_left else "complete"
    answer = 0 if has_failed else answer // 4 if has_left else answer
    nanos = 0 if has_failed else (prompt - cached) * _IN + cached * _CACHED + answer * _OUT
    return {
        "status": 502 if has_failed else 200,
        "upstream_status": None if has_failed else 200,
        "flags": ["UC"] if has_failed else ["DC"] if has_left else [],
        "ended": ended,
        "model": "tiny",
        "base": "tiny",
        "pod": f"10.1.0.{chance.randint(1, 3)}:8000",
        "attempts": 1,
        "estimated_tokens": prompt + 2048,
        "estimated_prompt_tokens": prompt,
        "prompt_tokens": None if has_failed else prompt,
        "cached_tokens": None if has_failed else cached,
        "completion_tokens": None if has_failed else answer,
        "cost": nanos / 10**9,
        "source": "refund" if has_failed else "partial" if has_left else "usage",
        "to_upstream_s": 0.0036,
        "upstream_first_byte_s": None if has_failed else ttft_s - 0.001,
        "ttft_s": None if has_failed else ttft_s,
        "duration_s": round(ttft_s + answer / 62, 6),
    }


def _priced(at: datetime, policy: CompiledPolicy) -> dict[str, Any]:
    return {"price_version": policy.models["tiny"].prices.at(at.timestamp()).version}
