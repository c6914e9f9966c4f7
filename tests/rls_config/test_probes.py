"""What the probes of a deployment of envoyproxy/ratelimit ask, at `headgate serve` as it runs."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.box import environment
from tests.patience import PATIENCE_S, wait_until

CONFIG = """
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: day, requests_per_unit: 5}}
"""
Process = subprocess.Popen[str]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Process, str, str]]:
    """The process, its gRPC address and its admin URL."""
    (tmp_path / "shop.yaml").write_text(CONFIG)
    address = f"unix:{tmp_path / 'hooks.sock'}"
    command = [sys.executable, "-m", "headgate", "serve", "--ratelimit-config", "shop.yaml"]
    command += ["--hooks", address, "--admin", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stderr is not None
        yield process, address, process.stderr.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_health_service_knows_the_name_ratelimit(serving: tuple[Process, str, str]) -> None:
    process, address, _ = serving
    asked = health_pb2.HealthCheckRequest(service="ratelimit")
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(asked, timeout=PATIENCE_S).status == (
            health_pb2.HealthCheckResponse.SERVING
        )
        watch = stub.Watch(asked, timeout=PATIENCE_S)
        next(watch)
        process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


def test_the_http_probe_and_the_limits_in_force_are_there(
    serving: tuple[Process, str, str], tmp_path: Path
) -> None:
    _, _, admin_url = serving
    wait_until(lambda: httpx.get(f"{admin_url}/healthcheck").status_code == 200, "health")
    line = "shop.user: unit=DAY requests_per_unit={}, shadow_mode: false, quota_mode: false\n"
    assert httpx.get(f"{admin_url}/rlconfig").text == line.format(5)
    (tmp_path / "shop.yaml").write_text(CONFIG.replace("requests_per_unit: 5", "unlimited: false"))
    wait_until(
        lambda: httpx.get(f"{admin_url}/rlconfig").text == line.format(0), "the changed limit"
    )
