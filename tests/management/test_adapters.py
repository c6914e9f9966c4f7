"""Adapters over the management API: what names and sources may say, and who may register."""

import pytest

from tests.management.conftest import Api

BODY = {"name": "acme-sql", "tenant": "acme", "base": "tiny", "source": "acme/sql-7"}
NAMES = ("../acme-sql", "acme-sql/../../etc", "a/b", "acme..sql", "acme-sql@1", ".ssh", "", "a\0b")
NETWORK = (
    "http://169.254.169.254/latest/meta-data",
    "https://example.org/x",
    "file:///etc",
    "s3://169.254.169.254/latest",
    "s3://user:secret@host/x",
    "s3://host:80/x",
    "//example.org/x",
)
OUTSIDE = ("../secret", "acme/../../etc", "/etc", "s3://adapters/../others/x", "acme/.ssh", "")


async def registered(api: Api) -> list[str]:
    rows = (await api.ask("operator", "GET", "/adapters")).json()["data"]
    return [row["name"] for row in rows]


async def test_a_version_is_registered_from_a_folder_and_the_next_one_from_a_bucket(
    api: Api,
) -> None:
    first = await api.ask("operator", "POST", "/adapters", BODY)
    second = await api.ask(
        "operator", "POST", "/adapters", {**BODY, "source": "s3://adapters/acme/sql-8"}
    )
    assert (first.status_code, second.status_code) == (201, 201)
    sources = [version["source"] for version in second.json()["versions"]]
    assert sources == ["acme/sql-7", "s3://adapters/acme/sql-8"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_leads_elsewhere_is_not_registered(api: Api, name: str) -> None:
    answer = await api.ask("operator", "POST", "/adapters", {**BODY, "name": name})
    assert answer.status_code == 422
    assert await registered(api) == []


@pytest.mark.parametrize("source", NETWORK + OUTSIDE)
async def test_a_source_in_the_network_or_outside_is_not_registered(api: Api, source: str) -> None:
    answer = await api.ask("operator", "POST", "/adapters", {**BODY, "source": source})
    assert answer.status_code == 422
    assert await registered(api) == []


@pytest.mark.parametrize("who", ["user", "finance", "admin", "foreign", "stranger"])
async def test_only_an_operator_registers(api: Api, who: str) -> None:
    answer = await api.ask(who, "POST", "/adapters", BODY)
    assert answer.status_code in (403, 404)
    assert await registered(api) == []
