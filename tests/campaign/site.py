"""Three replicas on one Redis behind a real Envoy, and the faults that they meet."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from tests.box import MODELS, digest, metric
from tests.envoy.fleet import Fleet, fleet_to_start, services
from tests.patience import wait_until
from tests.redis_server import RedisServer, running_redis
from tests.slow_proxy import SlowProxy

STEPPED = (sys.executable, "-m", "tests.campaign.stepped_clock")

REPLICAS = 3
LIMIT = 30
"""Requests of each user in the tenants `closed`, `share` and `open`."""
SLOTS = 6
"""Requests in flight of each user in the tenant `slots`."""
LEASE_S = 3
SLOW_S = 0.1
"""How long the slow Redis takes to answer; its deadline here is 50 ms."""

TENANTS = ("closed", "share", "open", "slots")
BY_MINUTE = "minute"
"""A tenant whose windows are short and whose slots outlive clocks that differ."""
WINDOW_S = 60
MINUTE_LIMIT = 9
MINUTE_SLOTS = 3
MINUTE_LEASE_S = 300


def key(tenant: str, user: str) -> str:
    return f"sk-test-{tenant}-{user}-0123456789abcdef"


def _limits(tenant: str) -> str:
    tokens = "count: tokens, limit: 100000000"
    limits = {
        BY_MINUTE: [
            f"{tokens}, per: minute",
            f"count: requests, limit: {MINUTE_LIMIT}, per: minute",
            f"count: concurrent, limit: {MINUTE_SLOTS}, lease_s: {MINUTE_LEASE_S}",
        ],
        "slots": [
            f"{tokens}, per: year, on_outage: share",
            f"count: concurrent, limit: {SLOTS}, lease_s: {LEASE_S}, on_outage: share",
        ],
    }.get(tenant) or [
        f"{tokens}, per: year, on_outage: {tenant}",
        f"count: requests, limit: {LIMIT}, per: year, on_outage: {tenant}",
    ]
    return f"[{', '.join(f'{{{limit}, each: user}}' for limit in limits)}]"


def policy(upstream: str, users: list[str]) -> str:
    """A tenant for each `on_outage`, one for slots and one for clocks, each with these users."""
    lines = [MODELS.format(upstream=upstream, forces_usage="false"), "tenants:"]
    for tenant in (*TENANTS, BY_MINUTE):
        lines += [
            f"  {tenant}:",
            "    models: [tiny]",
            f"    limits: {_limits(tenant)}",
            "    keys:",
        ]
        lines += [
            f'      - {{user: {user}, sha256: "{digest(key(tenant, user))}"}}' for user in users
        ]
    return "\n".join(lines)


@dataclass
class Site:
    """The fleet, and a name under which its replicas find whichever Redis is in use."""

    fleet: Fleet
    name: Path
    current: RedisServer
    spare: RedisServer
    """One that is empty."""

    def keys(self, user: str, tenants: Sequence[str] = TENANTS) -> dict[str, str]:
        return {tenant: key(tenant, user) for tenant in tenants}

    def counters(self, tenant: str, user: str, count: str) -> list[int]:
        """The counters of a user in Redis, one for each window."""
        with self.current.client() as client:
            names = client.scan_iter(f"{{hg:{tenant}}}c:{count}*user={user}/*", count=1000)
            return [int(client.get(name)) for name in names]

    def slots_taken(self, user: str) -> int:
        """Slots of all tenants whose lease runs by this machine's clock."""
        with self.current.client() as client:
            names = client.scan_iter(f"{{hg:*}}l:*user={user}", count=1000)
            now_ms = time.time() * 1000
            return sum(int(client.zcount(name, now_ms, "+inf")) for name in names)

    def set_clock(self, number: int, offset_s: int) -> Path:
        """Steps the clock of a replica that was started with one that can be stepped."""
        file = self.name.with_name(f"clock-{number}")
        fresh = file.with_suffix(".new")
        fresh.write_text(str(offset_s))
        os.replace(fresh, file)
        return file

    def start_with_clocks(self, offsets_s: Sequence[int]) -> None:
        """Starts all replicas again, each with a clock that is wrong by its offset."""

        def start(number: int, offset_s: int) -> None:
            file = self.set_clock(number, offset_s)
            self.fleet.kill(services(number))
            self.fleet.start_services(number, (*STEPPED, str(file)))

        with ThreadPoolExecutor() as pool:
            list(pool.map(start, self.fleet.numbers, offsets_s))
        for number, offset_s in zip(self.fleet.numbers, offsets_s, strict=True):
            loaded_s = metric(
                self.fleet.metrics(number), "headgate_policy_loaded_timestamp_seconds"
            )
            # The replicas start within a minute; their clocks differ by more.
            assert offset_s - 60 < loaded_s - time.time() < offset_s + 1, "the clock is not stepped"

    def is_whole(self) -> bool:
        """Whether every replica asks Redis."""
        numbers = self.fleet.numbers
        return all(metric(self.fleet.metrics(n), "headgate_store_available") for n in numbers)

    async def wait_until_whole(self) -> None:
        await asyncio.to_thread(wait_until, self.is_whole, "Redis to be used again")

    def use(self, socket: Path) -> None:
        """Lets the replicas find this socket from now on."""
        fresh = self.name.with_suffix(".new")
        fresh.symlink_to(socket)
        os.replace(fresh, self.name)

    def cut_connections(self) -> None:
        with self.current.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def wipe(self) -> None:
        """Takes the data of a Redis that is stopped."""
        folder = self.current.folder
        (folder / "appendonly.aof").unlink(missing_ok=True)
        rmtree(folder / "appendonlydir", ignore_errors=True)


def socket_of(server: RedisServer) -> Path:
    return Path(server.url.removeprefix("unix://"))


@contextmanager
def running_site(folder: Path, upstream: str, users: list[str]) -> Iterator[Site]:
    """Everything, started. The Redis keeps its data when it is stopped."""
    text = policy(upstream, users)
    keeps = ("--appendonly", "yes", "--appendfsync", "no")
    with (
        fleet_to_start(folder, text, upstream, REPLICAS, redis_options=keeps) as fleet,
        running_redis() as spare,
    ):
        site = Site(fleet, folder / "store.sock", fleet.redis, spare)
        site.use(socket_of(fleet.redis))
        fleet.store = f"unix://{site.name}"
        fleet.options = ("--store-deadline-ms", "50")
        with ThreadPoolExecutor() as pool:
            list(pool.map(fleet.start_services, fleet.numbers))
        fleet.start_envoy()
        yield site


@asynccontextmanager
async def killed(site: Site, *, keeps_data: bool) -> AsyncIterator[None]:
    """Redis is gone; afterwards it is back, with its data or empty."""
    await asyncio.to_thread(site.current.stop)
    try:
        yield
    finally:
        if not keeps_data:
            site.wipe()
        await asyncio.to_thread(site.current.start)


@asynccontextmanager
async def paused(site: Site) -> AsyncIterator[None]:
    """Redis holds its connections and answers nothing, then all at once."""
    site.current.freeze()
    try:
        yield
    finally:
        site.current.thaw()


@asynccontextmanager
async def slow(site: Site) -> AsyncIterator[None]:
    """Every answer of Redis takes SLOW_S."""
    real = socket_of(site.current)
    proxy = SlowProxy(str(real))
    proxy.delay_s = SLOW_S / 2  # there and back
    path = site.name.with_name("slow.sock")
    server = await asyncio.start_unix_server(proxy.serve, path)
    site.use(path)
    site.cut_connections()
    try:
        yield
    finally:
        site.use(real)
        server.close()
        proxy.hang_up()
        path.unlink()


@asynccontextmanager
async def failed_over(site: Site) -> AsyncIterator[None]:
    """The primary dies; afterwards a replica that has nothing of it takes its place."""
    await asyncio.to_thread(site.current.stop)
    try:
        yield
    finally:
        site.current, site.spare = site.spare, site.current
        site.use(socket_of(site.current))


@asynccontextmanager
async def scripts_flushed(site: Site) -> AsyncIterator[None]:
    """Redis forgets its scripts, again and again."""

    async def flush() -> None:
        with site.current.client() as client:
            while True:
                client.script_flush()
                await asyncio.sleep(0.2)

    flushing = asyncio.create_task(flush())
    try:
        yield
    finally:
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)


@asynccontextmanager
async def replica_killed(site: Site) -> AsyncIterator[None]:
    """One of three replicas of the services dies and is started again."""
    site.fleet.kill("services-2")
    try:
        yield
    finally:
        await asyncio.to_thread(site.fleet.start_services, 2)


@asynccontextmanager
async def envoy_killed(site: Site) -> AsyncIterator[None]:
    """The proxy dies with everything in flight and is started again."""
    site.fleet.kill("envoy")
    try:
        yield
    finally:
        await asyncio.to_thread(site.fleet.start_envoy)
