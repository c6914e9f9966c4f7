"""Values and parts that the tests of this folder share."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from zoneinfo import ZoneInfo

from headgate.core.clock import Clock
from headgate.core.policy import Calendar, CompiledPolicy, Model, Tenant
from headgate.database.address import DatabaseAddress
from headgate.database.connection import Connection, connected
from headgate.identity.change_log import Actor
from headgate.identity.keys import KeyRequest
from headgate.identity.store import KeyStore
from tests.patience import PATIENCE_S

BY = Actor("okta:00u1", "192.0.2.7")
MODELS = ("tiny", "large")


def _model(name: str) -> Model:
    return Model(
        name=name,
        base=name,
        served_as=name,
        upstream="http://127.0.0.1:8000",
        context_tokens=4096,
        forces_usage=True,
    )


def _tenant(name: str) -> Tenant:
    calendar = Calendar(ZoneInfo("UTC"))
    return Tenant(name=name, calendar=calendar, models=frozenset(MODELS), limits=())


POLICY = CompiledPolicy(
    models={name: _model(name) for name in MODELS},
    tenants={name: _tenant(name) for name in ("acme", "globex")},
    keys={},
)
ALICE = KeyRequest(tenant="acme", user="alice")


def connect_to(address: DatabaseAddress) -> partial[AbstractAsyncContextManager[Connection]]:
    return partial(connected, address)


async def until(holds: Callable[[], object]) -> None:
    """Waits for something that happens outside of this process' reach."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - the world outside has no event
            await asyncio.sleep(0.005)


def store_of(address: DatabaseAddress, clock: Clock) -> KeyStore:
    return KeyStore(connect_to(address), clock)
