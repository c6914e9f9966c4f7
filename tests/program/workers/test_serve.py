"""`headgate serve --workers`: one program in its records, its log, its admin port and its end."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import grpc
import httpx

from accesslog import service as accesslog
from tests.accesslog.entries import entry, message
from tests.box import environment, metric, policy, worker_pids
from tests.patience import PATIENCE_S, wait_until
from tests.redis_server import RedisServer, running_redis

WORKERS = 3
RECORDS, BATCH = 1_200, 400
WRITTEN = 'headgate_records_total{outcome="written"}'


@contextmanager
def serving(
    folder: Path, *options: str, redis: RedisServer | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """The process, its gRPC address and its admin URL; its log goes to the file `log`."""
    (folder / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    address = f"unix:{folder / 'hooks.sock'}"
    store = running_redis() if redis is None else nullcontext(redis)
    with store as server, (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "headgate", "serve", "--workers", str(WORKERS)]
        command += ["--store", server.url, "--hooks", address, "--admin", "127.0.0.1:0", *options]
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


def page_of(admin_url: str) -> str:
    return httpx.get(f"{admin_url}/metrics").text


def test_records_of_all_workers_are_whole_lines_on_one_pipe(tmp_path: Path) -> None:
    """A batch does not fit into a pipe: without a lock, lines of two workers would mix."""
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
        page = page_of(admin_url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0

    assert len([json.loads(line) for line in lines]) == WORKERS * RECORDS
    assert metric(page, WRITTEN) == WORKERS * RECORDS


def test_a_drain_ends_by_itself_while_proxies_stay_connected(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-s", "0.5") as (process, address, admin_url):
        pids = worker_pids(process.pid)
        with connected_proxy(address, admin_url):
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0

    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_second_signal_ends_the_drain_of_all_workers(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--drain-s", "3600") as (process, address, admin_url),
        connected_proxy(address, admin_url),
    ):
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{admin_url}/readyz").status_code == 503, "the drain")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_sigusr1_changes_the_log_level_of_all_workers_and_of_later_ones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    numbers = range(1, WORKERS + 1)
    with serving(tmp_path) as (process, _, _):
        process.send_signal(signal.SIGUSR1)
        for number in numbers:
            text = f"DEBUG headgate.workers: worker {number} logs from now on"
            wait_until(lambda text=text: text in log.read_text(), text)
        os.kill(worker_pids(process.pid)[0], signal.SIGKILL)
        wait_until(lambda: "DEBUG headgate.workers: worker" in tail(log, "killed"), "another one")
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "logs from WARNING on now" in log.read_text(), "the usual level")
        os.kill(worker_pids(process.pid)[0], signal.SIGKILL)
        wait_until(lambda: len(worker_pids(process.pid)) == WORKERS, "another one")

    assert "DEBUG" not in tail(log, "logs from WARNING on now")


def tail(log: Path, words: str) -> str:
    """The log after the last line with these words."""
    return log.read_text().rpartition(words)[2]


def test_readyz_names_a_redis_that_no_worker_reaches_and_stays_ready(tmp_path: Path) -> None:
    with running_redis() as redis, serving(tmp_path, redis=redis) as (_, _, admin_url):

        def away() -> dict[str, str]:
            answer = httpx.get(f"{admin_url}/readyz")
            assert answer.status_code == 200
            found: dict[str, str] = answer.json()["degraded"]
            return found

        redis.stop()
        wait_until(lambda: list(away()) == ["store"], "Redis to be named")
        redis.start()
        wait_until(lambda: not away(), "Redis to be back")


@contextmanager
def connected_proxy(address: str, admin_url: str) -> Iterator[None]:
    """A proxy whose access log stream shows that it needs the hooks."""
    is_over = threading.Event()

    def entries() -> Iterator[bytes]:
        yield message(entry())
        is_over.wait(PATIENCE_S)

    with grpc.insecure_channel(address) as channel:
        send = channel.stream_unary(f"/{accesslog.SERVICE}/{accesslog.METHOD}")
        log = send.future(entries(), timeout=PATIENCE_S)
        wait_until(lambda: metric(page_of(admin_url), WRITTEN) == 1, "its first entry")
        yield
        is_over.set()
        log.cancel()


def batches() -> Iterator[bytes]:
    """RECORDS entries; a message of BATCH fills a pipe several times."""
    for _ in range(RECORDS // BATCH):
        yield message(*[entry()] * BATCH)
