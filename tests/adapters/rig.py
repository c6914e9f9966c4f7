"""A reconciler on a real PostgreSQL, with simulators as pods and one agent for all of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry

from headgate.adapters.reading import FollowedAdapters
from headgate.adapters.reconcile.reconciler import Reconciler
from headgate.adapters.registry import MemoryRegistry
from headgate.adapters.rules import AdapterRequest
from headgate.adapters.store import AdapterStore, Place
from headgate.core.adapter_pools import AdapterPool
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.address import DatabaseAddress
from headgate.identity.follow import KeyFollower
from headgate.identity.ring import MemoryRing
from headgate.program.adapter_agent import AgentSettings, running_agent
from headgate.program.settings import Address
from tests.adapters.files import write_adapter, write_base
from tests.identity.builders import BY, POLICY, connect_to
from tests.patience import PATIENCE_S

SQL = AdapterRequest(name="acme-sql", tenant="acme", base="tiny", source="acme/sql-7", copies=2)


class ShiftedClock(SystemClock):
    """The clock of the machine, which a test sets forward."""

    shift_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.shift_s


@dataclass
class Rig:
    """The parts around a reconciler."""

    address: DatabaseAddress
    folder: Path
    policy: CompiledPolicy
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)

    @property
    def store(self) -> AdapterStore:
        return AdapterStore(connect_to(self.address), self.clock)

    @property
    def kept(self) -> list[str]:
        """The versions whose files the pods have."""
        return sorted(path.name for path in (self.folder / "pod").iterdir())

    async def register(self, **changes: object) -> None:
        await self.store.register(replace(SQL, **changes), self.policy, BY)  # type: ignore[arg-type]

    async def places(self, name: str = "acme-sql") -> list[Place]:
        return await self.store.places([await self.store.get(name)])

    @asynccontextmanager
    async def reconciler(self) -> AsyncIterator[Metrics]:
        """One more replica's reconciler."""
        metrics = Metrics(CollectorRegistry(), self.clock)
        connect = connect_to(self.address)
        async with Reconciler(connect, lambda: self.policy, self.clock, metrics.of_adapters):
            yield metrics


@asynccontextmanager
async def running_rig(
    address: DatabaseAddress, folder: Path, pods: list[str], *, live: int = 2, listed: int = 3
) -> AsyncIterator[Rig]:
    """An agent, and a replica that follows the registry; sources `acme/sql-7` and `acme/sql-8`.

    `pods` are the URLs of simulators.
    """
    for name in ("sources", "pod"):
        (folder / name).mkdir()
    for name in ("acme/sql-7", "acme/sql-8"):
        write_adapter(folder / "sources" / name)
    settings = AgentSettings(
        address=Address("127.0.0.1", 0),
        vllm=pods[0],
        sources=folder / "sources",
        folder=folder / "pod",
        base_config=write_base(folder),
    )
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_agent(settings))
        pool = AdapterPool(
            pods=tuple(pod.removeprefix("http://") for pod in pods),
            live=live,
            listed=listed,
            max_rank=8,
            trained_on=("org/tiny",),
            folder=str(folder / "pod"),
            agent_port=httpx.URL(url).port or 0,
        )
        models = {**POLICY.models, "tiny": replace(POLICY.models["tiny"], adapter_pool=pool)}
        rig = Rig(address, folder, replace(POLICY, models=models))
        metrics = Metrics(CollectorRegistry(), rig.clock)
        ring, others = MemoryRing(rig.clock, 3600.0), [FollowedAdapters(rig.registry)]
        follower = KeyFollower(connect_to(address), ring, None, rig.clock, metrics, others=others)
        await stack.enter_async_context(follower)
        yield rig


async def eventually(holds: Callable[[], Awaitable[object]]) -> None:
    """Waits for something in the database or on a pod."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - the world outside has no event
            await asyncio.sleep(0.05)


async def listed(pod: str) -> dict[str, str]:
    """The adapters that a pod lists, each with its root."""
    async with httpx.AsyncClient(trust_env=False) as http:
        cards = (await http.get(f"{pod}/v1/models")).json()["data"]
    return {card["id"]: card["root"] for card in cards if card["parent"]}
