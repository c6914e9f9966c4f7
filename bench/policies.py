"""What does a policy of 10,000 tenants with 20 limits each take to load, and to reload in use?"""

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter, process_time

from prometheus_client import CollectorRegistry

from bench.main import run
from bench.measure import Durations, in_fresh_process, resident_bytes
from bench.table import Table
from bench.tenants import LIMITS, MODEL, USERS, RunningClock, limits_yaml, request_of, tenant_name
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.program.reload import PolicyWatcher
from ratelimit.answers import Admitted
from ratelimit.limiter import Limiter
from ratelimit.store.memory import MemoryStore

SIZES = (100, 1_000, 10_000)
_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A policy in a process of its own: the growth of the process with its load and its reload.

    `waits` is how long decisions waited during the reload, with one every 2 ms.
    """

    file_bytes: int
    load_cpu_s: float
    load_bytes: int
    reload_bytes: int
    reload_s: float
    waits: Durations


async def measure(sizes: Sequence[int] = SIZES) -> list[Table]:
    """A row for each number of tenants."""
    loaded = {tenants: in_fresh_process(load, tenants) for tenants in sizes}
    first = loaded[sizes[0]].load_cpu_s / sizes[0]
    rows: list[tuple[str | int | float, ...]] = []
    for tenants, growth in loaded.items():
        rows.append(
            (
                tenants,
                tenants * LIMITS,
                growth.file_bytes,
                growth.load_cpu_s / tenants / first,
                growth.load_bytes // tenants,
                max(0, growth.reload_bytes) // tenants,
                growth.waits.at(1.0) / growth.reload_s,
            )
        )
    return [Table(_TITLE, _COLUMNS, rows, _NOTE)]


def load(tenants: int) -> Loaded:
    """Loads the policy in this process, and reloads it while a client asks for decisions."""
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as name:
        path = Path(name) / "headgate.yaml"
        path.write_bytes(policy_yaml(tenants))
        return asyncio.run(_load(path))


async def _load(path: Path) -> Loaded:
    clock = SystemClock()
    before_bytes, before_s = resident_bytes(), process_time()
    watcher = PolicyWatcher(path, clock, Metrics(CollectorRegistry(), clock))
    load_cpu_s, loaded_bytes = process_time() - before_s, resident_bytes()
    limiter = Limiter(MemoryStore(), watcher.current, RunningClock())
    file_bytes = await asyncio.to_thread(_change, path)
    start_s = perf_counter()
    reloading = asyncio.create_task(watcher.check_once())
    waits = await _waits(limiter, reloading)
    assert reloading.result()
    reload_s = perf_counter() - start_s
    return Loaded(
        file_bytes=file_bytes,
        load_cpu_s=load_cpu_s,
        load_bytes=loaded_bytes - before_bytes,
        reload_bytes=resident_bytes() - loaded_bytes,
        reload_s=reload_s,
        waits=waits,
    )


def _change(path: Path) -> int:
    """Makes it another file of the same meaning; returns its size before."""
    with path.open("ab") as file:
        size_bytes = file.tell()
        file.write(b"# changed\n")
        return size_bytes


async def _waits(limiter: Limiter, meanwhile: "asyncio.Task[object]") -> Durations:
    """How long decisions take, the wait for their turn included."""
    waits = Durations()
    for number in count():
        due_s = perf_counter() + _PAUSE_S
        await asyncio.sleep(_PAUSE_S)
        assert isinstance(await limiter.reserve(request_of(number, 0, 0)), Admitted)
        waits.add(perf_counter() - due_s)
        if meanwhile.done():
            break
    return waits


def policy_yaml(tenants: int) -> bytes:
    """Every tenant with its own keys and limits, all written out."""
    lines = [
        f"models: {{{MODEL}: {{upstream: 'http://127.0.0.1:8000', context_tokens: 8192}}}}\n",
        "tenants:\n",
    ]
    for tenant in range(tenants):
        lines.append(f"  {tenant_name(tenant)}:\n    models: [{MODEL}]\n    keys:\n")
        for user in range(USERS):
            digest = hashlib.sha256(f"{tenant}/{user}".encode()).hexdigest()
            lines.append(f'    - {{user: user-{user}, sha256: "{digest}"}}\n')
        lines.append("    limits:\n" + limits_yaml(LIMITS, "    "))
    return "".join(lines).encode()


_TITLE = f"A policy with {LIMITS} limits and {USERS} keys for each tenant"
_COLUMNS = (
    "tenants",
    "limits",
    "bytes of the file",
    "CPU to load, per tenant",
    "bytes to load, per tenant",
    "more to reload",
    "longest wait in a reload",
)
_NOTE = (
    "CPU is a ratio to the first row. Bytes are what the process grows by. The longest wait of a"
    " decision is a part of the time that the reload takes."
)


if __name__ == "__main__":
    run({"policies": measure})
