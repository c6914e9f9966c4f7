"""`headgate serve`: health, readiness, and an end that lets calls in flight finish."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from accesslog import service as accesslog
from tests.box import environment, policy
from tests.patience import PATIENCE_S, wait_until

Process = subprocess.Popen[str]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Process, str, str]]:
    """The process, its gRPC address and its admin URL."""
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    address = f"unix:{tmp_path / 'hooks.sock'}"
    command = [sys.executable, "-m", "headgate", "serve", "--policy", "headgate.yaml"]
    command += ["--hooks", address, "--admin", "127.0.0.1:0", "--drain-s", str(PATIENCE_S)]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        yield process, address, ready.split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_it_is_healthy_and_ready_once_it_says_so(serving: tuple[Process, str, str]) -> None:
    _, address, admin_url = serving
    with grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert httpx.get(f"{admin_url}/readyz").status_code == 200
    assert httpx.get(f"{admin_url}/healthz").status_code == 200


def test_at_sighup_it_reads_its_policy_again_and_goes_on(
    serving: tuple[Process, str, str], tmp_path: Path
) -> None:
    """A policy that is still refused is told again, for those who ask by SIGHUP."""
    process, _, admin_url = serving
    assert process.stderr is not None
    (tmp_path / "headgate.yaml").write_text("models: nonsense\n")
    told = (line for line in process.stderr if "ERROR headgate.reload: policy refused" in line)
    assert next(told)
    process.send_signal(signal.SIGHUP)
    assert next(told)
    assert httpx.get(f"{admin_url}/healthz").status_code == 200


def test_sigusr1_changes_the_log_level_of_the_running_program(
    serving: tuple[Process, str, str],
) -> None:
    process, _, _ = serving
    assert process.stderr is not None
    for level in ("DEBUG", "WARNING"):
        process.send_signal(signal.SIGUSR1)
        assert process.stderr.readline().endswith(f"headgate: logs from {level} on now\n")


def test_on_sigterm_it_says_not_serving_and_ends_with_0(serving: tuple[Process, str, str]) -> None:
    process, address, _ = serving
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )
        seen = [next(watch).status]
        process.send_signal(signal.SIGTERM)
        seen.append(next(watch).status)
        watch.cancel()

    assert seen == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    ]
    assert process.wait(PATIENCE_S) == 0


def test_while_a_proxy_has_requests_to_end_the_hooks_go_on_and_readiness_fails(
    serving: tuple[Process, str, str],
) -> None:
    """The proxy's access log stream shows that it still needs the hooks."""
    process, address, admin_url = serving
    with grpc.insecure_channel(address) as channel:
        log_is_open = threading.Event()
        log = channel.stream_unary(f"/{accesslog.SERVICE}/{accesslog.METHOD}").future(
            entries_until(log_is_open), timeout=PATIENCE_S
        )
        check = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")
        wait_until(lambda: 'hook="accesslog"' in httpx.get(f"{admin_url}/metrics").text, "the log")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{admin_url}/readyz").status_code == 503, "readiness to fail")
        assert check(b"", timeout=PATIENCE_S), "a request that runs settles by such a call"
        log_is_open.set()
        log.result()

    assert process.wait(PATIENCE_S) == 0


def entries_until(end: threading.Event) -> Iterator[bytes]:
    """One message without entries, and the end of the stream later."""
    yield b""
    end.wait(PATIENCE_S)


def test_a_taken_address_is_one_line(serving: tuple[Process, str, str], tmp_path: Path) -> None:
    _, _, admin_url = serving
    taken = admin_url.removeprefix("http://")
    command = [sys.executable, "-m", "headgate", "serve", "--policy", "headgate.yaml"]
    command += ["--hooks", f"unix:{tmp_path / 'other.sock'}", "--admin", taken]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, env=environment()
    )

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert taken in ended.stderr
    wait_until(lambda: httpx.get(f"{admin_url}/readyz").status_code == 200, "the first to live on")
