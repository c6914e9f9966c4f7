"""The API with its pages of login, an issuer of our own, and browsers."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from headgate.core.policy import CompiledPolicy
from headgate.database.address import DatabaseAddress
from headgate.identity.issuers.fetch import Fetch, HttpFetch
from headgate.identity.issuers.provider import Provider
from headgate.management.app import management_app
from headgate.management.browser.origin import own_origin
from headgate.management.browser.pages import Doors, login_pages
from tests.identity.login_issuer import WEB, WEB_SECRET, LoginIssuer
from tests.identity.rig import Rig, policy_of
from tests.management.conftest import placed
from tests.postgres_server import PostgresServer

OWN = "https://api.test"
SAME = {"sec-fetch-site": "same-origin", "origin": OWN}
SESSION, ATTEMPT = "__Host-headgate-session", "__Host-headgate-login"


class Browser:
    """Somebody's browser at the API. It follows redirects to the issuer and back."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(path)

    async def post(self, path: str, **sent: object) -> httpx.Response:
        """A form or a call that a page of the API sends."""
        return await self.http.post(path, headers=SAME, **sent)  # type: ignore[arg-type]

    async def callback(self, to: str = "", issuer: str = "corp") -> str:
        """Begins a login, and returns the address to which the issuer sends the browser back."""
        begun = await self.http.get(f"/login/{issuer}", params={"to": to})
        assert begun.status_code == 303, begun.text
        async with httpx.AsyncClient() as outside:
            return str((await outside.get(begun.headers["location"])).headers["location"])

    async def log_in(self, to: str = "") -> httpx.Response:
        return await self.http.get(await self.callback(to))

    async def status(self) -> int:
        """That of a call to the API with the cookies that it has."""
        return (await self.http.get("/api/v1/tenants")).status_code

    @property
    def session(self) -> str:
        return self.http.cookies[SESSION]


class Site:
    """The API under test. `policy` may be replaced while it runs."""

    def __init__(
        self, issuer: LoginIssuer, folder: Path, fetch: Fetch | None = None, more: str = ""
    ) -> None:
        secret, token = folder / "client-secret", folder / "operator-token"
        secret.write_text(WEB_SECRET + "\n")
        self.issuer = issuer
        self._more = more
        self.token_file = token
        self.secret_file = secret
        self.policy = self.policy_with()
        self.rig = Rig(issuer, self.policy, fetch)

    def policy_with(self, tenants: str = "") -> CompiledPolicy:
        login = f", browser_login: {{client_id: {WEB}, secret_file: {self.secret_file}}}"
        return policy_of(self.issuer.url, login + self._more, tenants=tenants)

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[Browser]:
        transport = httpx.ASGITransport(self.app, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url=OWN) as http:
            yield Browser(http)


@pytest.fixture
def issuer() -> Iterator[LoginIssuer]:
    issuer = LoginIssuer()
    with issuer.serve():
        yield issuer


@pytest.fixture
async def site(
    postgres: PostgresServer, issuer: LoginIssuer, tmp_path: Path
) -> AsyncIterator[Site]:
    address = postgres.address(postgres.clean_database())
    async with served(Site(issuer, tmp_path), address) as site:
        yield site


@asynccontextmanager
async def served(site: Site, address: DatabaseAddress) -> AsyncIterator[Site]:
    """Puts the parts of the site together."""
    clock = site.rig.clock
    place = placed(
        address,
        clock,
        site.token_file,
        OWN,
        verifier=site.rig.verifier,
        policy=lambda: site.policy,
    )
    async with aclosing(HttpFetch()) as fetch:
        doors = Doors(
            login=place.login,
            sessions=place.sessions,
            callers=place.callers,
            provider=Provider(fetch, clock),
            issuers=lambda: site.policy.issuers,
            origin=own_origin(OWN),
        )
        site.desk = place.desk
        site.app = management_app(place.desk, place.callers, login_pages(doors))
        yield site


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    async with site.browser() as browser:
        yield browser


def path_of(url: str) -> str:
    """Path and query of an address."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"
