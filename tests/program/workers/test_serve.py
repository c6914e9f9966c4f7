"""`headgate serve --workers`: connections in turns, whole lines on one standard output, one end."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import httpx

from accesslog import service as accesslog
from tests.accesslog.entries import entry, message
from tests.box import environment, metric, policy
from tests.patience import PATIENCE_S, wait_until
from tests.redis_server import running_redis

WORKERS = 3
RECORDS = 60


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """The process, its gRPC address and its admin URL; records go to the file `out`."""
    (folder / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    address = f"unix:{folder / 'hooks.sock'}"
    with running_redis() as redis, (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "headgate", "serve", "--workers", str(WORKERS)]
        command += ["--store", redis.url, "--hooks", address, "--admin", "127.0.0.1:0"]
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, env=environment()
        )
        try:
            ready = wait_until(lambda: ready_line(folder / "log"), "the services")
            yield process, address, ready.split()[-1]
        finally:
            process.kill()
            process.communicate()


def ready_line(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if "serves hooks" in line]
    return lines[0] if lines else ""


def test_records_of_all_workers_are_whole_lines_on_one_pipe(tmp_path: Path) -> None:
    """A batch is longer than a pipe takes at once: lines of two workers must not mix."""
    with serving(tmp_path) as (process, address, admin_url), ExitStack() as stack:
        logs = []
        for _ in range(WORKERS):
            channel = stack.enter_context(
                grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            )
            send = channel.stream_unary(f"/{accesslog.SERVICE}/{accesslog.METHOD}")
            logs.append(send.future(batches(), timeout=PATIENCE_S))
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(WORKERS * RECORDS)]
        for log in logs:
            log.result()
        page = httpx.get(f"{admin_url}/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0

    assert len([json.loads(line) for line in lines]) == WORKERS * RECORDS
    assert metric(page, 'headgate_records_total{outcome="written"}') == WORKERS * RECORDS


def batches() -> Iterator[bytes]:
    """RECORDS entries in messages of twenty."""
    for _ in range(RECORDS // 20):
        yield message(*[entry()] * 20)
