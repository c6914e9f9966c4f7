"""Records a release: `python -m tests.compat.record FOLDER` plays requests through a real box.

FOLDER gets all that a later version must still read: the policy, the messages between Envoy and
the hooks, two states of Redis, and the usage records. Run it once, at a release.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.box import KEYS, Box, digest, environment, small_chat, wait_until
from tests.redis_server import running_redis

PROGRAM = Path(__file__).with_name("program.py")
SIMULATOR = ("--model", "tiny", "--adapter", "lora-a", "--prompt-tokens-details")
SPEED = ("--ttft-s", "0.01", "--token-interval-s", "0.02")

POLICY = """
models:
  tiny:
    upstream: {upstream}
    context_tokens: 8192
    prices: {{input: 0.20, cached_input: 0.05, output: 0.60}}
    versions:
      v1: {{weight: 50}}
      v2: {{weight: 50}}
  sql-expert: {{base: tiny, adapter: lora-a}}
  private: {{base: tiny, adapter: lora-a}}
without_usage: {{tokenize: 10}}
tenants:
  acme:
    timezone: Europe/Berlin
    week_start: sunday
    billing_day: 15
    cache_salt: true
    models: [tiny, sql-expert]
    keys:
      - {{id: alice-key, user: alice, sha256: "{alice}"}}
      - {{id: bob-key, user: bob, sha256: "{bob}"}}
    limits:
      - {{count: requests, limit: 1000, per: minute}}
      - {{count: tokens, limit: 100000, per: day, each: user}}
      - {{count: tokens, limit: 900000, per: week, weights: {{cached_input: 0.1}}}}
      - {{count: cost, limit: 25, per: month, each: [user, model]}}
      - {{count: requests, limit: 50, per: minute, smooth: true, burst: 20, each: key}}
      - {{count: concurrent, limit: 8, each: user, lease_s: 900}}
      - {{count: tokens, limit: 5000000, per: year, slice: 50000}}
      - {{count: requests, limit: 1, per: hour, shadow: true, on_outage: open}}
  globex:
    models: [private]
    keys:
      - {{id: carol-key, user: carol, sha256: "{carol}"}}
    limits:
      - {{count: requests, limit: 2, per: day, on_outage: share}}
"""


def policy(upstream: str) -> str:
    """A policy with each kind of limit."""
    names = {name: digest(KEYS[name]) for name in ("alice", "bob", "carol")}
    return POLICY.format(upstream=upstream, **names)


def state(client: "redis.Redis") -> dict[str, Any]:
    """Every key of a Redis, by name: its kind, value and time to live; and the time of the look."""
    kinds = {
        "string": client.get,
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    found: dict[str, Any] = {}
    for key in sorted(client.scan_iter()):
        kind = client.type(key)
        found[key] = {"kind": kind, "value": kinds[kind](key), "ttl_ms": client.pttl(key)}
    return {"at_s": time.time(), "keys": found}


@contextmanager
def _simulator(module: str) -> Iterator[str]:
    command = [sys.executable, "-m", module, "--port", "0", *SIMULATOR, *SPEED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextmanager
def _box(folder: Path, store: str, messages: Path) -> Iterator[Box]:
    command = [sys.executable, str(PROGRAM), str(messages), "up", "--store", store]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    command += ["--run-dir", str(folder / "run"), "--records", str(folder / "usage.jsonl")]
    log = folder / "up.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, text=True, cwd=folder, env=environment()
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return "is ready on" in log.read_text()

    try:
        wait_until(ready, "the box", 60)
        line = next(line for line in log.read_text().splitlines() if "is ready on" in line)
        urls = [word.strip("(),") for word in line.split() if "http" in word]
        yield Box(process, urls[0], urls[1], folder)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _requests(box: Box) -> None:
    """One of each kind that Headgate decides about."""
    chat = small_chat()
    streamed = {**chat, "stream": True}
    box.chat()
    box.chat("bob", model="sql-expert", max_tokens=7, n=2, temperature=1)
    box.post("/v1/chat/completions", streamed)
    box.post("/v1/chat/completions", {**streamed, "stream_options": {"include_usage": True}}, "bob")
    box.post("/v1/completions", {"model": "tiny", "prompt": ["One", "Two"], "max_tokens": 3})
    box.post("/v1/responses", {"model": "tiny", "input": "Hi", "max_output_tokens": 5})
    box.post("/v1/messages", {**chat, "stream": True})
    box.post("/v1/embeddings", {"model": "tiny", "input": ["a", "b"]}, "bob")
    box.post("/tokenize", {"model": "tiny", "prompt": "Hello"})
    for _ in range(3):
        box.chat("carol", model="private")
    box.chat(model="private")
    box.chat(model="nobody")
    box.chat(max_tokens=1_000_000)
    box.post("/v1/chat/completions", [1, 2])
    box.chat_with_headers({"x-api-key": "sk-wrong"})
    for path in ("/v1/models", "/v1/headgate/limits", "/v1/models/tiny"):
        httpx.get(f"{box.url}{path}", headers=box.headers(), timeout=30)
    httpx.get(f"{box.url}/v1/models", timeout=30)


def _long_streams(box: Box, users: tuple[str, ...]) -> list[threading.Thread]:
    """Streams that run while the state of Redis is taken."""
    body = {**small_chat(), "stream": True, "max_tokens": 150}
    threads = [
        threading.Thread(target=box.post, args=("/v1/chat/completions", body, user))
        for user in users
    ]
    for thread in threads:
        thread.start()
    return threads


def record(folder: Path, simulator: str) -> None:
    """Plays the requests, and writes what came of them to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as name,
        running_redis() as server,
        _simulator(simulator) as upstream,
    ):
        work = Path(name)
        (work / "headgate.yaml").write_text(policy(upstream))
        with _box(work, server.url, folder / "messages.jsonl") as box:
            _requests(box)
            streams = _long_streams(box, ("alice", "bob"))
            client = server.client()
            box.wait_records(21, 30)
            wait_until(lambda: len(list(client.scan_iter("*r:*"))) > 0, "reservations")
            (folder / "redis-running.json").write_text(json.dumps(state(client), indent=1))
            for thread in streams:
                thread.join()
            box.wait_records(23, 30)
            (folder / "redis-settled.json").write_text(json.dumps(state(client), indent=1))
        (folder / "policy.yaml").write_text(policy("http://127.0.0.1:8000"))
        shutil.copy(work / "usage.jsonl", folder / "usage.jsonl")


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "headgate.simulator")
