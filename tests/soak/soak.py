"""One soak: start everything, load it, let parts fail, drain, and compare all accounts."""

import asyncio
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from headgate.core.lean_contract import HookPath
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, fleet_to_start
from tests.simulator_process import SimulatorProcess, simulator_process
from tests.soak.faults import Faults, plan
from tests.soak.kinds import LEASE_S, STEADY, TORN, policy
from tests.soak.ledger import Account, Finding, Records
from tests.soak.load import Load
from tests.soak.report import Course, memory_finding, progress, table
from tests.soak.watch import Sample, Watch

REPLICAS = 3
_EACH_S = 10.0
_SETTLES_S = 3.0
_MORE_FILES = 100
"""Connections that a process may keep: up to 64 to Redis, those of gRPC, those to upstreams."""
_EXPECTED = re.compile(
    r"serves hooks on|no configured limit to the number of allowed active|^\s*$"
    r"|Received gRPC error on stream: \d+, message upstream_reset"  # a killed replica
)
_IDLE = {"cluster.headgate_services.upstream_rq_active: 1", "http.admin.downstream_rq_active: 1"}
"""The access log's stream, which Envoy keeps open, and the question for these numbers."""
_LEFT_MEANWHILE = re.compile(
    r"[^\n]*ExecuteBatchError raised in core by[^\n]*\n(?:(?:Traceback|\s|grpc\.)[^\n]*\n)*"
)
"""gRPC's own word for an answer to a hook whose client had just left."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how many requests a second, the seed of all dice, and how Envoy asks."""

    lasts_s: float
    rate: float
    seed: int
    path: HookPath


@dataclass
class Stage:
    """Everything that runs."""

    fleet: Fleet
    steady: SimulatorProcess
    torn: SimulatorProcess

    def pids(self) -> dict[str, int]:
        running = list(self.fleet.processes.items())
        processes = {name: process.pid for name, process in running}
        redis = self.fleet.redis.process.pid
        return {
            **dict(sorted(processes.items())),
            "redis": redis,
            "simulator": self.steady.pid,
            "simulator-torn": self.torn.pid,
        }

    def redis_data(self) -> int:
        """The bytes that Redis has given to data."""
        with self.fleet.redis.client() as client:
            return int(client.info("memory")["used_memory"])


@asynccontextmanager
async def running_stage(path: HookPath) -> AsyncIterator[Stage]:
    """Two upstreams, Redis, the replicas and Envoy, which asks by this path."""
    speed = ("--ttft-s", "0.01", "--token-interval-s", "0.005")
    with tempfile.TemporaryDirectory(prefix="hg-soak-") as folder:
        async with (
            simulator_process("--model", STEADY, *speed) as steady,
            simulator_process(
                "--model", TORN, "--ttft-s", "0.01", "--token-interval-s", "0.02"
            ) as torn,
        ):
            text = policy(steady.url, torn.url)
            more = {TORN: torn.url}
            with fleet_to_start(
                Path(folder), text, steady.url, REPLICAS, more_upstreams=more, path=path
            ) as fleet:
                # All clients have one address, and some of them no key.
                fleet.options = ("--auth-failures-per-minute", "1000000")
                with ThreadPoolExecutor() as pool:
                    list(pool.map(fleet.start_services, fleet.numbers))
                await asyncio.to_thread(fleet.start_envoy)
                yield Stage(fleet, steady, torn)


async def soak(planned: Plan) -> list[Finding]:
    """Runs it, prints progress and a table, and returns what was found."""
    async with running_stage(planned.path) as stage:
        watch = Watch(stage.pids, stage.redis_data)
        watch.take()
        before = watch.latest()
        load = Load(stage.fleet.box.listen_port, planned.rate, planned.seed)
        faults = Faults(stage.fleet)
        start_s, own_s = time.monotonic(), time.process_time()
        end_s = start_s + planned.lasts_s
        tasks = [
            asyncio.create_task(watch.run()),
            asyncio.create_task(_tell(load, faults, watch, start_s)),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run(end_s))
                schedule = plan(planned.seed, planned.lasts_s, REPLICAS)
                group.create_task(faults.run(schedule))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        took_s = time.monotonic() - start_s
        used = (watch.cpu_s() + time.process_time() - own_s) / took_s
        await asyncio.sleep(LEASE_S + _SETTLES_S)  # all that is left behind frees itself
        watch.take()
        findings = await asyncio.to_thread(_findings, stage, load, faults)
        findings += [memory_finding(watch, (start_s, end_s)), _files(before, watch)]
    course = Course(planned.rate, took_s, used, load, faults, watch, (start_s, end_s))
    print(table(course, findings))
    return findings


def _findings(stage: Stage, load: Load, faults: Faults) -> list[Finding]:
    fleet = stage.fleet
    records = Records.read(map(fleet.records_file, fleet.numbers))
    account = Account(load.sent, records, faults.kills)
    return [
        *account.findings(),
        account.steady(Upstream(stage.steady.url, real=False).counters()),
        account.torn(Upstream(stage.torn.url, real=False).counters()),
        *_redis(fleet, account),
        _nothing_runs(stage),
        _logs(fleet, faults),
    ]


def _redis(fleet: Fleet, account: Account) -> Iterator[Finding]:
    with fleet.redis.client() as client:
        counted = Counter[tuple[str, str, str]]()
        for name in client.scan_iter("{hg:*}c:*", count=1000):
            if found := re.match(r"\{hg:(.+?)\}c:(tokens|requests).*year.*user=(\w+)/", name):
                tenant, count, user = found.groups()
                counted[tenant, user, count] += int(client.get(name))
        held = 0
        for name in client.scan_iter("{hg:*}r:*", count=1000):
            held += client.hget(name, "state") == "held"
        now_ms = time.time() * 1000
        leases = sum(
            int(client.zcount(name, now_ms, "+inf")) for name in client.scan_iter("{hg:*}l:*")
        )
    spans = account.spans()
    wrong = []
    for (caller, count), (least, most) in spans.items():
        found = counted.pop((caller.tenant, caller.user, count), 0)
        if not least <= found <= most:
            wrong.append(f"{caller.tenant}/{caller.user} {count}: {found}, not {least} to {most}")
    exact = sum(least == most for least, most in spans.values())
    yield Finding(
        "Redis' counters = what the records charge",
        not wrong and not counted,
        f"{len(spans)} counters, {exact} of them without any leeway, {len(wrong)} differ"
        + "".join(f"; {problem}" for problem in wrong[:3]),
    )
    lost = sum(sent.may_hold for sent in account.missing)
    yield Finding(
        "no reservation is still held",
        held <= lost,
        f"{held} held, {lost} admitted whose record was lost with a killed replica",
    )
    yield Finding(f"no slot is taken {LEASE_S} s after the end", not leases, f"{leases} taken")


def _nothing_runs(stage: Stage) -> Finding:
    transport = httpx.HTTPTransport(uds=str(stage.fleet.box.admin_socket))
    with httpx.Client(transport=transport, base_url="http://envoy") as client:
        stats = client.get("/stats", params={"filter": "rq_active$"}).text.splitlines()
    running = [line for line in stats if not line.endswith(": 0") and line not in _IDLE]
    for upstream in (stage.steady, stage.torn):
        page = httpx.get(f"{upstream.url}/metrics").text
        running += [
            line
            for line in page.splitlines()
            if line.startswith("vllm:num_requests_running") and float(line.split()[-1])
        ]
    return Finding("nothing runs on or is stuck", not running, "; ".join(running) or "all at 0")


def _logs(fleet: Fleet, faults: Faults) -> Finding:
    logs = [*faults.logs, *((name, fleet.log(name)) for name in fleet.processes)]
    odd = Counter(
        re.sub(r"[\d.:\[\]-]+", "#", f"{name}: {line}"[:500])
        for name, text in logs
        for line in _LEFT_MEANWHILE.sub("", text).splitlines()
        if not _EXPECTED.search(line)
    )
    return Finding(
        "no line in a log beyond the expected",
        not odd,
        f"{len(logs)} logs" + "".join(f"; {count} x {line}" for line, count in odd.most_common(5)),
    )


def _files(before: Mapping[str, Sample], watch: Watch) -> Finding:
    more = {name: sample.files - before[name].files for name, sample in watch.latest().items()}
    figures = ", ".join(f"{name} {count:+}" for name, count in more.items())
    most = {name: _MORE_FILES * (REPLICAS if name == "redis" else 1) for name in more}
    holds = all(count <= most[name] for name, count in more.items())
    return Finding("no file descriptor leaks", holds, figures)


async def _tell(load: Load, faults: Faults, watch: Watch, start_s: float) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(_EACH_S)
            print(progress(load, faults, watch, time.monotonic() - start_s), flush=True)
