"""The admin pages, by a real HTTP server on a free port."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.program.admin.app import admin_app
from headgate.program.admin.config import shown_settings
from headgate.program.http_server import HttpServer
from headgate.program.settings import Address, ServiceSettings, StoreSettings
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S


class Admin:
    """A running admin server, and the parts whose readiness it reports."""

    def __init__(self) -> None:
        self.parts = {"hooks": "", "policy": ""}
        self.away: dict[str, str] = {}
        self.metrics = Metrics(CollectorRegistry(), FakeClock())
        self.server = HttpServer(
            admin_app(
                self.read_metrics,
                lambda: self.parts,
                degraded=lambda: self.away,
                rate_limits=lambda: "a.b: unit=DAY\n",
            ),
            Address("127.0.0.1", 0),
        )

    async def read_metrics(self) -> CollectorRegistry:
        return self.metrics.registry

    async def get(self, path: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.server.url, trust_env=False) as client:
            return await client.get(path, headers=headers)


async def no_metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    admin = Admin()
    await admin.server.start()
    yield admin
    await admin.server.stop()


async def test_the_index_names_every_page(admin: Admin) -> None:
    answer = await admin.get("/")
    assert answer.headers["content-type"].startswith("text/plain")
    for path in ("/healthz", "/readyz", "/metrics", "/healthcheck", "/rlconfig", "/debug/config"):
        assert path in answer.text
        assert (await admin.get(path)).status_code == 200


async def test_it_is_alive_even_when_it_is_not_ready(admin: Admin) -> None:
    admin.parts["hooks"] = "they drain"
    answer = await admin.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_it_is_ready_when_every_part_is(admin: Admin) -> None:
    answer = await admin.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "missing": [], "why": {}, "degraded": {}}


async def test_it_is_ready_while_a_store_is_away_and_says_so(admin: Admin) -> None:
    admin.away["store"] = "Redis does not answer"
    answer = await admin.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert answer.json()["degraded"] == {"store": "Redis does not answer"}


async def test_what_is_not_ready_is_named(admin: Admin) -> None:
    why = {"policy": "it is bad", "hooks": "they drain"}
    admin.parts |= why
    answer = await admin.get("/readyz")
    assert answer.status_code == 503
    missing = sorted(why)
    assert answer.json() == {"ready": False, "missing": missing, "why": why, "degraded": {}}


def test_the_shown_settings_hold_no_password() -> None:
    store = StoreSettings("rediss://user:hunter2@redis:6379/0", password_file=Path("secret.txt"))
    shown = shown_settings(ServiceSettings(policy=Path("headgate.yaml"), store=store))
    assert shown["store"]["url"] == "rediss://***@redis:6379/0"
    assert (shown["policy"], shown["store"]["password_file"]) == ("headgate.yaml", "secret.txt")
    assert shown["log"] == {"format": "text", "level": "warning"}


async def test_the_probe_of_envoyproxy_ratelimit_fails_until_every_part_is_ready(
    admin: Admin,
) -> None:
    answer = await admin.get("/healthcheck")
    assert (answer.status_code, answer.text) == (200, "OK")
    admin.parts["hooks"] = "they drain"
    assert (await admin.get("/healthcheck")).status_code == 500


async def test_the_limits_of_envoyproxy_ratelimit_are_shown(admin: Admin) -> None:
    answer = await admin.get("/rlconfig")
    assert (answer.status_code, answer.text) == (200, "a.b: unit=DAY\n")


async def test_the_metrics_are_those_of_the_registry(admin: Admin) -> None:
    admin.metrics.records.labels("written").inc(3)
    answer = await admin.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, sample.value)
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert ("headgate_records_total", 3.0) in samples


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics"),
        ("text/plain", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=banana", "text/plain; version=0.0.4"),
        ("text/plain;version=banana", "text/plain; version=0.0.4"),
        (";;;,,,=", "text/plain; version=0.0.4"),
    ],
)
async def test_accept_chooses_the_format(admin: Admin, accept: str, content_type: str) -> None:
    answer = await admin.get("/metrics", accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.text.endswith("# EOF\n") == content_type.startswith("application/openmetrics")


@pytest.mark.parametrize("path", ["/nothing", "/metrics/../../etc/passwd", "/healthz/"])
async def test_other_paths_are_not_found_here(admin: Admin, path: str) -> None:
    answer = await admin.get(path)
    assert answer.status_code in (307, 404)


async def test_nothing_can_be_changed_here(admin: Admin) -> None:
    async with httpx.AsyncClient(base_url=admin.server.url, trust_env=False) as client:
        for path in ("/", "/healthz", "/readyz", "/metrics", "/healthcheck", "/rlconfig"):
            assert (await client.post(path, content=b"x")).status_code == 405


async def test_port_0_takes_a_free_port_and_reports_it(admin: Admin) -> None:
    assert httpx.URL(admin.server.url).port not in (None, 0)


async def test_a_taken_port_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HttpServer(admin_app(no_metrics, dict), Address("127.0.0.1", port))
        with pytest.raises(OperatorError) as refused:
            await server.start()
        assert str(refused.value) == (
            f"cannot listen on 127.0.0.1:{port} for admin: Address already in use"
        )
        await server.stop()


async def test_an_unknown_host_is_one_clear_error() -> None:
    server = HttpServer(admin_app(no_metrics, dict), Address("no host", 0))
    with pytest.raises(OperatorError, match=r"^cannot listen on no host:0 for admin: [^(]+$"):
        await server.start()


async def test_the_programs_signal_handlers_stay_its_own(admin: Admin) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    other = Admin()
    await other.server.start()
    assert (await other.get("/healthz")).status_code == 200
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    await other.server.stop()


async def test_stopping_frees_the_port_even_right_after_the_start() -> None:
    admin = Admin()
    await admin.server.start()
    await admin.server.stop()
    with pytest.raises(httpx.ConnectError):
        await admin.get("/healthz")


async def test_an_open_connection_does_not_hold_the_stop_up(admin: Admin) -> None:
    async with httpx.AsyncClient(base_url=admin.server.url, trust_env=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        async with asyncio.timeout(PATIENCE_S):
            await admin.server.stop()
