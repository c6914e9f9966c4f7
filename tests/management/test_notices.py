"""The management API: the thresholds that limits have passed, for operators and for a tenant."""

from headgate.database.connection import connected
from headgate.ledger.notices import outbox
from headgate.ledger.notices.values import Decided
from tests.management.conftest import Api
from tests.postgres_server import PostgresServer


async def decided(postgres: PostgresServer, *tenants: str) -> None:
    """One threshold of each, the later ones newer, to send by a webhook."""
    async with connected(postgres.address("clean")) as connection:
        for tenant in tenants:
            notice = Decided(
                tenant=tenant,
                limit_id="tokens.day",
                most=1000,
                threshold="80",
                count="tokens",
                per="day",
                begin_s=0,
                end_s=86_400,
                used=850,
            )
            await outbox.put(connection, [notice], {tenant: ["webhook"]})


async def test_a_notice_says_whose_limit_how_much_and_who_was_told(
    api: Api, postgres: PostgresServer
) -> None:
    await decided(postgres, "acme")

    [notice] = (await api.ask("finance", "GET", "/tenants/acme/notices")).json()["data"]

    assert (notice["tenant"], notice["threshold"], notice["used"]) == ("acme", "80", 850)
    assert (notice["limit_id"], notice["limit"], notice["user"]) == ("tokens.day", 1000, None)
    assert notice["deliveries"] == {"webhook": "waiting"}


async def test_a_tenant_sees_its_own_and_an_operator_all(
    api: Api, postgres: PostgresServer
) -> None:
    await decided(postgres, "acme", "globex")

    own = (await api.ask("finance", "GET", "/tenants/acme/notices")).json()["data"]
    every = (await api.ask("operator", "GET", "/notices")).json()["data"]

    assert [one["tenant"] for one in own] == ["acme"]
    assert [one["tenant"] for one in every] == ["globex", "acme"]
    assert (await api.ask("finance", "GET", "/notices")).status_code == 403
    assert (await api.ask("finance", "GET", "/tenants/globex/notices")).status_code in (403, 404)


async def test_pages_have_each_notice_once(api: Api, postgres: PostgresServer) -> None:
    names = [f"tenant-{number}" for number in range(5)]
    await decided(postgres, *names)
    found, after = [], ""
    while True:
        page = (await api.ask("operator", "GET", f"/notices?limit=2{after}")).json()
        found += [one["tenant"] for one in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next'].replace('+', '%2B')}"

    assert found == names[::-1]


async def test_a_place_that_is_none_is_a_problem(api: Api) -> None:
    for place in ("x", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z 1"):
        answer = await api.ask("operator", "GET", f"/notices?after={place}")
        assert (answer.status_code, answer.json()["field"]) == (400, "after")
