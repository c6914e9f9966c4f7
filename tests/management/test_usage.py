"""The audit search: each filter, pages, roles, and taking a name away."""

from pathlib import Path
from typing import Any

import pytest

from headgate.core.clock import SystemClock
from headgate.ledger.importing import Import, file_source
from headgate.ledger.usage_lines import FIELDS
from tests.identity.builders import BY, connect_to
from tests.ledger.builders import line, rows, written
from tests.management.conftest import Api
from tests.postgres_server import PostgresServer


async def added(postgres: PostgresServer, folder: Path, *lines: bytes) -> None:
    """Adds lines to the ledger."""
    source = file_source(written(folder / "usage.jsonl", *lines), lambda _: None)

    def never_bad(source: str, number: int, why: str) -> None:
        raise AssertionError(f"{source}:{number}: {why}")

    connect = connect_to(postgres.address("clean"))
    await Import(connect, SystemClock(), 0, never_bad).run([source])


async def found(api: Api, who: str = "operator", query: str = "") -> list[str]:
    """The ids that a search finds on its first page."""
    answer = await api.ask(who, "GET", f"/usage?{query}")
    assert answer.status_code == 200, answer.text
    return [row["request_id"] for row in answer.json()["data"]]


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("tenant=globex", "tenant", "globex"),
        ("user=okta%3Auser", "user", "okta:user"),
        ("key=~0123456789abcdef", "key", "~0123456789abcdef"),
        ("model=big", "model", "big"),
        ("ip=2001%3Adb8%3A%3A1", "ip", "2001:db8::1"),
        ("status=429", "status", 429),
        ("refused_by=tenant+acme+tokens+per+day", "limit", "tenant acme tokens per day"),
        ("request_id=wanted", "request_id", "wanted"),
        ("from=2026-10-29T00:00:00Z", "time", "2026-10-30T00:00:00Z"),
        ("to=2026-10-01T00:00:00Z", "time", "2026-09-30T00:00:00Z"),
    ],
)
async def test_a_filter_finds_the_requests_with_its_value(
    api: Api, postgres: PostgresServer, tmp_path: Path, query: str, field: str, value: Any
) -> None:
    await added(postgres, tmp_path, line(1), line(2, **{"request_id": "wanted", field: value}))

    assert await found(api, query=query) == ["wanted"]


async def test_pages_follow_each_other_without_gap_or_repeat_though_times_are_equal(
    api: Api, postgres: PostgresServer, tmp_path: Path
) -> None:
    same = "2026-10-05T10:00:00Z"
    await added(postgres, tmp_path, *(line(n, time=same) for n in range(7)), line(40))
    ids: list[str] = []
    query = "limit=3"
    while query:
        page = (await api.ask("operator", "GET", f"/usage?{query}")).json()
        ids += [row["request_id"] for row in page["data"]]
        query = f"limit=3&after={page['next']}".replace("%", "%25") if page["next"] else ""

    assert ids == ["request-40", *(f"request-{n}" for n in reversed(range(7)))]


async def test_a_row_has_every_field_and_money_as_exact_text(
    api: Api, postgres: PostgresServer, tmp_path: Path
) -> None:
    await added(postgres, tmp_path, line(1, cost=0.000000001, ttft_s=0.25))

    [row] = (await api.ask("operator", "GET", "/usage")).json()["data"]

    assert set(row) == set(FIELDS)
    assert (row["cost"], row["ttft_s"], row["duration_s"]) == ("0.000000001", 0.25, 1.25)
    assert (row["ip"], row["flags"]) == ("10.0.0.7", [])


async def test_each_role_finds_what_is_theirs(
    api: Api, postgres: PostgresServer, tmp_path: Path
) -> None:
    people = ("acme", "okta:user"), ("acme", "rita"), ("globex", "okta:user")
    lines = (line(n, tenant=tenant, user=user) for n, (tenant, user) in enumerate(people))
    await added(postgres, tmp_path, *lines)

    assert await found(api, "operator") == ["request-2", "request-1", "request-0"]
    assert await found(api, "finance") == ["request-1", "request-0"]
    assert await found(api, "user") == ["request-0"]
    assert await found(api, "user", "request_id=request-1") == []
    assert await found(api, "foreign", "user=rita") == []
    for who, query in (("user", "user=rita"), ("admin", "tenant=globex"), ("foreign", "tenant=x")):
        assert (await api.ask(who, "GET", f"/usage?{query}")).status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        *("status=4290", "status=-12", "ip=localhost", "from=2026-10-01", "to=2026-10-01T00:00:00"),
        *("tenat=acme", "user=", "user=%00", "after=x", "after=1", "after=1%3Aa%2500"),
        *("after=99999999999999999999999%3Aa", f"model={'x' * 513}", "limit=0", "limit=1001"),
    ],
)
async def test_a_filter_that_means_nothing_is_refused_and_named(api: Api, query: str) -> None:
    answer = await api.ask("operator", "GET", f"/usage?{query}")

    assert answer.status_code == 400
    assert answer.json()["field"] == query.partition("=")[0]


async def test_a_search_that_takes_too_long_says_what_to_do(
    api: Api, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.ledger.search.STATEMENT_S", 0.001)
    monkeypatch.setattr("headgate.ledger.search._ORDER", "and pg_sleep(9) is null limit %s")
    await added(postgres, tmp_path, line(1))

    answer = await api.ask("operator", "GET", "/usage?tenant=acme")

    assert answer.status_code == 422
    assert "takes too long" in answer.json()["detail"]


async def test_a_pseudonym_takes_both_names_and_changes_no_sum(
    api: Api, postgres: PostgresServer, tmp_path: Path
) -> None:
    await added(postgres, tmp_path, line(1, user="a/rita"), line(2, user="a/rita"), line(3))
    named = "update headgate.person set display_name = 'Rita R.' where name = 'a/rita'"
    postgres.run_as("headgate", "clean", named)
    sums = "select person_id, sum(cost_nanos) from headgate.usage_record group by 1 order by 1"
    before = await rows(postgres, sums)

    made = await api.ask("operator", "POST", "/users/a%2Frita/pseudonymise")

    assert made.status_code == 200, made.text
    assert await rows(postgres, sums) == before
    assert await found(api, query=f"user={made.json()['name']}") == ["request-2", "request-1"]
    assert await found(api, query="user=a%2Frita") == []
    every = "select name || display_name from headgate.person"
    assert "ita" not in str(await rows(postgres, every))
    changes = (await api.ask("operator", "GET", "/changes")).text
    assert "user.pseudonymise" in changes
    assert "rita" not in changes
    assert (await api.ask("operator", "GET", "/changes/head")).status_code == 200


async def test_a_name_stays_while_something_holds_by_it(api: Api) -> None:
    key = await api.issued(user="rita")
    await api.users.block("acme", "bob", BY)

    for user in ("rita", "bob", "filip", "nobody"):
        answer = await api.ask("operator", "POST", f"/users/{user}/pseudonymise")
        assert (answer.status_code, answer.json()["field"]) == (422, "user")
    await api.store.revoke(key, BY)
    assert (await api.ask("operator", "POST", "/users/rita/pseudonymise")).status_code == 200


async def test_a_cursor_of_any_id_leads_on(
    api: Api, postgres: PostgresServer, tmp_path: Path
) -> None:
    ids = ["é:%00?", "a b", "x" * 400]
    await added(postgres, tmp_path, *(line(1, request_id=one) for one in ids))
    pages, after = [], None
    for _ in ids:
        query = {"limit": "1"} | ({"after": after} if after else {})
        token = {"authorization": "Bearer eyJ.operator.x"}
        page = (await api.http.get("/api/v1/usage", params=query, headers=token)).json()
        pages += [row["request_id"] for row in page["data"]]
        after = page["next"]

    assert sorted(pages) == sorted(ids)
