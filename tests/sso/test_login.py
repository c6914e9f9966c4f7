"""People who log in at a real Keycloak: by a browser, and on a command line."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.core.issuers import LoginToken
from headgate.identity.issuers.fetch import HttpFetch
from headgate.management.device_flow import DeviceFlow, Prompt, Way
from tests.identity.issuer import NOW_S
from tests.identity.login_issuer import LoginIssuer
from tests.management.browser.conftest import Browser, Site, served
from tests.postgres_server import PostgresServer, running_server
from tests.sso.conftest import Keycloak
from tests.sso.pages import Visitor

MORE = ", claims: {azp: [web, cli]}, display_name: preferred_username"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
async def site(keycloak: Keycloak, postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Site]:
    issuer = LoginIssuer()
    issuer.url = keycloak.issuer
    async with aclosing(HttpFetch()) as fetch:
        site = Site(issuer, tmp_path, fetch, MORE)
        site.rig.clock.advance(time.time() - NOW_S)
        async with served(site, postgres.address(postgres.clean_database())) as running:
            yield running


async def test_alice_logs_in_by_the_code_flow_and_out_again(site: Site) -> None:
    async with site.browser() as browser:
        begun = await browser.get("/login/corp?to=/console/")
        with Visitor() as alice:
            back = alice.log_in(begun.headers["location"])
        done = await browser.get(back)

        assert (done.status_code, done.headers.get("location")) == (303, "/console/"), done.text
        assert "You are alice." in (await browser.get("/login")).text
        tenants = (await browser.get("/api/v1/tenants")).json()["data"]
        assert [(one["name"], one["role"]) for one in tenants] == [("acme", "user")]
        await refused_again(browser, back)


async def refused_again(browser: Browser, callback: str) -> None:
    """Neither the session nor the code counts twice."""
    await browser.post("/logout")
    assert await browser.status() == 401
    assert (await browser.get(callback)).status_code == 401


def test_alice_logs_in_by_the_device_flow_and_the_login_is_renewed(keycloak: Keycloak) -> None:
    asked: list[Prompt] = []
    waits: list[float] = []

    def wait(seconds: float) -> None:
        """Confirms during the second wait, so that one answer is `authorization_pending`."""
        waits.append(seconds)
        if len(waits) == 2:
            with Visitor() as alice:
                alice.confirm(asked[0].url)
        time.sleep(seconds)

    flow = DeviceFlow(keycloak.issuer, SystemClock(), wait)
    way = Way(
        name="corp",
        issuer=keycloak.issuer,
        client_id="cli",
        scopes=("openid",),
        token=LoginToken.ACCESS,
    )

    login = flow.log_in(way, asked.append)
    renewed = flow.refreshed(login)

    assert renewed.token != login.token
    flow.revoke(renewed)
    with pytest.raises(OperatorError, match="headgate login"):
        flow.refreshed(renewed)
