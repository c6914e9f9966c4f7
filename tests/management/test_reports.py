"""The management API: the report of a month, for operators and for a tenant, and its closing."""

from hashlib import sha256

import msgspec

from headgate.ledger.showback.closed import document_of
from headgate.ledger.showback.values import Statement
from tests.management.conftest import Api

MONTH = "/reports/2026-12"


async def test_a_month_is_closed_once_with_a_name_and_a_row_in_the_change_log(api: Api) -> None:
    shown = (await api.ask("operator", "GET", MONTH)).json()
    answer = await api.ask("operator", "POST", f"{MONTH}/close")
    closed = msgspec.convert(answer.json(), Statement)
    again = await api.ask("operator", "POST", f"{MONTH}/close")
    [change] = (await api.ask("operator", "GET", "/changes")).json()["data"]

    assert shown["closing"] is None
    assert closed.closing is not None
    assert closed.names[closed.closing.by] == "okta:operator"
    assert (change["action"], change["object"], change["actor"]) == (
        "month.close",
        "2026-12",
        "okta:operator",
    )
    assert change["after"] == {"checksum": closed.closing.checksum}
    assert (again.status_code, again.json()["detail"]) == (409, "2026-12 is closed already")


async def test_a_closed_month_is_shown_with_the_bytes_of_its_checksum(api: Api) -> None:
    await api.ask("operator", "POST", f"{MONTH}/close")

    shown = msgspec.convert((await api.ask("operator", "GET", MONTH)).json(), Statement)

    assert shown.closing is not None
    assert sha256(document_of(shown.report)).hexdigest() == shown.closing.checksum


async def test_a_tenant_sees_neither_the_pools_nor_other_tenants(api: Api) -> None:
    answer = await api.ask("finance", "GET", f"/tenants/acme{MONTH}")

    report = answer.json()["report"]
    assert (report["pools"], report["lines"]) == ([], [])
    assert (await api.ask("finance", "GET", MONTH)).status_code == 403


async def test_a_month_that_is_none_or_has_not_begun_is_a_problem(api: Api) -> None:
    for month, text in (("2026-13", "is written as 2026-10"), ("2027-02", "begins at 2027-02-01")):
        answer = await api.ask("operator", "GET", f"/reports/{month}")
        assert answer.status_code == 409
        assert text in answer.json()["detail"]


async def test_a_month_that_has_not_ended_is_not_closed(api: Api) -> None:
    answer = await api.ask("operator", "POST", "/reports/2027-01/close")

    assert answer.status_code == 409
    assert "is open until its end, 2027-02-01T00:00Z" in answer.json()["detail"]
