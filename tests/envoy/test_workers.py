"""One box with four workers: one policy, exact limits, one scrape, and one end."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.box import (
    KEYS,
    Box,
    digest,
    environment,
    metric,
    policy,
    running_box,
    small_chat,
    worker_pids,
)
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import fleet_to_start
from tests.patience import PATIENCE_S, wait_until
from tests.redis_server import RedisServer, running_redis

WORKERS = 4
LIMIT = 200
ROUND = 100
LIMITS = f"""
      - {{count: requests, limit: {LIMIT}, per: year, users: [bob]}}
      - {{count: requests, limit: 100000, per: year}}
"""
ENDS = "headgate_worker_ends_total"
DAVE = f'      - {{id: dave-key, user: dave, sha256: "{digest(KEYS["dave"])}"}}\n'


@contextmanager
def box_of_workers(folder: Path, upstream: str, redis: RedisServer) -> Iterator[Box]:
    """A box with WORKERS workers, whose Redis is patient."""
    options = ["--workers", str(WORKERS), "--store", redis.url, "--store-deadline-ms", "20000"]
    with running_box(folder, policy(upstream, limits=LIMITS), *options) as box:
        yield box


@pytest.fixture
def box(upstream: Upstream, tmp_path: Path) -> Iterator[Box]:
    with running_redis() as redis, box_of_workers(tmp_path, upstream.url, redis) as running:
        yield running


def workers(box: Box) -> list[int]:
    """The process ids of the workers."""
    return worker_pids(box.process.pid)


def is_ready(box: Box) -> bool:
    return httpx.get(f"{box.admin_url}/readyz").status_code == 200


def test_all_workers_answer_and_one_scrape_has_their_sum(box: Box) -> None:
    for _ in range(12):
        assert box.chat().status_code == 200
    box.wait_records(12)

    page = box.metrics()

    assert len(workers(box)) == metric(page, "headgate_workers") == WORKERS
    assert metric(page, 'headgate_decisions_total{decision="ok",hook="ext_authz"}') == 12
    assert metric(page, 'headgate_decisions_total{decision="ok",hook="ratelimit"}') == 12
    assert page.count("# TYPE headgate_decisions_total counter") == 1
    assert is_ready(box)


def test_a_worker_killed_under_load_costs_no_request_and_lets_none_past_the_limit(
    box: Box,
) -> None:
    """Envoy asks another worker; a reservation that was made twice counts once, by its id."""
    victim = workers(box)[1]

    def ask(number: int) -> int:
        if number == LIMIT // 2:
            os.kill(victim, signal.SIGKILL)
        return box.chat("bob").status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(ask, range(2 * LIMIT)))

    assert statuses == {200: LIMIT, 429: LIMIT}
    wait_until(lambda: is_ready(box), "another worker")
    assert metric(box.metrics(), ENDS) == 1
    assert victim not in workers(box)
    assert len(workers(box)) == WORKERS


def test_counters_never_go_back_when_a_worker_is_killed(box: Box) -> None:
    name = 'headgate_decisions_total{decision="ok",hook="ext_authz"}'
    for _ in range(12):
        box.chat()
    before = metric(box.metrics(), name)
    os.kill(workers(box)[0], signal.SIGKILL)
    wait_until(lambda: metric(box.metrics(), ENDS) == 1, "the end to be counted")
    after = metric(box.metrics(), name)
    wait_until(lambda: is_ready(box), "another worker")
    box.chat()

    assert before == after == 12
    assert metric(box.metrics(), name) == 13


def test_a_reload_reaches_every_worker_and_a_bad_policy_none(box: Box) -> None:
    file = box.folder / "headgate.yaml"
    good = file.read_text().replace("    limits:", f"{DAVE}    limits:", 1)
    file.write_text(good)
    applied = 'headgate_policy_reloads_total{result="applied"}'
    wait_until(lambda: metric(box.metrics(), applied) == 1, "the new policy")
    assert {box.chat("dave").status_code for _ in range(3 * WORKERS)} == {200}

    file.write_text(good.replace("models:", "modells:", 1))
    refused = 'headgate_policy_reloads_total{result="refused"}'
    wait_until(lambda: metric(box.metrics(), refused) == 1, "the bad policy to be refused")
    os.kill(workers(box)[0], signal.SIGKILL)
    wait_until(lambda: metric(box.metrics(), ENDS) == 1 and is_ready(box), "another worker")

    assert {box.chat("dave").status_code for _ in range(3 * WORKERS)} == {200}
    assert (box.folder / "up.log").read_text().count("policy refused") == 1


def test_a_stream_ends_whole_in_the_drain_and_no_process_is_left(box: Box) -> None:
    body = {**small_chat(), "stream": True, "max_tokens": 200}
    url = f"{box.url}/v1/chat/completions"
    pids = workers(box)
    with httpx.stream("POST", url, json=body, headers=box.headers(), timeout=PATIENCE_S) as stream:
        lines = stream.iter_lines()
        next(lines)
        box.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]

    assert box.process.wait(PATIENCE_S) == 0
    assert rest[-1] == "data: [DONE]"
    (record,) = box.records()
    assert record["completion_tokens"] == 200
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_end_with_a_parent_that_is_killed(box: Box) -> None:
    pids = workers(box)
    box.process.kill()
    box.process.wait(PATIENCE_S)

    wait_until(lambda: not any(map(is_alive, pids)), "the workers to end")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_worker_that_hangs_is_passed_by_metrics_and_killed_by_its_parent(box: Box) -> None:
    hanging = workers(box)[0]
    os.kill(hanging, signal.SIGSTOP)

    wait_until(lambda: metric(box.metrics(), ENDS) == 1 and is_ready(box), "another worker")

    assert hanging not in workers(box)
    assert {box.chat().status_code for _ in range(WORKERS)} == {200}


@pytest.mark.parametrize("command", ["up", "serve"])
def test_several_workers_without_a_redis_are_an_error_of_one_line(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    address = ["--listen", "127.0.0.1:0"] if command == "up" else ["--hooks", "127.0.0.1:0"]
    command_line = [sys.executable, "-m", "headgate", command, *address]
    ended = subprocess.run(
        [*command_line, "--admin", "127.0.0.1:0", "--workers", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(),
    )

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("headgate: --workers 2 needs a Redis")


def test_a_killed_worker_of_serve_costs_no_request(upstream: Upstream, tmp_path: Path) -> None:
    """Envoy knows one address: its new connections go to workers that live."""
    text = policy(upstream.url, limits=LIMITS)
    rounds = 2 * LIMIT // ROUND
    with fleet_to_start(tmp_path, text, upstream.url, 1) as fleet:
        fleet.options = ["--workers", "3"]
        fleet.start_services()
        fleet.start_envoy()
        parent = fleet.processes["services"].pid

        def ask(number: int) -> int:
            if number == ROUND // 2:
                os.kill(worker_pids(parent)[0], signal.SIGKILL)
            return fleet.chat("bob").status_code

        def are_complete(ends: int) -> bool:
            page = fleet.metrics()
            return metric(page, ENDS) == ends and metric(page, "headgate_workers") == 3

        statuses: Counter[int] = Counter()
        with ThreadPoolExecutor(16) as pool:
            for ends in range(1, rounds + 1):
                statuses.update(pool.map(ask, range(ROUND)))
                wait_until(partial(are_complete, ends), "three workers for the next round")
        page = fleet.metrics()

    assert statuses == {200: LIMIT, 429: LIMIT}
    assert metric(page, ENDS) == rounds
