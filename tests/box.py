"""A whole box for end-to-end tests: `headgate up` as a user starts it, in a process of its own."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from headgate.core.lean_contract import HookPath
from headgate.program.settings import BoxSettings
from tests.patience import PATIENCE_S, PATIENT_HEADGATE, wait_until

KEYS = {name: f"sk-test-{name}-0123456789abcdef" for name in ("alice", "bob", "carol", "dave")}

MODELS = """
models:
  tiny:
    upstream: {upstream}
    context_tokens: 8192
    forces_usage: {forces_usage}
    prices: {{input: 0.20, cached_input: 0.05, output: 0.60, audio_second: 0.006}}
  sql-expert:
    base: tiny
    adapter: lora-a
  private:
    base: tiny
    adapter: lora-a
"""


def digest(secret: str) -> str:
    """The digest of a key as the policy file holds it."""
    return sha256(secret.encode()).hexdigest()


def policy(upstream: str, *, forces_usage: bool = False, limits: str = "", more: str = "") -> str:
    """A policy with tenant acme (alice, bob) and globex (carol), and `limits` for acme."""
    return (
        MODELS.format(upstream=upstream, forces_usage=str(forces_usage).lower())
        + f"""
tenants:
  acme:
    timezone: Europe/Berlin
    models: [tiny, sql-expert]
    keys:
      - {{id: alice-key, user: alice, sha256: "{digest(KEYS["alice"])}"}}
      - {{id: bob-key, user: bob, sha256: "{digest(KEYS["bob"])}"}}
    limits: {limits or "[]"}
  globex:
    models: [private]
    keys:
      - {{id: carol-key, user: carol, sha256: "{digest(KEYS["carol"])}"}}
{more}"""
    )


@dataclass
class Box:
    """A running `headgate up`."""

    process: subprocess.Popen[str]
    url: str
    admin_url: str
    folder: Path
    lines: list[str] = field(default_factory=list)

    def headers(self, user: str = "alice") -> dict[str, str]:
        return {"authorization": f"Bearer {KEYS[user]}"}

    def post(self, path: str, body: Any, user: str = "alice", **options: Any) -> httpx.Response:
        """POSTs a JSON body with the user's key."""
        headers = {**self.headers(user), **options.pop("headers", {})}
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, **options)

    def chat(self, user: str = "alice", **fields: Any) -> httpx.Response:
        """One small chat completion."""
        body = small_chat()
        return self.post("/v1/chat/completions", {**body, **fields}, user)

    def chat_with_headers(self, headers: dict[str, str]) -> httpx.Response:
        """One small chat completion with more headers."""
        body = small_chat()
        return self.post("/v1/chat/completions", body, headers=headers)

    def records(self) -> list[dict[str, Any]]:
        """The usage records written so far."""
        path = self.folder / "usage.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in whole_lines(path.read_text())]

    def wait_records(self, count: int) -> list[dict[str, Any]]:
        """Waits until at least `count` records are written (the access log comes in batches)."""
        return wait_until(
            lambda: records if len(records := self.records()) >= count else None,
            f"{count} usage records",
        )

    def record_of(self, request_id: str) -> dict[str, Any]:
        """Waits for the usage record of one request, by the id that its answer carried.

        The request is settled too: its record is written first.
        """

        def written() -> dict[str, Any] | None:
            return next((r for r in self.records() if r["request_id"] == request_id), None)

        record: dict[str, Any] = wait_until(written, f"the record of {request_id}")
        wait_until(self._all_settled, f"the settlement of {request_id}")
        return record

    def _all_settled(self) -> bool:
        """Whether each reservation with a record is settled: the access log settles all of them."""
        reserved = sum(record["reservation"] is not None for record in self.records())
        return settlements(self.metrics(), "accesslog") >= reserved

    def stats(self) -> dict[str, int]:
        """Envoy's own counters and gauges."""
        text = self.envoy_admin("/stats")
        pairs = (line.partition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def envoy_admin(self, path: str) -> str:
        transport = httpx.HTTPTransport(uds=str(self.folder / "run" / "envoy-admin.sock"))
        with httpx.Client(transport=transport, base_url="http://envoy") as client:
            return client.get(path).text

    def metrics(self) -> str:
        return httpx.get(f"{self.admin_url}/metrics").text

    def stop(self) -> int:
        """Ends it as Ctrl-C does and returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)


def whole_lines(text: str) -> list[str]:
    """The lines that are written to their end: the last one may be on its way."""
    return text[: text.rfind("\n") + 1].splitlines()


def small_chat() -> dict[str, Any]:
    """A small chat completion. At temperature 0 a real model, too, goes on to the maximum."""
    messages = [{"role": "user", "content": "Hi"}]
    return {"model": "tiny", "max_tokens": 4, "temperature": 0, "messages": messages}


def metric(exposition: str, name: str) -> float:
    """The value of one metric, named with its labels as in the exposition; 0 when absent."""
    lines = (line for line in exposition.splitlines() if line.startswith(f"{name} "))
    return float(next(lines, "0 0").rpartition(" ")[2])


def settlements(exposition: str, hook: str, *outcomes: str) -> int:
    """How many settlements of a hook were answered, with one of the outcomes if any are given.

    The hooks are `ratelimit`, which settles first as a rule, and `accesslog`.
    """
    ends = [f'{{outcome="{outcome}",via="{hook}"}}' for outcome in outcomes] or [f'via="{hook}"}}']
    return sum(
        int(float(value))
        for name, _, value in (line.rpartition(" ") for line in exposition.splitlines())
        if name.startswith("headgate_settlements_total") and name.endswith(tuple(ends))
    )


def worker_pids(parent: int) -> list[int]:
    """The process ids of the workers of a `headgate up` or `headgate serve`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            its_parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if its_parent == parent and b"headgate.program.workers.worker" in command:
            found.append(int(folder.name))
    return sorted(found)


@contextmanager
def running_box(folder: Path, policy_text: str, *options: str) -> Iterator[Box]:
    """Starts `headgate up` on free ports with this policy, and ends it."""
    (folder / "headgate.yaml").write_text(policy_text)
    arguments = ["--policy", str(folder / "headgate.yaml"), *options]
    with started_up(folder, *arguments) as box:
        yield box


@contextmanager
def started_up(
    folder: Path, *options: str, program: Sequence[str] = PATIENT_HEADGATE
) -> Iterator[Box]:
    """Starts `headgate up OPTIONS` on free ports and waits until it has said all of its welcome."""
    command = [*program, "up", "--listen", "127.0.0.1:0"]
    command += ["--admin", "127.0.0.1:0", "--run-dir", str(folder / "run")]
    command += ["--records", str(folder / "usage.jsonl"), *options, *_path_option(options)]
    with open(folder / "up.log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment()
        )
    try:
        yield _ready(process, folder, "  curl " if "--demo" in options else "Headgate is ready on")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _path_option(options: Sequence[str]) -> list[str]:
    """The path that HEADGATE_TEST_PATH names, for every box that does not need its own."""
    return [] if {"--path", "extproc"} & {*options} else ["--path", hook_path()]


def hook_path() -> HookPath:
    """The path of the boxes of this run: HEADGATE_TEST_PATH chooses it."""
    return HookPath(os.environ.get("HEADGATE_TEST_PATH", BoxSettings().path))


def environment() -> dict[str, str]:
    """The environment of a started program: its output comes at once."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def _ready(process: subprocess.Popen[str], folder: Path, last_line: str) -> Box:
    log = folder / "up.log"

    def welcome() -> list[str] | None:
        text = log.read_text()
        if process.poll() is not None:
            raise AssertionError(f"headgate up ended with {process.returncode}:\n{text}")
        lines = whole_lines(text)
        return lines if any(line.startswith(last_line) for line in lines) else None

    lines = wait_until(welcome, "headgate up to be ready")
    ready = next(line for line in lines if "is ready on" in line)
    words = ready.replace("(", " ").replace(",", " ").split()
    urls = [word for word in words if word.startswith(("http://", "https://"))]
    return Box(process, urls[0], urls[1], folder, lines)
