"""Who may do what: every operation of the OpenAPI document, for every role."""

from typing import Any

import pytest

from headgate.core.issuers import Role
from headgate.management.openapi import document
from tests.identity.builders import BY
from tests.management.conftest import Api

RANK = ("user", "finance", "admin", "operator")
BODIES: dict[str, Any] = {
    "NewKey": {"user": "rita"},
    "KeyEdit": {"expires_at": None},
    "Rotation": {},
    "NewRevocation": {"user": "okta:gone"},
    "NewAdapter": {"name": "acme-sql", "tenant": "acme", "base": "tiny", "source": "acme/sql"},
    "AdapterEdit": {"copies": 2},
}
OPERATIONS = [
    (method, path, operation)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
]
IDS = [f"{method} {path}" for method, path, _ in OPERATIONS]
every_operation = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)


async def status(
    api: Api, who: str, operation: tuple[str, str, dict[str, Any]], tenant: str, user: str
) -> int:
    method, path, described = operation
    key = await api.issued(tenant, user)
    path = path.removeprefix("/api/v1").replace("{tenant}", tenant).replace("{key}", key)
    if "{revocation}" in path:
        path = path.replace("{revocation}", str(await api.revoked()))
    if "{adapter}" in path:
        await api.registered()
        path = path.replace("{adapter}", "acme-sql").replace("{version}", "2")
    if path.endswith("/pseudonymise"):
        await api.users.unblock(tenant, "gone", BY)
    path = path.replace("{user}", "gone").replace("{month}", "2026-12")
    body = None
    if "requestBody" in described:
        schema = described["requestBody"]["content"]["application/json"]["schema"]
        body = BODIES[schema["$ref"].rpartition("/")[2]]
    return (await api.ask(who, method.upper(), path, body)).status_code


@every_operation
@pytest.mark.parametrize("who", RANK)
async def test_a_role_may_do_what_it_is_for_and_no_more(
    api: Api, who: str, method: str, path: str, operation: dict[str, Any]
) -> None:
    allowed = RANK.index(who) >= RANK.index(operation["x-headgate-role"])

    answer = await status(api, who, (method, path, operation), "acme", "somebody")

    assert (answer < 300) is allowed
    assert allowed or answer in (403, 404)


@every_operation
async def test_the_operator_token_may_do_everything(
    api: Api, method: str, path: str, operation: dict[str, Any]
) -> None:
    assert await status(api, "token", (method, path, operation), "acme", "somebody") < 300


@every_operation
async def test_an_admin_reaches_into_no_other_tenant(
    api: Api, method: str, path: str, operation: dict[str, Any]
) -> None:
    answer = await status(api, "foreign", (method, path, operation), "acme", "okta:foreign")

    whole = "{" not in path and operation["x-headgate-role"] == Role.USER
    assert answer == 200 if whole else answer in (403, 404)


@every_operation
async def test_a_user_may_do_with_their_own_key_what_is_marked_so(
    api: Api, method: str, path: str, operation: dict[str, Any]
) -> None:
    allowed = operation["x-headgate-own"] or operation["x-headgate-role"] == Role.USER

    answer = await status(api, "user", (method, path, operation), "acme", "okta:user")

    assert (answer < 300) is allowed


@every_operation
@pytest.mark.parametrize("who", ["stranger", "forged"])
async def test_nobody_else_may_do_anything(
    api: Api, who: str, method: str, path: str, operation: dict[str, Any]
) -> None:
    answer = await status(api, who, (method, path, operation), "acme", f"okta:{who}")

    assert answer == 401 if who == "forged" else answer in (403, 404)


async def test_a_user_sees_their_own_keys_only(api: Api) -> None:
    own = await api.issued(user="okta:user")
    await api.issued(user="somebody")

    listed = (await api.ask("user", "GET", "/tenants/acme/keys")).json()["data"]

    assert [key["id"] for key in listed] == [own]


async def test_a_foreign_admin_sees_nothing_of_another_tenant_in_any_list(api: Api) -> None:
    tenants = (await api.ask("foreign", "GET", "/tenants")).json()["data"]
    changes = await api.ask("foreign", "GET", "/tenants/globex/changes")

    assert [tenant["name"] for tenant in tenants] == ["globex"]
    await api.issued("acme")
    assert changes.json()["data"] == []
