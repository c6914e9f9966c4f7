"""Headgate: the one box by path and store, and as a drop-in for envoyproxy/ratelimit."""

import sys
import time
from hashlib import sha256
from pathlib import Path

from bench.peers.envoy import KEY
from bench.peers.processes import LeftOut, Place, Stack, free_port
from bench.peers.stacks.two_calls import RULES, two_calls
from tests.box import worker_pids

_HEADGATE = Path(sys.executable).parent / "headgate"
_POLICY = """
models:
  tiny:
    upstream: http://127.0.0.1:{upstream}
    context_tokens: 1048576
    prices: {{input: 0.20, cached_input: 0.05, output: 0.60}}
tenants:
  acme:
    models: [tiny]
    keys: [{{id: alice-key, user: alice, sha256: "{digest}"}}]
    limits:
      - {{count: tokens, limit: 1000000000000, per: day, each: user{token_slice}}}
      - {{count: requests, limit: 100000000, per: minute, each: [user, model]{request_slice}}}
"""
_PATIENCE_S = 60.0


def box(place: Place, name: str, *, path: str, store: str, workers: int = 1) -> Stack:
    """`headgate up` on a path (standard or lean) with a store (memory, redis or slices)."""
    folder = place.folder / name
    folder.mkdir()
    policy = folder / "policy.yaml"
    sliced = store == "slices"
    policy.write_text(
        _POLICY.format(
            upstream=place.upstream_port,
            digest=sha256(KEY.encode()).hexdigest(),
            token_slice=", slice: 1000000" if sliced else "",
            request_slice=", slice: 10000" if sliced else "",
        )
    )
    port, admin, pids = free_port(), free_port(), {}
    options: list[object] = ["--policy", policy, "--records", folder / "records.jsonl"]
    options += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    options += ["--run-dir", folder / "run"]
    if store != "memory":
        redis_port, redis_pid = place.redis(name)
        options += ["--store", f"redis://127.0.0.1:{redis_port}/0"]
        pids["stores"] = [redis_pid]
    options += ["--path", path, "--workers", workers]
    process = place.start([_HEADGATE, "up", *options], name)
    place.wait_for(port, process, name)
    services = [process.pid, *worker_pids(process.pid)]
    pids |= {"envoy": [_envoy_of(process.pid)], "services": services}
    headers = {"authorization": f"Bearer {KEY}"}
    return Stack(name=name, port=port, headers=headers, pids=pids)


def drop_in(place: Place, name: str, store: str) -> Stack:
    """`headgate serve --ratelimit-config` in place of envoyproxy/ratelimit, by its store."""
    folder = place.folder / name
    folder.mkdir()
    (folder / "bench.yaml").write_text(RULES)
    port, pids = free_port(), {}
    options: list[object] = ["--ratelimit-config", folder, "--hooks", f"127.0.0.1:{port}"]
    options += ["--admin", f"127.0.0.1:{free_port()}"]
    if store != "memory":
        redis_port, redis_pid = place.redis(name)
        options += ["--store", f"redis://127.0.0.1:{redis_port}/0"]
        pids["stores"] = [redis_pid]
    process = place.start([_HEADGATE, "serve", *options], name)
    place.wait_for(port, process, name)
    return two_calls(place, name, port, {"services": [process.pid], **pids})


def _envoy_of(pid: int) -> int:
    """The Envoy that a box has started."""
    until_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until_s:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if "envoy" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        time.sleep(0.1)
    raise LeftOut(f"no Envoy was found below process {pid}")
