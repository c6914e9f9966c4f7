"""The scene of a drill: a box under load with two models, one of them in two versions."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.box import KEYS, Box, digest, started_up
from tests.drills.certificate import Certificate, new_certificate
from tests.drills.history import Target
from tests.drills.load import Load, running_load
from tests.patience import PATIENCE_S
from tests.redis_server import RedisServer, running_redis

HEADGATE = (sys.executable, "-m", "headgate")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Vllm:
    """A simulator that can be killed and started again at its address."""

    model: str
    version: str
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        command = [sys.executable, "-m", "headgate.simulator", "--port", str(self.port)]
        command += ["--model", self.model, "--ttft-s", "0.05", "--token-interval-s", "0.01"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ready on" in line, line
        self.port = int(line.strip().rpartition(":")[2])

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def simulate(self, **failures: float) -> None:
        """Fails from now on; without failures it is healthy again."""
        answer = httpx.post(f"{self.url}/simulate", json=failures, timeout=PATIENCE_S)
        answer.raise_for_status()


@dataclass(slots=True, kw_only=True)
class Scene:
    """Everything that a fault can hit.

    `vllms` are by model and version, as in `tiny v1`. `start_box` starts another box at the address
    of one that is gone.
    """

    box: Box
    redis: RedisServer
    vllms: dict[str, Vllm]
    load: Load
    certificate: Certificate
    start_box: Callable[[], Box]

    def targets(self, healthy_s: float) -> list[tuple[str, Target]]:
        """What Prometheus scrapes, and what it shows after a healthy time."""
        admin = _address(self.box.admin_url)
        found = [self._target("headgate", admin, "/metrics", {}, healthy_s)]
        found.append(self._target("envoy", admin, "/stats/prometheus", {}, healthy_s))
        for name, vllm in self.vllms.items():
            labels = {"version": vllm.version, "pod": name.replace(" ", "-")}
            address = f"127.0.0.1:{vllm.port}"
            found.append(self._target("vllm", address, "/metrics", labels, healthy_s))
        return found

    @staticmethod
    def _target(
        job: str, address: str, path: str, more: dict[str, str], healthy_s: float
    ) -> tuple[str, Target]:
        text = httpx.get(f"http://{address}{path}", timeout=PATIENCE_S).text
        return job, Target({"job": job, "instance": address, **more}, text, healthy_s)


def policy(vllms: dict[str, Vllm]) -> str:
    """Tenant acme (alice) with closed limits, globex (carol) with a limit that a flood meets."""
    return f"""
models:
  tiny:
    upstream: {vllms["tiny v1"].url}
    context_tokens: 8192
    versions:
      v1: {{weight: 50, upstream: "{vllms["tiny v1"].url}"}}
      v2: {{weight: 50, upstream: "{vllms["tiny v2"].url}"}}
  small:
    upstream: {vllms["small"].url}
    context_tokens: 8192
tenants:
  acme:
    models: [tiny, small]
    keys: [{{user: alice, sha256: "{digest(KEYS["alice"])}"}}]
    limits: [{{count: tokens, limit: 100000000, per: hour}}]
  globex:
    models: [tiny, small]
    keys: [{{user: carol, sha256: "{digest(KEYS["carol"])}"}}]
    limits: [{{count: requests, limit: 300, per: minute}}]
"""


@contextmanager
def running_scene(folder: Path) -> Iterator[Scene]:
    """Starts all of it and ends it."""
    vllms = {
        "tiny v1": Vllm("tiny", "v1"),
        "tiny v2": Vllm("tiny", "v2"),
        "small": Vllm("small", "-"),
    }
    with ExitStack() as stack:
        for vllm in vllms.values():
            stack.callback(vllm.kill)
            vllm.start()
        redis = stack.enter_context(running_redis())
        (folder / "headgate.yaml").write_text(policy(vllms))
        certificate = new_certificate(folder)
        options = ["--policy", str(folder / "headgate.yaml"), "--store", redis.url]
        options += certificate.options
        box = stack.enter_context(started_up(folder, *options, program=HEADGATE))
        options += ["--listen", _address(box.url), "--admin", _address(box.admin_url)]

        def start_box() -> Box:
            return stack.enter_context(started_up(folder, *options, program=HEADGATE))

        load = stack.enter_context(running_load(box.url))
        yield Scene(
            box=box,
            redis=redis,
            vllms=vllms,
            load=load,
            certificate=certificate,
            start_box=start_box,
        )


def _address(url: str) -> str:
    return url.partition("://")[2]


def hang(box: Box) -> None:
    """Stops the services, and not the Envoy below them."""
    os.kill(box.process.pid, signal.SIGSTOP)


def go_on(box: Box) -> None:
    """Lets them run again."""
    os.kill(box.process.pid, signal.SIGCONT)


def crash_envoy(scene: Scene) -> None:
    """Ends Envoy as a fault in its memory does, and with it the box."""
    command = ["pgrep", "--parent", str(scene.box.process.pid), "envoy"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    os.kill(int(found.stdout), signal.SIGSEGV)
    scene.box.process.wait(PATIENCE_S)


def restart_box(scene: Scene) -> None:
    """Starts a box at the address of one that is gone."""
    scene.box = scene.start_box()
