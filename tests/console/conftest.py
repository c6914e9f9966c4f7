"""The console in this process, on a real PostgreSQL, with people of every role."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from starlette.applications import Starlette

from headgate.console.app import console_routes
from headgate.console.surroundings import Surroundings
from headgate.identity.keys import KeyRequest
from headgate.identity.store import KeyStore
from headgate.ledger.importing import Import, Source
from headgate.management.app import management_app
from headgate.management.calls import Desk
from headgate.policy import load_policy
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import PeekQuery
from tests.fakes import FakeClock
from tests.identity.builders import BY
from tests.ledger.builders import record
from tests.management.conftest import API_POLICY, OPERATOR_TOKEN, Place, placed, token_of
from tests.postgres_server import PostgresServer, running_server

Peek: TypeAlias = Callable[[PeekQuery], Awaitable[Mapping[str, int]]]
NOW_S = 1_800_000_000  # 2027-01-15T08:00:00Z
MARKUP = "<script>alert(1)</script>"
ROWS = (
    record(1, request_id="of-user", user="okta:user", time="2027-01-15T07:00:00Z"),
    record(2, request_id="of-bob", user="bob", time="2027-01-15T07:10:00Z", user_agent=MARKUP),
    record(
        3,
        request_id="refused",
        limit_count="tokens",
        limit_most=5,
        limit_used=4,
        limit_asked=2,
        user="bob",
        status=429,
        ended=None,
        limit="5 tokens per day",
        cost=0,
        time="2027-01-15T07:20:00Z",
        duration_s=0.003,
    ),
    record(4, request_id="of-globex", tenant="globex", user="zelda9", time="2027-01-15T07:30:00Z"),
    record(5, request_id="odd", user=MARKUP, requested_model=MARKUP, time="2027-01-14T07:00:00Z"),
    record(6, request_id="formula", user="=cmd|'/c calc'!A1", time="2027-01-13T07:00:00Z"),
)


CONSOLE_POLICY = replace(
    load_policy(Path(__file__).with_name("policy.yaml")),
    issuers=API_POLICY.issuers,
    keys=API_POLICY.keys,
)


async def no_metrics() -> str:
    return ""


@dataclass(kw_only=True)
class Console:
    """The running console and the store below it."""

    app: Starlette
    http: httpx.AsyncClient
    store: KeyStore
    clock: FakeClock
    desk: Desk
    memory: MemoryStore
    peeks: list[Peek]
    cookies: dict[str, str] = field(default_factory=dict)

    def set_peek(self, peek: Peek) -> None:
        """Lets the store of the limits answer in another way."""
        self.peeks.append(peek)

    async def ask(self, who: str, method: str, path: str, **sent: object) -> httpx.Response:
        """A request with a token, as tests have no browser. `nobody` sends none."""
        token = OPERATOR_TOKEN if who == "token" else token_of(who)
        headers = {} if who == "nobody" else {"authorization": f"Bearer {token}"}
        cookies = dict(sent.pop("cookies", {}))  # type: ignore[call-overload]
        if cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return await self.http.request(
            method,
            f"/console{path}",
            headers=headers | dict(sent.pop("headers", {})),  # type: ignore[call-overload]
            **sent,  # type: ignore[arg-type]
        )

    async def get(self, who: str, path: str) -> httpx.Response:
        return await self.ask(who, "GET", path)

    async def issued(self, tenant: str = "acme", user: str = "okta:user") -> str:
        """The id of a fresh key."""
        request = KeyRequest(tenant=tenant, user=user)
        return (await self.store.issue(request, CONSOLE_POLICY, BY)).key.id

    async def add(self, *rows: dict[str, object]) -> None:
        """Adds records to the ledger."""
        lines = [(number, json.dumps(row).encode()) for number, row in enumerate(rows, 1)]
        assert lines
        fed = await Import(self.desk.connect, self.clock, 0, _all_good).run(
            [Source("test", [lines])]
        )
        assert fed.added == len(rows)


def _all_good(source: str, number: int, why: str) -> None:
    raise AssertionError(f"{source}:{number}: {why}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


def placed_console(postgres: PostgresServer, folder: Path, origin: str) -> tuple[Console, Place]:
    """A console on a clean database for browsers at `origin`, without a record, and its parts."""
    clock = FakeClock(NOW_S)
    address = postgres.address(postgres.clean_database())
    token_file = folder / "operator-token"
    place = placed(address, clock, token_file, origin, policy=lambda: CONSOLE_POLICY)
    memory = MemoryStore()
    peeks: list[Peek] = [memory.peek]

    async def peek(query: PeekQuery) -> Mapping[str, int]:
        return await peeks[-1](query)

    around = Surroundings(peek=peek, metrics=no_metrics)
    pages = console_routes(place.desk, place.callers, around)
    app = management_app(place.desk, place.callers, pages)
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
    console = Console(
        app=app,
        http=httpx.AsyncClient(transport=transport, base_url=origin),
        store=place.desk.store,
        clock=clock,
        desk=place.desk,
        memory=memory,
        peeks=peeks,
    )
    return console, place


@pytest.fixture
async def console(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Console]:
    running, place = placed_console(postgres, tmp_path, "https://console.test")
    async with running.http:
        await running.add(*ROWS)
        secret = await place.sessions.open_operator()
        running.cookies = {"__Host-headgate-session": secret}
        yield running
