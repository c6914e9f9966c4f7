"""Redis: does it answer here, is its clock right, and does it keep what it is given?"""

import asyncio
from pathlib import Path

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from headgate.core.clock import Clock
from headgate.core.redis_client import redis_client
from headgate.doctor.clocks import skew
from headgate.doctor.finding import Finding, note, ok, problem

PART = "redis"
_KEEPS = "noeviction"


async def store(
    url: str, password_file: Path | None, clock: Clock, timeout_s: float
) -> list[Finding]:
    """The findings about the Redis at `url`. Raises OperatorError for a URL that is none."""
    client = redis_client(url, password_file)
    try:
        async with asyncio.timeout(timeout_s):
            await client.ping()
            found = [] if isinstance(client, RedisCluster) else await _server(client, clock)
    except (RedisError, OSError, TimeoutError) as error:
        reason = str(error) or f"no answer in {timeout_s:g} s"
        return [problem(PART, f"{reason}; start it, or correct --store")]
    finally:
        await client.aclose()
    return [ok(PART, "answers"), *found]


async def _server(client: Redis, clock: Clock) -> list[Finding]:
    """The clock of one server, and whether it keeps its keys. A cluster has one for each node."""
    seconds, micros = await client.time()
    found = skew(PART, seconds + micros / 1e6 - clock.now_s())
    kept = (await client.config_get("maxmemory-policy")).get("maxmemory-policy", _KEEPS)
    if kept != _KEEPS:
        text = (
            f"maxmemory-policy is {kept}: under pressure Redis drops counters, and limits begin"
            f" again; set {_KEEPS}"
        )
        found.append(note(PART, text))
    return found
