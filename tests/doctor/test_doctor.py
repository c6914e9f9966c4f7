"""`headgate doctor` against a real box, whose parts are broken one after the other."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headgate.core.samples import parse_samples
from headgate.doctor.clocks import skew
from headgate.doctor.finding import State
from headgate.doctor.services import certificate, from_metrics, services
from headgate.doctor.upstreams import Upstream, compared
from tests.box import Box, environment, policy, running_box
from tests.envoy.conftest import started_simulator
from tests.ports import free_port
from tests.redis_server import RedisServer, running_redis

NOW_S = 1_800_000_000.0
DAY_S = 86_400
LIMITS = "\n      - {count: requests, limit: 1000, per: day}\n"


def doctor(box: Box, *options: str) -> tuple[int, str]:
    """The exit code and the output of `headgate doctor` for this box."""
    command = [sys.executable, "-m", "headgate", "doctor"]
    command += ["--admin", box.admin_url.removeprefix("http://"), "--url", box.url]
    command += ["--envoy-admin", str(box.folder / "run" / "envoy-admin.sock"), *options]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert shown.stderr == ""
    return shown.returncode, shown.stdout


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with (
        started_simulator("--model", "tiny", "--adapter", "lora-a") as upstream,
        running_box(tmp_path, policy(upstream, limits=LIMITS)) as running,
    ):
        yield running


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def problems(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("ok ")]


def test_a_box_that_works_has_no_problem(box: Box, redis_server: RedisServer) -> None:
    box.chat()
    policy_file = str(box.folder / "headgate.yaml")
    code, text = doctor(box, "--policy", policy_file, "--store", redis_server.url)
    assert (code, problems(text)) == (0, [])
    parts = ["door", "envoy", "services", "redis", "policy", "vLLM of tiny"]
    assert [line.split(None, 1)[1].partition(":")[0] for line in text.splitlines()] == parts


def test_a_box_whose_services_hang_answers_503_at_its_door(box: Box) -> None:
    box.process.send_signal(signal.SIGSTOP)
    try:
        code, text = doctor(box)
    finally:
        box.process.send_signal(signal.SIGCONT)
    assert code == 1
    assert "problem  services: " in text


def test_a_box_that_is_gone_is_named_part_by_part(box: Box) -> None:
    box.stop()
    code, text = doctor(box)
    assert code == 1
    assert [line.split()[1] for line in text.splitlines()] == ["door:", "envoy:", "services:"]
    assert all("start" in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("context_tokens: 8192", "context_tokens: 999999", "write context_tokens: "),
        ("adapter: lora-a", "adapter: lora-z", "it does not serve lora-z, but lora-a, tiny"),
        ("context_tokens: 8192", "context_tokens: many", "correct the file"),
        ("upstream: http://127.0.0.1:", "upstream: https://127.0.0.1:", "does not speak TLS"),
    ],
)
def test_a_policy_is_compared_with_what_its_vllms_say(
    box: Box, old: str, new: str, expected: str
) -> None:
    file = box.folder / "other.yaml"
    file.write_text((box.folder / "headgate.yaml").read_text().replace(old, new))
    code, text = doctor(box, "--policy", str(file))
    assert code == 1
    assert expected in text


def test_a_silent_vllm_and_a_silent_redis_are_problems(box: Box) -> None:
    file = box.folder / "other.yaml"
    file.write_text(policy(f"http://127.0.0.1:{free_port()}"))
    store = f"redis://127.0.0.1:{free_port()}/0"
    code, text = doctor(box, "--policy", str(file), "--store", store)
    assert code == 1
    assert "problem  vLLM of tiny: " in text
    assert "problem  redis: " in text


def test_a_door_of_somebody_else_is_not_taken_for_headgates(box: Box) -> None:
    code, text = doctor(box, "--url", box.admin_url)
    assert code == 1
    assert "this is not Headgate's door" in text


def test_a_redis_that_drops_keys_is_noted(box: Box, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    code, text = doctor(box, "--store", redis_server.url)
    assert code == 0
    assert "note     redis: maxmemory-policy is allkeys-lru" in text


@pytest.mark.parametrize(
    ("metrics", "state", "part"),
    [
        ("headgate_store_available 0", State.PROBLEM, "store"),
        ('headgate_policy_reloads_total{result="refused"} 1', State.NOTE, "policy"),
        ('headgate_records_total{outcome="failed"} 3', State.NOTE, "records"),
        ("headgate_access_log_streams 0", State.NOTE, "records"),
        (
            f"headgate_certificate_expires_timestamp_seconds {NOW_S + DAY_S}",
            State.PROBLEM,
            "certificate",
        ),
    ],
)
def test_metrics_that_show_a_fault_are_a_finding(metrics: str, state: State, part: str) -> None:
    (finding,) = from_metrics(parse_samples(f"{metrics}\n"), NOW_S)
    assert (finding.part, finding.state) == (part, state)


async def test_a_database_that_is_away_is_a_problem_and_older_services_do_not_tell() -> None:
    async def found(state: dict[str, object]) -> list[tuple[str, State]]:
        def answer(request: httpx.Request) -> httpx.Response:
            text = "" if request.url.path == "/metrics" else json.dumps(state)
            return httpx.Response(200, text=text)

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            findings = await services(client, "http://services", NOW_S)
        return [(each.part, each.state) for each in findings if each.state is State.PROBLEM]

    away = {"database": "PostgreSQL has not answered yet, so keys that it holds get 503"}
    assert await found({"missing": [], "degraded": away}) == [("database", State.PROBLEM)]
    assert await found({"missing": []}) == []


@pytest.mark.parametrize(
    ("days", "state"),
    [(-1, State.PROBLEM), (2, State.PROBLEM), (10, State.NOTE), (40, None)],
)
def test_a_certificate_is_worse_the_sooner_it_ends(days: int, state: State | None) -> None:
    found = certificate("certificate", NOW_S + days * DAY_S, NOW_S)
    assert [finding.state for finding in found] == ([] if state is None else [state])


@pytest.mark.parametrize(
    ("ahead_s", "state"), [(0, None), (-9, None), (20, State.NOTE), (-90, State.PROBLEM)]
)
def test_clocks_may_differ_by_a_little(ahead_s: float, state: State | None) -> None:
    found = skew("redis", ahead_s)
    assert [finding.state for finding in found] == ([] if state is None else [state])


def test_a_context_that_is_too_short_is_only_noted() -> None:
    one = Upstream("vLLM of a", "http://a", 4096, {"a"})
    (finding,) = compared(one, {"a": {"max_model_len": 8192}})
    assert finding.state is State.NOTE
