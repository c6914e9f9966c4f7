"""People in a browser while the database is away, or their issuer does not know our client."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from headgate.database.address import database_address
from headgate.identity.pseudonyms import pseudonymise
from headgate.program.postgres.folder import APPLICATION
from tests.identity.builders import BY
from tests.identity.login_issuer import WEB_SECRET, LoginIssuer
from tests.management.browser.conftest import SESSION, Browser, Site, served
from tests.postgres_server import PostgresServer
from tests.slow_proxy import SlowProxy, slow_proxy

SHORT_S = 0.2
AWAY = "The database is away."


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[SlowProxy]:
    """The way to the database."""
    folder = postgres.server.folder.socket
    async with slow_proxy(str(folder / ".s.PGSQL.5432")) as proxy:
        yield proxy


@pytest.fixture
async def far(
    postgres: PostgresServer, proxy: SlowProxy, issuer: LoginIssuer, tmp_path: Path
) -> AsyncIterator[Site]:
    """The API whose database is behind the proxy."""
    password = tmp_path / "password"
    password.write_text(postgres.server.folder.password_of(APPLICATION))
    name = postgres.clean_database()
    url = f"postgresql://{APPLICATION}@127.0.0.1:{proxy.port}/{name}?sslmode=disable"
    async with served(Site(issuer, tmp_path), database_address(url, password)) as site:
        yield site


def refuse(proxy: SlowProxy) -> None:
    proxy.refuses = True


def fall_silent(proxy: SlowProxy) -> None:
    proxy.delay_s = 3600


@pytest.mark.parametrize("fault", [refuse, fall_silent])
async def test_a_session_gets_503_while_the_database_is_away_and_goes_on_after(
    far: Site, proxy: SlowProxy, fault: Callable[[SlowProxy], None]
) -> None:
    async with far.browser() as browser:
        await browser.log_in()
        assert await browser.status() == 200
        with patch("headgate.database.connection.connected.__wrapped__.__defaults__", (SHORT_S,)):
            fault(proxy)
            answer = await browser.get("/api/v1/tenants")
            page = await browser.get("/login")
            out = await browser.post("/logout")
        proxy.refuses, proxy.delay_s = False, 0.0

        assert (answer.status_code, page.status_code, out.status_code) == (503, 503, 503)
        assert AWAY in answer.json()["detail"]
        assert AWAY in page.text
        assert browser.session, "a log-out that did not happen leaves the cookie"
        assert await browser.status() == 200


async def test_nobody_gets_a_session_that_the_database_has_not_taken(
    far: Site, proxy: SlowProxy
) -> None:
    async with far.browser() as browser:
        url = await browser.callback()
        proxy.refuses = True
        answer = await browser.get(url)
        proxy.refuses = False

        assert answer.status_code == 503
        assert AWAY in answer.text
        assert SESSION not in browser.http.cookies
        assert (await browser.log_in()).status_code == 303


async def test_a_client_that_the_issuer_does_not_know_is_named_in_the_log_without_its_secret(
    site: Site, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    url = await browser.callback()
    site.secret_file.write_text("the secret of another client")

    answer = await browser.get(url)

    assert answer.status_code == 503
    assert SESSION not in browser.http.cookies
    assert f"{site.issuer.url}/token answers 401 (invalid_client)" in caplog.text
    assert "the secret of" not in caplog.text + answer.text
    site.secret_file.write_text(WEB_SECRET)
    assert (await browser.log_in()).status_code == 303


async def test_an_answer_of_an_issuer_that_refuses_cannot_write_into_the_log(
    site: Site, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    url = await browser.callback()
    site.issuer.refusal = "x\nERROR forged"

    assert (await browser.get(url)).status_code == 503
    assert "forged" not in caplog.text


async def test_a_person_whose_name_is_taken_away_is_logged_out(
    site: Site, browser: Browser
) -> None:
    await browser.log_in()

    async with site.desk.connect() as connection:
        await pseudonymise(connection, site.rig.clock, "corp:alice", BY)
        cursor = await connection.execute("select * from headgate.browser_session")
        assert await cursor.fetchall() == []

    assert await browser.status() == 401
    assert (await browser.log_in()).status_code == 303
