"""Blocked users and revoked tokens, from the database to the decision about a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from extauthz.decide import Allow, CheckResult, Deny
from headgate.core.clock import SystemClock
from headgate.core.issuers import Person
from headgate.core.keys import digest_of
from headgate.core.metrics import Metrics
from headgate.database.address import DatabaseAddress, database_address
from headgate.database.connection import connected
from headgate.identity.change_log import verify
from headgate.identity.follow import KeyFollower
from headgate.identity.keys import KeyRequest, KeyRuleError
from headgate.identity.ring import MemoryRing
from headgate.identity.snapshot import Snapshot
from headgate.identity.users import Standing, TokensOf, UserStore
from tests.identity.builders import BY, POLICY, connect_to, store_of, until
from tests.identity.issuer import TestIssuer
from tests.identity.rig import Rig, policy_of
from tests.postgres_server import PostgresServer

CLOCK = SystemClock()
ISSUER = TestIssuer()
SPIFFE = "spiffe://cluster.local/ns/jobs/sa/nightly"
WEB = f"""\
  web:
    models: [tiny]
    keys:
      - {{user: filip, id: file, sha256: {digest_of("sk-file").hex()}}}
      - {{user: chat, id: front, sha256: {digest_of("sk-front").hex()},
         acts_for: {{header: x-end-user-id}}}}
    workloads: [{{user: jobs, spiffe: "{SPIFFE}"}}]
"""
BOB = Person(issuer="okta", subject="bob", user="okta:bob", tenants={}, token_id="t", issued_s=50)


@pytest.fixture
def address(postgres: PostgresServer) -> DatabaseAddress:
    return postgres.address(postgres.clean_database())


@pytest.fixture
def users(address: DatabaseAddress) -> UserStore:
    return UserStore(connect_to(address), CLOCK)


@asynccontextmanager
async def replica(address: DatabaseAddress, snapshot: Path | None = None) -> AsyncIterator[Rig]:
    """A rig whose ring follows the database."""
    rig = Rig(ISSUER, policy_of(ISSUER.url, more=WEB))
    ring = rig.ring = MemoryRing(CLOCK, 3600.0)
    kept = None if snapshot is None else Snapshot(snapshot, CLOCK)
    metrics = Metrics(CollectorRegistry(), CLOCK)
    async with KeyFollower(connect_to(address), ring, kept, CLOCK, metrics):
        yield rig


def outcome(result: CheckResult) -> str:
    match result:
        case Allow():
            return result.caller.user
        case Deny():
            return result.error.refusal.code
    raise AssertionError(result)


async def sent(rig: Rig, kind: str, secret: str) -> str:
    """The outcome of a request with a credential of this kind."""
    match kind:
        case "file key":
            return outcome(await rig.decided(b"sk-file"))
        case "run-time key":
            return outcome(await rig.decided(secret.encode()))
        case "token":
            return outcome(await rig.decided(ISSUER.token()))
        case "end user" | "front end":
            return outcome(await rig.decided(b"sk-front", ("x-end-user-id", b"eve")))
        case _:
            return outcome(await rig.asked(principal=SPIFFE))


@pytest.mark.parametrize(
    ("kind", "tenant", "user"),
    [
        ("file key", "web", "filip"),
        ("run-time key", "acme", "rita"),
        ("token", "acme", "corp:alice"),
        ("end user", "web", "chat:eve"),
        ("front end", "web", "chat"),
        ("workload", "web", "jobs"),
    ],
)
async def test_a_blocked_user_is_refused_by_each_kind_of_credential(
    address: DatabaseAddress, users: UserStore, kind: str, tenant: str, user: str
) -> None:
    request = KeyRequest(tenant="acme", user="rita")
    secret = (await store_of(address, CLOCK).issue(request, POLICY, BY)).secret.secret
    async with replica(address) as rig:
        before = await sent(rig, kind, secret)
        await users.block("lab", user, BY)
        await users.block(tenant, user, BY)
        await until(lambda: rig.ring.is_blocked(tenant, user))
        blocked = await sent(rig, kind, secret)
        await users.unblock(tenant, user, BY)
        await until(lambda: not rig.ring.is_blocked(tenant, user))

        assert before == ("chat:eve" if kind == "front end" else user)
        assert blocked == "user_blocked"
        assert await sent(rig, kind, secret) == before


async def test_a_block_holds_in_its_tenant_only_and_counts_against_no_address(
    address: DatabaseAddress, users: UserStore
) -> None:
    await users.block("acme", "filip", BY)
    async with replica(address) as rig:
        assert await sent(rig, "file key", "") == "filip"
        await users.block("web", "filip", BY)
        await until(lambda: rig.ring.is_blocked("web", "filip"))
        denied = await rig.decided(b"sk-file")

    assert isinstance(denied, Deny)
    assert (denied.error.refusal.status, denied.counted) == (403, False)


@pytest.mark.parametrize(
    ("tokens", "covered"),
    [
        (TokensOf(issuer="okta", user="okta:bob"), True),
        (TokensOf(issuer="okta", user="okta:bob", before_s=51.0), True),
        (TokensOf(issuer="okta", user="okta:bob", before_s=50.0), False),
        (TokensOf(issuer="okta", token_id="t"), True),
        (TokensOf(issuer="entra", token_id="t"), False),
        (TokensOf(issuer="okta", user="okta:eve"), False),
    ],
    ids=["user", "issued before", "issued later", "jti", "jti of another issuer", "another user"],
)
async def test_replicas_and_the_api_agree_which_token_is_revoked_until_it_is_lifted(
    address: DatabaseAddress, users: UserStore, tokens: TokensOf, covered: bool
) -> None:
    ring = MemoryRing(CLOCK, 3600.0)
    metrics = Metrics(CollectorRegistry(), CLOCK)
    async with KeyFollower(connect_to(address), ring, None, CLOCK, metrics):
        made = await users.revoke(tokens, BY)
        await until(lambda: ring.head is not None and ring.head.number == made.id)
        assert ring.revocations().covers(BOB) is covered
        assert await users.standing(BOB) == Standing(is_revoked=covered)

        lifted = await users.lift(made.id, BY)
        await until(lambda: not ring.exclusions.revoked())

    assert lifted.lifted_s is not None
    assert await users.standing(BOB) == Standing()


async def test_of_several_moments_of_a_user_the_latest_counts(
    address: DatabaseAddress, users: UserStore
) -> None:
    for before_s in (60.0, 40.0):
        await users.revoke(TokensOf(issuer="okta", user="okta:bob", before_s=before_s), BY)
    async with replica(address) as rig:
        assert isinstance(rig.ring, MemoryRing)
        assert rig.ring.revocations().covers(BOB)


async def test_a_snapshot_keeps_blocks_and_revocations_while_the_database_is_away(
    address: DatabaseAddress, users: UserStore, tmp_path: Path
) -> None:
    await users.block("web", "filip", BY)
    await users.revoke(TokensOf(issuer="okta", token_id="t"), BY)
    async with replica(address, tmp_path / "keys"):
        pass

    nowhere = database_address(f"postgresql://x@/x?host={tmp_path}/none")
    async with replica(nowhere, tmp_path / "keys") as rig:
        assert await sent(rig, "file key", "") == "user_blocked"
        assert isinstance(rig.ring, MemoryRing)
        assert rig.ring.revocations().covers(BOB)


async def test_each_change_is_in_the_change_log_without_a_name(
    address: DatabaseAddress, users: UserStore
) -> None:
    await users.block("web", "filip", BY)
    await users.unblock("web", "filip", BY)
    made = await users.revoke(TokensOf(issuer="okta", user="okta:bob"), BY)
    await users.lift(made.id, BY)

    async with connected(address) as connection:
        assert (await verify(connection)).number == 4
        rows = await connection.execute("select action, object, after from headgate.change")
        logged = await rows.fetchall()
    assert [row[0] for row in logged] == [
        "user.block", "user.unblock", "tokens.revoke", "tokens.lift",
    ]  # fmt: skip
    assert "filip" not in str(logged)
    assert "bob" not in str(logged)


async def test_an_unknown_revocation_and_an_odd_user_are_refused(users: UserStore) -> None:
    with pytest.raises(KeyRuleError, match="there is no revocation 7"):
        await users.lift(7, BY)
    with pytest.raises(KeyRuleError, match="must be 1 to 256"):
        await users.block("web", "a\nb", BY)
