"""A tenant with thresholds, its counters, and a keeper of notices that tests drive by hand."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from headgate.core.key_ring import NO_KEYS, KeyRing, tenant_of
from headgate.core.metrics import Metrics
from headgate.core.policy import Caller, CompiledPolicy
from headgate.database.connection import connected
from headgate.ledger.lines import read_line
from headgate.ledger.notices.looking import NoticeKeeper
from headgate.ledger.rows import row_of
from headgate.ledger.store import Batch, Position, add, open_import
from headgate.policy import parse_policy
from ratelimit.demand import Subject, claims_of, reservation_of
from ratelimit.store.memory import MemoryStore
from tests.fakes import FakeClock
from tests.ledger.builders import line, rows
from tests.postgres_server import PostgresServer

SECRET = b"twenty-four bytes or more, here"
NOW_S = 1_793_188_800.0
"""28 October 2026, 12:00 UTC: most of the month is over."""
MODELS = """
models:
  tiny: {upstream: "http://127.0.0.1:8000", context_tokens: 8192, prices: {input: 1, output: 1}}
"""


def policy_of(*limits: str, tenant: str = "", channels: str = "") -> CompiledPolicy:
    """A tenant acme with these limits; `tenant` and `channels` are lines of the file."""
    text = f"{MODELS}{channels}\ntenants:\n  acme:\n    models: [tiny]\n"
    text += f"    {tenant}\n    limits: [{', '.join(limits)}]\n"
    return parse_policy(text.encode(), "headgate.yaml")


def hook_channel(folder: Path, url: str) -> str:
    """The channel of a signed webhook, with its secret in the folder."""
    file = folder / "secret"
    file.write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
    return f'notices: {{webhook: {{url: "{url}", secret_file: {file}}}}}'


class Site:
    """A database, a store of limits and a clock that any number of keepers share."""

    def __init__(self, server: PostgresServer, policy: CompiledPolicy) -> None:
        server.clean_database()
        self.server = server
        self.policy = policy
        self.clock = FakeClock(NOW_S)
        self.store = MemoryStore()
        self.keys: KeyRing = NO_KEYS
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, self.clock)
        self._number = 0

    def keeper(self, store: Any = None) -> NoticeKeeper:
        connect = partial(connected, self.server.address("clean"))
        policy: Callable[[], CompiledPolicy] = lambda: self.policy  # noqa: E731
        store = store or self.store
        return NoticeKeeper(connect, policy, store, self.clock, self.metrics, keys=self.keys)

    async def use(self, tokens: int, user: str = "rita", key: str = "laptop") -> None:
        """A request of a user holds this many tokens in each limit that it meets."""
        self._number += 1
        now_s, tenant = (
            self.clock.now_s(),
            tenant_of(Caller("acme", user, key), self.policy, self.keys),
        )
        assert tenant is not None
        claims = claims_of(tenant, Subject("acme", user, key, "tiny"), now_s)
        await self.store.reserve(reservation_of(f"r{self._number}", "acme", claims, tokens, now_s))

    async def record(self, user: str, **fields: Any) -> None:
        """The ledger gets a record of a user, as if it had ended now."""
        self._number += 1
        text = line(self._number, user=user, **{"time": _now_text(), **fields})
        row = row_of(read_line(text))
        async with connected(self.server.address("clean")) as connection:
            ingest_id = await open_import(connection, "test")
            await add(connection, ingest_id, Position(), Batch([row], Position(1, 1)))

    async def decided(self) -> list[str]:
        """The thresholds that were decided, with the users whose they are."""
        found = await rows(
            self.server,
            "select n.threshold, coalesce(p.name, '') from headgate.notice n"
            " left join headgate.person p on p.id = n.person_id order by n.decided_at, 1, 2",
        )
        return [" ".join(filter(None, one)) for one in found]

    def make_due(self) -> None:
        """Lets the pauses of all deliveries be over."""
        self.server.run_as(
            "headgate_owner", "clean", "update headgate.notice_delivery set next_at = now()"
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"headgate_{name}", labels)


def _now_text() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
