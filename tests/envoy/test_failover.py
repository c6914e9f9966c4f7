"""A model's spare version answers while its own one is down or full, on both paths."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import KEYS, Box, environment, metric, policy, small_chat, started_up
from tests.envoy.conftest import LIMITS
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port

pytestmark = pytest.mark.simulator  # two of them
ARGUMENTS = ("--adapter", "lora-a", "--force-usage", "--ttft-s", "0", "--token-interval-s", "0.01")
TRIES_OFTEN = (sys.executable, "-m", "tests.envoy.tries_often")
LONG = {"stream": True, "max_tokens": 2000}
SPARE_PRICE = Decimal("2.00")
"""Of a million tokens of either kind. Globex pays less than that, acme any price."""


def text(own: str, spare: str) -> str:
    """The model `tiny` with a spare version; four requests fit into the own one."""
    lines = [
        "    pod_slots: 3",
        "    versions:",
        f'      main: {{weight: 100, upstream: "http://{own}", pods: ["{own}"]}}',
        f'      spot: {{weight: 0, upstream: "http://{spare}", pods: ["{spare}"],',
        f"        prices: {{input: {SPARE_PRICE}, output: {SPARE_PRICE}}}}}",
        "    failover: {to: spot, queue_over: 1}",
    ]
    whole = policy(f"http://{own}", limits=LIMITS, forces_usage=True)
    whole = whole.replace("  sql-expert:\n", "\n".join([*lines, "  sql-expert:\n"]), 1)
    return whole.replace(
        "models: [private]", "models: [tiny]\n    failover_ceiling: {input: 1, output: 1}"
    )


@dataclass
class Pool:
    """A simulated vLLM on a port of its own, which can die and come back."""

    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        port = self.address.rpartition(":")[2]
        command = [sys.executable, "-m", "headgate.simulator", "--port", port, *ARGUMENTS]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("simulator ready on ")

    def kill(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process.stdout.close()
            self.process = None

    def answered(self) -> float:
        """The requests that it has answered to their end."""
        lines = httpx.get(f"http://{self.address}/metrics").text.splitlines()
        found = (each for each in lines if each.startswith("vllm:request_success_total"))
        return sum(float(each.rpartition(" ")[2]) for each in found)


@dataclass
class Pools:
    """A box, its own pool and the spare one."""

    box: Box
    own: Pool
    spare: Pool

    def record(self, user: str = "alice", **fields: Any) -> dict[str, Any]:
        """The record of one more request."""
        answer = self.box.chat(user, **fields)
        return self.box.record_of(answer.headers["x-request-id"])

    def moved(self, how: str) -> float:
        name = f'headgate_versions_total{{base="tiny",how="{how}",version="spot"}}'
        return metric(self.box.metrics(), name)


@pytest.fixture(scope="module", params=HookPath)
def pools_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pools]:
    folder: Path = tmp_path_factory.mktemp("failover")
    own, spare = Pool(), Pool()
    with ExitStack() as stack:
        for pool in (own, spare):
            stack.callback(pool.kill)
            pool.start()
        options = ("--path", request.param)
        (folder / "headgate.yaml").write_text(text(own.address, spare.address))
        options += ("--policy", str(folder / "headgate.yaml"))
        box = stack.enter_context(started_up(folder, *options, program=TRIES_OFTEN))
        yield Pools(box, own, spare)


@pytest.fixture
def pools(pools_of_module: Pools) -> Pools:
    """Both pools are up, and requests go to the own one."""
    pools = pools_of_module
    for pool in (pools.own, pools.spare):
        if pool.process is None:
            pool.start()
    wait_until(lambda: pools.record()["version"] == "main", "the own version to answer again")
    return pools


def test_while_the_own_pool_is_dead_the_spare_one_answers_and_no_request_fails(
    pools: Pools,
) -> None:
    pools.own.kill()
    records = [pools.record() for _ in range(8)]

    assert [record["status"] for record in records] == [200] * 8
    assert {(each["version"], each["pod"]) for each in records} == {("spot", pools.spare.address)}
    assert records[0]["attempts"] == 3, "Envoy itself turned to the spare version"
    wait_until(lambda: pools.record()["attempts"] == 1, "the services to know it")
    assert pools.moved("down") > 0
    for record in records:
        tokens = record["prompt_tokens"] + record["completion_tokens"]
        assert Decimal(str(record["cost"])) * 1_000_000 == tokens * SPARE_PRICE


def test_a_tenant_whose_ceiling_is_lower_gets_503_and_not_the_spare_pool(pools: Pools) -> None:
    pools.own.kill()
    before = pools.spare.answered()
    assert [pools.box.chat("carol").status_code for _ in range(4)] == [503] * 4
    assert pools.record()["version"] == "spot"
    assert pools.box.chat("carol").status_code == 503
    assert pools.spare.answered() == before + 1


def test_requests_come_back_with_the_own_pool(pools: Pools) -> None:
    pools.own.kill()
    assert pools.record()["version"] == "spot"
    pools.own.start()
    wait_until(lambda: pools.record()["version"] == "main", "the own version to answer again")
    assert [pools.record()["version"] for _ in range(3)] == ["main"] * 3


def test_beyond_the_bound_of_the_queue_requests_go_to_the_spare_pool(pools: Pools) -> None:
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    leave = threading.Event()

    def hold(started: threading.Semaphore) -> None:
        url, body = f"{pools.box.url}/v1/chat/completions", {**small_chat(), **LONG}
        with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as answer:
            lines = answer.iter_lines()
            next(lines)
            started.release()
            while not leave.is_set() and next(lines, None) is not None:
                pass

    started = threading.Semaphore(0)
    with ThreadPoolExecutor(4) as threads:
        held = [threads.submit(hold, started) for _ in range(4)]
        for _ in held:
            assert started.acquire(timeout=PATIENCE_S)
        full, capped = pools.record(), pools.record("carol")
        leave.set()
        for each in held:
            each.result()

    assert (full["version"], full["pod"]) == ("spot", pools.spare.address)
    assert (capped["version"], capped["pod"]) == ("main", pools.own.address)
    assert pools.moved("full") > 0


def test_an_answer_that_has_begun_is_never_repeated(pools: Pools) -> None:
    before = pools.spare.answered()
    url, body = f"{pools.box.url}/v1/chat/completions", {**small_chat(), **LONG}
    with httpx.stream("POST", url, json=body, headers=pools.box.headers()) as answer:
        lines = answer.iter_lines()
        next(lines)
        pools.own.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    record = pools.box.record_of(answer.headers["x-request-id"])

    assert (record["version"], record["attempts"]) == ("main", 1)
    assert record["ended"] == "upstream_broke"
    assert pools.spare.answered() == before
