"""The management API: keys from issue to end, pages, repeats, versions, and odd input."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from headgate.core.errors import OperatorError
from headgate.management.login import ensure_token, read_token
from headgate.management.openapi import document
from headgate.management.records import NewKey
from tests.management.conftest import Api

KEYS = "/tenants/acme/keys"
ODD = ["'; drop table headgate.api_key; --", "a\nb", "a\0b", "é", "", "x" * 257, "$(id)", "{{u}}"]


async def test_a_key_goes_from_issue_to_its_end(api: Api) -> None:
    body = {"user": "rita", "models": ["tiny"], "labels": {"project": "p"}}
    made = await api.ask("admin", "POST", KEYS, body)
    key = made.json()["key"]
    path = f"/keys/{key['id']}"

    assert made.status_code == 201
    assert made.json()["secret"].startswith("sk-hg-")
    assert key["is_live"]
    rotated = (await api.ask("admin", "POST", f"{path}/rotate", {"overlap_s": 60})).json()
    assert rotated["secret"] != made.json()["secret"]
    end = {"expires_at": "2027-06-01T00:00:00Z"}
    assert (await api.ask("admin", "PATCH", path, end)).json()["expires_at"] == end["expires_at"]
    assert not (await api.ask("admin", "POST", f"{path}/revoke")).json()["is_live"]
    assert (await api.ask("admin", "POST", f"{path}/rotate", {})).status_code == 409
    assert (await api.ask("admin", "GET", path)).json()["revoked_at"] is not None


async def test_every_change_says_who_when_and_from_where(api: Api) -> None:
    key = (await api.ask("admin", "POST", KEYS, {"user": "rita"})).json()["key"]["id"]
    await api.ask("token", "POST", f"/keys/{key}/revoke")

    changes = (await api.ask("operator", "GET", "/changes")).json()["data"]

    assert [(one["actor"], one["origin"], one["action"], one["object"]) for one in changes] == [
        ("okta:admin", "192.0.2.7", "key.issue", key),
        ("~operator-token", "192.0.2.7", "key.revoke", key),
    ]
    assert all(one["at"] == "2027-01-15T08:00:00Z" for one in changes)
    head = (await api.ask("operator", "GET", "/changes/head")).json()
    assert head == {"number": 2, "hash": changes[-1]["hash"]}
    assert "sk-hg-" not in str(changes)


async def test_a_noted_head_that_the_log_lacks_is_a_conflict(api: Api) -> None:
    await api.issued()
    noted = f"/changes/head?number=1&hash={'0' * 64}"

    assert (await api.ask("operator", "GET", noted)).status_code == 409


async def test_a_repeated_issue_makes_one_key_and_shows_its_secret_once(api: Api) -> None:
    body = {"user": "rita", "expires_at": "2027-06-01T00:00:00.123456+02:00"}
    first = await api.ask("admin", "POST", KEYS, body, idempotency_key="one")
    again = await api.ask("admin", "POST", KEYS, body, idempotency_key="one")
    other = await api.ask("admin", "POST", KEYS, {"user": "bob"}, idempotency_key="one")

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
    assert again.json() == {"key": first.json()["key"], "secret": None}
    assert len((await api.ask("admin", "GET", KEYS)).json()["data"]) == 1


async def test_an_edit_changes_what_it_names_and_says_what_was_before(api: Api) -> None:
    body = {"user": "rita", "models": ["tiny"], "labels": {"project": "p"}}
    key = (await api.ask("admin", "POST", KEYS, body)).json()["key"]
    path = f"/keys/{key['id']}"
    limits = [{"count": "tokens", "limit": 5, "per": "day"}]

    edited = await api.ask("admin", "PATCH", path, {"models": None, "limits": limits})

    assert edited.json() == {**key, "models": None, "limits": limits}
    last = (await api.ask("operator", "GET", "/changes")).json()["data"][-1]
    logged = [{"per": "day", "count": "tokens", "limit": "5"}]
    assert last["action"] == "key.edit"
    assert last["before"] == {"models": ["tiny"], "limits": []}
    assert last["after"] == {"models": None, "limits": logged}
    assert (await api.ask("operator", "GET", "/changes/head")).status_code == 200


async def test_two_edits_of_one_version_do_not_undo_each_other(api: Api) -> None:
    path = f"/keys/{await api.issued()}"
    tag = (await api.ask("admin", "GET", path)).headers["etag"]
    first = await api.ask("admin", "PATCH", path, {"labels": {"a": "1"}}, if_match=tag)

    stale = await api.ask("admin", "PATCH", path, {"labels": {"b": "1"}}, if_match=tag)
    blind = await api.ask("admin", "PATCH", path, {"models": ["tiny"]})

    assert (first.status_code, stale.status_code, blind.status_code) == (200, 412, 200)
    assert blind.json()["labels"] == {"a": "1"}
    assert first.headers["etag"] != tag


@pytest.mark.parametrize(
    "edit",
    [
        {"models": ["foreign"]},
        {"models": []},
        {"limits": [{"count": "tokens", "limit": 0, "per": "day"}]},
        {"labels": {"A": "x"}},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2030-01-01T00:00:00"},
        {"tenant": "globex"},
        {"user": "bob"},
    ],
    ids=str,
)
async def test_a_wrong_edit_is_refused_and_changes_nothing(api: Api, edit: dict) -> None:
    path = f"/keys/{await api.issued()}"
    before = (await api.ask("admin", "GET", path)).json()

    assert (await api.ask("admin", "PATCH", path, edit)).status_code == 422
    assert (await api.ask("admin", "GET", path)).json() == before


async def test_a_change_of_an_older_version_is_refused(api: Api) -> None:
    key = await api.issued()
    tag = (await api.ask("admin", "GET", f"/keys/{key}")).headers["etag"]
    path = f"/keys/{key}/rotate"

    assert (await api.ask("admin", "POST", path, {}, if_match=tag)).status_code == 200
    assert (await api.ask("admin", "POST", path, {}, if_match=tag)).status_code == 412
    assert (await api.ask("admin", "POST", path, {}, if_match="W/x")).status_code == 412


@pytest.mark.parametrize("path", [KEYS, "/tenants", "/tenants/acme/users", "/changes"])
async def test_pages_hold_every_row_once(api: Api, path: str) -> None:
    for number in range(5):
        await api.issued(user=f"user-{number}")
    whole = (await api.ask("operator", "GET", path)).json()["data"]

    rows, after = [], ""
    while after is not None:
        page = (await api.ask("operator", "GET", f"{path}?limit=2&after={after}")).json()
        assert len(page["data"]) <= 2
        rows += page["data"]
        after = page["next"]

    assert rows == whole
    assert len(whole) >= 2


async def test_users_are_those_of_the_file_and_of_the_database(api: Api) -> None:
    await api.issued(user="rita")

    listed = (await api.ask("finance", "GET", "/tenants/acme/users")).json()["data"]

    assert [user["name"] for user in listed] == ["filip", "rita"]


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_name_is_a_problem_of_the_client_and_changes_nothing(
    api: Api, odd: str
) -> None:
    answers = [
        await api.ask("admin", "POST", KEYS, {"user": odd}),
        await api.ask("admin", "POST", KEYS, {"user": "rita", "models": [odd]}),
        await api.ask("admin", "POST", KEYS, {"user": "rita", "labels": {odd: "x"}}),
    ]

    assert [answer.status_code for answer in answers] == [422] * 3
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await api.ask("admin", "GET", KEYS)).json()["data"] == []


@pytest.mark.parametrize("odd", [*ODD[:4], "../../etc", "%2e%2e", "~0011223344556677' or 1=1"])
async def test_an_odd_name_in_a_path_or_a_cursor_finds_nothing(api: Api, odd: str) -> None:
    await api.issued()
    name = quote(odd, safe="")

    for path in (f"/keys/{name}", f"/tenants/{name}/keys", f"/tenants/{name}/users"):
        assert (await api.ask("token", "GET", path)).status_code == 404
    cursor = await api.ask("token", "GET", f"/tenants/acme/users?after={name}")
    assert cursor.status_code in (200, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"user": 7}',
        b'{"user": "rita", "tenant": "globex"}',
        b"\xff",
        b"[" * 60_000,
        b'{"user": "rita", "expires_at": "2027-06-01T00:00:00"}',
        b'{"user": "rita", "limits": [{"count": "cost", "limit": 1, "per": "day"}]}',
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
async def test_a_wrong_body_is_refused(api: Api, body: bytes) -> None:
    headers = {"authorization": "Bearer operator-token-of-the-tests-0123456789"}
    answer = await api.http.post(f"/api/v1{KEYS}", content=body, headers=headers)

    assert answer.status_code == 422


async def test_a_large_body_is_refused(api: Api) -> None:
    assert (await api.ask("admin", "POST", KEYS, {"user": "x" * 70_000})).status_code == 413


async def test_without_a_token_there_is_a_challenge_and_the_document_is_open(api: Api) -> None:
    refused = await api.http.get("/api/v1/tenants")

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert (await api.http.get("/api/v1/openapi.json")).json() == document()
    assert (await api.http.get("/api/v1/nothing")).json()["status"] == 404
    assert (await api.http.put("/api/v1/tenants")).json()["status"] == 405


async def test_a_new_operator_token_counts_at_once_and_the_old_one_no_more(api: Api) -> None:
    assert (await api.ask("token", "GET", "/tenants")).status_code == 200

    api.token_file.write_text("another-token-of-the-tests-0123456789")

    assert (await api.ask("token", "GET", "/tenants")).status_code == 401


def test_a_missing_token_is_written_for_its_owner_only_and_a_short_one_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    ensure_token(file)
    first = read_token(file)
    ensure_token(file)

    assert read_token(file) == first
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("short")
    with pytest.raises(OperatorError, match="at least 32 characters"):
        ensure_token(file)


def test_the_document_names_every_schema_that_it_uses() -> None:
    described = document()
    used = set(re.findall(r"#/components/schemas/(\w+)", str(described)))

    assert used == set(described["components"]["schemas"])
    assert NewKey.__name__ in used
