"""Asks every part that was named, at the same time."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

import httpx

from headgate.core.clock import Clock
from headgate.doctor.envoy import door, envoy
from headgate.doctor.finding import Finding, ok, problem
from headgate.doctor.services import services
from headgate.doctor.store import store
from headgate.doctor.upstreams import upstreams
from headgate.policy import PolicyError, load_policy

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where each part is; None for one that is not looked at."""

    admin_url: str | None = None
    door_url: str | None = None
    envoy_admin: str | None = None
    """A URL, or the path of a unix socket."""
    store: str | None = None
    store_password_file: Path | None = None
    policy: Path | None = None
    upstream_ca: Path | None = None


async def examine(parts: Parts, clock: Clock, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """The findings about all parts, in a fixed order. Raises OperatorError for a bad address."""
    # The door's certificate may be one of the operator's own, and its end is in the metrics.
    async with httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=False) as client:  # noqa: S501
        now_s = clock.now_s()
        asked: list[Awaitable[list[Finding]]] = []
        if parts.door_url is not None:
            asked.append(door(client, parts.door_url, now_s))
        if parts.envoy_admin is not None:
            asked.append(envoy(parts.envoy_admin, timeout_s))
        if parts.admin_url is not None:
            asked.append(services(client, parts.admin_url, now_s))
        if parts.store not in (None, "memory"):
            asked.append(store(str(parts.store), parts.store_password_file, clock, timeout_s))
        if parts.policy is not None:
            asked.append(_policy(parts.policy, parts, now_s))
        return [finding for findings in await asyncio.gather(*asked) for finding in findings]


async def _policy(file: Path, parts: Parts, now_s: float) -> list[Finding]:
    try:
        policy = load_policy(file)
    except PolicyError as error:
        return [problem("policy", f"{line}; correct the file") for line in str(error).splitlines()]
    found = await upstreams(policy, parts.upstream_ca, now_s)
    return [ok("policy", f"{file} is right"), *found]
