"""The management API in this process, on a real PostgreSQL, with people of every role."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from extauthz.failures import FailureLimit
from extproc.cache.memory import MemoryAnswers
from headgate.adapters.rules import AdapterRequest
from headgate.adapters.store import AdapterStore
from headgate.core.clock import Clock
from headgate.core.errors import ApiError, Refusal
from headgate.core.issuers import Issuer, KeysNeeded, Membership, Person, Role
from headgate.core.keys import digest_of
from headgate.core.policy import Caller, CompiledPolicy
from headgate.database.address import DatabaseAddress
from headgate.identity.keys import KeyRequest
from headgate.identity.sessions import SessionStore
from headgate.identity.store import KeyStore
from headgate.identity.users import TokensOf, UserStore
from headgate.management.app import management_app
from headgate.management.browser.origin import own_origin
from headgate.management.browser.sessions import Sessions
from headgate.management.callers import Callers
from headgate.management.calls import Desk
from headgate.management.login import Login, Verifier
from tests.fakes import FakeClock
from tests.identity.builders import BY, POLICY, connect_to
from tests.postgres_server import PostgresServer, running_server

OPERATOR_TOKEN = "operator-token-of-the-tests-0123456789"
ISSUER = Issuer(
    alias="okta",
    url="https://a.example.org",
    audiences=frozenset({"x"}),
    memberships=(Membership("acme"),),
)
API_POLICY = CompiledPolicy(
    models=POLICY.models,
    tenants=POLICY.tenants,
    keys={digest_of("sk-file"): Caller("acme", "filip", "k1")},
    issuers={"https://a.example.org": ISSUER},
)
PEOPLE: dict[str, Mapping[str, Role]] = {
    "user": {"acme": Role.USER},
    "finance": {"acme": Role.FINANCE},
    "admin": {"acme": Role.ADMIN},
    "operator": {"acme": Role.OPERATOR},
    "foreign": {"globex": Role.ADMIN},
    "stranger": {},
}


def token_of(name: str) -> str:
    return f"eyJ.{name}.x"


class KnownPeople:
    """A verifier that takes the name in a token for granted."""

    def person(
        self, token: bytes, digest: bytes, issuers: Mapping[str, Issuer]
    ) -> Person | ApiError | KeysNeeded:
        name = token.decode().split(".")[1]
        if name not in PEOPLE:
            return ApiError(Refusal.BAD_TOKEN, "The token is not signed by its issuer.")
        return Person(issuer="okta", subject=name, user=f"okta:{name}", tenants=PEOPLE[name])

    async def fetch_keys(self, needed: KeysNeeded) -> None:
        raise AssertionError("there is no key to fetch")


@dataclass
class Api:
    """The running API and the store below it."""

    http: httpx.AsyncClient
    store: KeyStore
    users: UserStore
    adapters: AdapterStore
    answers: MemoryAnswers
    clock: FakeClock
    token_file: Path

    async def ask(
        self, who: str, method: str, path: str, body: object = None, **headers: str
    ) -> httpx.Response:
        token = OPERATOR_TOKEN if who == "token" else token_of(who)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"authorization": f"Bearer {token}", **names}
        return await self.http.request(method, f"/api/v1{path}", json=body, headers=sent)

    async def issued(self, tenant: str = "acme", user: str = "okta:user") -> str:
        """The id of a fresh key."""
        request = KeyRequest(tenant=tenant, user=user)
        return (await self.store.issue(request, API_POLICY, BY)).key.id

    async def registered(self) -> None:
        """Two versions of the adapter `acme-sql` of acme."""
        request = AdapterRequest(name="acme-sql", tenant="acme", base="tiny", source="acme/sql")
        for _ in range(2):
            await self.adapters.register(request, API_POLICY, BY)

    async def revoked(self) -> int:
        """The id of a fresh revocation."""
        return (await self.users.revoke(TokensOf(issuer="okta", token_id="t-1"), BY)).id


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The parts behind an application of the management API."""

    desk: Desk
    login: Login
    sessions: Sessions
    callers: Callers


def placed(
    address: DatabaseAddress,
    clock: Clock,
    token_file: Path,
    origin: str,
    *,
    verifier: Verifier | None = None,
    policy: Callable[[], CompiledPolicy] = lambda: API_POLICY,
) -> Place:
    """The parts on this database, for browsers at `origin`. Writes the operator token."""
    token_file.write_text(OPERATOR_TOKEN + "\n")
    connect = connect_to(address)
    store, users = KeyStore(connect, clock), UserStore(connect, clock)
    failures = FailureLimit()
    login = Login(
        KnownPeople() if verifier is None else verifier,
        lambda: policy().issuers,
        token_file,
        users.standing,
        lambda address: failures.count(address, clock.monotonic_s()),
    )
    sessions = Sessions(SessionStore(connect, clock), login, lambda: policy().issuers)
    return Place(
        desk=Desk(
            store=store,
            users=users,
            connect=connect,
            policy=policy,
            clock=clock,
            answers=MemoryAnswers(clock),
        ),
        login=login,
        sessions=sessions,
        callers=Callers(login, sessions, own_origin(origin)),
    )


def made(address: DatabaseAddress, clock: Clock, token_file: Path) -> tuple[Starlette, Desk]:
    """The application on this database, and the desk behind it."""
    place = placed(address, clock, token_file, "https://api.test")
    return management_app(place.desk, place.callers), place.desk


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
async def api(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Api]:
    clock = FakeClock(1_800_000_000)
    token_file = tmp_path / "operator-token"
    app, desk = made(postgres.address(postgres.clean_database()), clock, token_file)
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as http:
        assert isinstance(desk.answers, MemoryAnswers)
        yield Api(http, desk.store, desk.users, desk.adapters, desk.answers, clock, token_file)
