"""The real Envoy of an existing deployment, whose rate-limit cluster points at `headgate serve`."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.dataplane.child import spawn
from headgate.dataplane.child import stop as stop_child
from headgate.dataplane.supervisor import find_envoy
from tests.box import environment, policy
from tests.envoy_process import short_folder
from tests.fake_upstream import Upstream
from tests.patience import PATIENCE_S
from tests.ports import free_port

CONFIG = """
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 2, name: each_user}
  - key: user
    value: vip
    rate_limit: {unlimited: true}
  - key: path
    value: /files/*
    share_threshold: true
    rate_limit: {unit: year, requests_per_unit: 3}
"""
QUOTAS = """
domain: shop
descriptors:
  - key: user
    quota_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: path
    quota_mode: true
    rate_limit: {unit: year, requests_per_unit: 2}
"""
APPLIED = 'headgate_ratelimit_config_reloads_total{result="applied"} 1.0'
OVER = 'headgate_descriptors_total{domain="shop",limit="user",outcome="over_limit"} 2.0'
TYPES = "type.googleapis.com/envoy.extensions"


def envoy_config(port: int, services: Path, upstream: int) -> dict[str, Any]:
    """The configuration for envoyproxy/ratelimit; only the cluster's address is ours."""
    limiter = {
        "@type": f"{TYPES}.filters.http.ratelimit.v3.RateLimit",
        "domain": "shop",
        "failure_mode_deny": True,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "timeout": "5s",
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}},
        },
    }
    actions = [
        {"actions": [{"request_headers": {"header_name": name, "descriptor_key": key}}]}
        for name, key in (("x-user", "user"), (":path", "path"))
    ]
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "rate_limits": actions,
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.ratelimit", "typed_config": limiter},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
            },
        ],
    }
    http2 = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    limiters = cluster("ratelimit", {"pipe": {"path": str(services)}})
    limiters["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"address": on_port(port), "filter_chains": [{"filters": filters}]}
    clusters = [limiters, cluster("app", on_port(upstream))]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def on_port(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextmanager
def serve(folder: Path, config: Path, services: Path) -> Iterator[str]:
    """`headgate serve` with this configuration and no policy, until the end of the block."""
    command = [sys.executable, "-m", "headgate", "serve", "--hooks", f"unix:{services}"]
    command += ["--admin", "127.0.0.1:0", "--ratelimit-config", str(config)]
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stderr is not None
        yield process.stderr.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@asynccontextmanager
async def door(folder: Path, services: Path) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    config = folder / "envoy.json"
    upstream = Upstream()
    await upstream.start()
    config.write_text(json.dumps(envoy_config(port, services, upstream.port)))
    command = [str(find_envoy()), "-c", str(config), "--concurrency", "1"]
    log = folder / "envoy.log"
    child = await spawn([*command, "--disable-hot-restart", "--log-level", "warning"], log)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url) as client:
            await until(lambda: answers(client))
            yield client
    finally:
        await stop_child(child, 5.0)
        await upstream.stop()


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def test_an_existing_envoy_is_limited_by_its_own_configuration() -> None:
    async with short_folder() as folder:
        config, services = folder / "config", folder / "services.sock"
        config.mkdir()
        (config / "shop.yaml").write_text(CONFIG)
        with serve(folder, config, services) as admin_url:
            async with door(folder, services) as client:

                async def get(path: str, user: str) -> httpx.Response:
                    return await client.get(path, headers={"x-user": user})

                first = await get("/", "a")
                assert first.status_code == 200
                assert first.headers["x-ratelimit-remaining"] == "1"
                assert first.headers["x-ratelimit-limit"].startswith("2, 2;w=31536000")
                assert 0 < int(first.headers["x-ratelimit-reset"]) <= 366 * 86_400
                assert [(await get("/", "a")).status_code for _ in range(2)] == [200, 429]
                assert [(await get("/", "vip")).status_code for _ in range(3)] == [200] * 3

                files = [(await get(f"/files/{n}", f"user{n}")).status_code for n in range(4)]
                assert files == [200, 200, 200, 429]
                # The last one was refused by the path: its user was charged nothing.
                assert [(await get("/", "user3")).status_code for _ in range(3)] == [200, 200, 429]

                await reload(config, client, admin_url)
                assert (await get("/", "a")).status_code == 200
                assert OVER in (await client.get(f"{admin_url}/metrics")).text


async def test_envoy_refuses_once_all_quotas_of_a_request_are_used_up() -> None:
    async with short_folder() as folder:
        config, services = folder / "quotas", folder / "services.sock"
        config.write_text(QUOTAS)
        with serve(folder, config, services):
            async with door(folder, services) as client:
                user = {"x-user": "a"}
                seen = [(await client.get("/", headers=user)).status_code for _ in range(3)]
                assert seen == [200, 200, 429]


async def reload(config: Path, client: httpx.AsyncClient, admin_url: str) -> None:
    """Raises a limit, and waits until it is in force."""
    (config / "shop.yaml").write_text(
        CONFIG.replace("requests_per_unit: 2", "requests_per_unit: 9")
    )

    async def is_applied() -> bool:
        return APPLIED in (await client.get(f"{admin_url}/metrics")).text

    await until(is_applied)


async def until(ready: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await ready():
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("text", ["domain: headgate\n", "domain: a\ndescriptors: 5\n"])
def test_a_bad_configuration_is_reported_in_one_line_and_nothing_starts(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "shop.yaml").write_text(text)
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    command = [sys.executable, "-m", "headgate", "serve", "--ratelimit-config", "shop.yaml"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, env=environment()
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("headgate: shop.yaml:")
    assert len(ended.stderr.splitlines()) == 1
