"""The management API: blocked users, revoked tokens, and failed logins."""

from urllib.parse import quote

from extauthz.failures import DEFAULT_PER_MINUTE
from tests.management.conftest import Api, token_of

USERS = "/tenants/acme/users"


async def test_a_blocked_user_loses_the_roles_of_that_tenant_until_unblocked(api: Api) -> None:
    assert (await api.ask("user", "GET", "/tenants/acme/keys")).status_code == 200

    blocked = (await api.ask("admin", "POST", f"{USERS}/okta:user/block")).json()
    refused = await api.ask("user", "GET", "/tenants/acme/keys")
    await api.ask("admin", "POST", f"{USERS}/okta:user/unblock")

    assert blocked["blocked_at"] is not None
    assert refused.status_code == 403
    assert (await api.ask("user", "GET", "/tenants/acme/keys")).status_code == 200


async def test_a_blocked_user_is_listed_and_the_log_names_them(api: Api) -> None:
    user = "actions:repo:o/r:ref:refs/heads/main%C3%A9"
    await api.ask("admin", "POST", f"{USERS}/{quote(user, safe='')}/block")

    listed = (await api.ask("finance", "GET", USERS)).json()["data"]
    [change] = (await api.ask("finance", "GET", "/tenants/acme/changes")).json()["data"]

    assert [(one["name"], one["blocked_at"] is not None) for one in listed] == [
        (user, True),
        ("filip", False),
    ]
    assert (change["action"], change["actor"], change["user"]) == ("user.block", "okta:admin", user)
    assert (await api.ask("foreign", "GET", "/tenants/globex/changes")).json()["data"] == []


async def test_a_revoked_token_does_not_log_in_until_it_is_lifted(api: Api) -> None:
    made = (await api.ask("operator", "POST", "/revocations", {"user": "okta:user"})).json()
    refused = await api.ask("user", "GET", "/tenants")
    await api.ask("operator", "POST", f"/revocations/{made['id']}/lift")

    assert refused.status_code == 401
    assert (await api.ask("user", "GET", "/tenants")).status_code == 200
    assert (await api.ask("operator", "POST", "/revocations/999/lift")).status_code == 404


async def test_a_revocation_names_a_user_or_a_token_of_an_issuer_of_the_policy(api: Api) -> None:
    bodies = [
        {},
        {"user": "rita"},
        {"user": "nobody:1"},
        {"user": "okta:1", "token_id": "t"},
        {"token_id": "t"},
        {"token_id": "t", "issuer": "nobody"},
        {"user": "okta:1", "issued_before": "2027-01-01T00:00:00"},
    ]

    answers = [await api.ask("operator", "POST", "/revocations", body) for body in bodies]

    assert [answer.status_code for answer in answers] == [422] * len(bodies)


async def test_failed_logins_are_limited_by_address_and_a_right_token_still_passes(
    api: Api,
) -> None:
    wrong = {"authorization": f"Bearer {token_of('forged')}"}
    path = "/api/v1/tenants"

    codes = [
        (await api.http.get(path, headers=wrong)).status_code for _ in range(DEFAULT_PER_MINUTE)
    ]
    refused = await api.http.get(path, headers=wrong)

    assert codes == [401] * DEFAULT_PER_MINUTE
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert (await api.ask("token", "GET", "/tenants")).status_code == 200
    api.clock.advance(60)
    assert (await api.http.get(path, headers=wrong)).status_code == 401
