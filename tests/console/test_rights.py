"""Each role sees the pages and the rows that are its own, whatever address it types."""

import re

import pytest

from headgate.console.routes import PAGES
from headgate.core.issuers import Role
from tests.console.conftest import Console

ROLES = {"user": Role.USER, "finance": Role.FINANCE, "admin": Role.ADMIN, "operator": Role.OPERATOR}
PLAIN = [page for page in PAGES if page.method == "GET" and "{" not in page.path]
OF_ONE = [page for page in PAGES if "{" in page.path]


def _path(path: str, key: str) -> str:
    named = path.replace("{key}", key).replace("{month}", "2026-12")
    return named.replace("{request_id:path}", "of-bob")


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: page.path)
async def test_a_page_opens_from_its_role_on(console: Console, page: object) -> None:
    assert page in PLAIN
    ranks = list(Role)
    for who, role in ROLES.items():
        answer = await console.get(who, page.path)  # type: ignore[attr-defined]
        has_right = ranks.index(role) >= ranks.index(page.least)  # type: ignore[attr-defined]
        assert answer.status_code == (200 if has_right else 403), (who, answer.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.method} {page.path}")
async def test_nobody_sees_a_page_without_login(console: Console, page: object) -> None:
    path = _path(page.path, await console.issued())  # type: ignore[attr-defined]
    answer = await console.ask("nobody", page.method, path)  # type: ignore[attr-defined]

    if page.method == "GET":  # type: ignore[attr-defined]
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?to=%2Fconsole")
    else:
        assert answer.status_code == 401
    assert "of-bob" not in answer.text


@pytest.mark.parametrize("page", OF_ONE, ids=lambda page: f"{page.method} {page.path}")
@pytest.mark.parametrize("who", ["foreign", "stranger"])
async def test_what_belongs_to_another_tenant_looks_as_if_it_did_not_exist(
    console: Console, page: object, who: str
) -> None:
    key = await console.issued(user="bob")
    path = _path(page.path, key)  # type: ignore[attr-defined]

    answer = await console.ask(who, page.method, path, data={"overlap": "0"})  # type: ignore[attr-defined]

    assert answer.status_code in (403, 404)
    assert "bob" not in answer.text.replace(f"/console{path}", "").replace("%2Fof-bob", "")
    assert (await console.store.get(key)).revoked_s is None
    assert (await console.store.get(key)).version == 1


async def test_every_link_on_every_page_respects_the_right_of_who_follows_it(
    console: Console,
) -> None:
    await console.issued(user="bob")
    await console.issued(tenant="globex", user="zelda9")
    found = {"/console"}
    for page in PLAIN:
        text = (await console.get("operator", page.path)).text
        found |= {one.replace("&amp;", "&") for one in re.findall(r'href="(/console[^"]*)"', text)}
    followed = [one for one in sorted(found) if "/static/" not in one]
    assert len(followed) > 25
    for link in followed:
        answer = await console.get("user", link.removeprefix("/console"))
        assert answer.status_code in (200, 403, 404, 409), link
        text = re.sub(r'value="[^"]*"|href="[^"]*"|<i>.*?</span>|Drop <b>.*?</b>', "", answer.text)
        assert "of-bob" not in text, link
        assert "zelda9" not in text, link


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        ("user", {"of-user"}),
        ("finance", {"of-user", "of-bob", "refused", "odd", "formula"}),
        ("foreign", {"of-globex"}),
        ("stranger", set()),
        ("operator", {"of-user", "of-bob", "refused", "odd", "formula", "of-globex"}),
    ],
)
async def test_the_search_finds_the_rows_of_the_scope_only(
    console: Console, who: str, seen: set[str]
) -> None:
    answer = await console.get(who, "/requests?format=csv")
    if who == "stranger":
        assert answer.status_code == 403
    else:
        lines = answer.text.splitlines()[1:]
        assert {line.split(",")[2] for line in lines} == seen
    for request_id in ("of-user", "of-bob", "of-globex"):
        status = (await console.get(who, f"/requests/{request_id}")).status_code
        assert (status == 200) == (request_id in seen)


async def test_sums_are_of_the_scope_only(console: Console) -> None:
    text = (await console.get("user", "/explore?by=user&since=30d&format=csv")).text

    assert [line.split(",")[0] for line in text.splitlines()] == ["user", "okta:user"]


async def test_a_change_from_another_site_is_refused(console: Console) -> None:
    key = await console.issued()
    sent = {"cookies": console.cookies, "headers": {"sec-fetch-site": "cross-site"}}

    answer = await console.ask("nobody", "POST", f"/keys/{key}/revoke", **sent)

    assert answer.status_code == 403
    assert (await console.store.get(key)).revoked_s is None


async def test_a_session_of_a_browser_opens_pages_and_sends_forms(console: Console) -> None:
    key = await console.issued()
    sent = {"cookies": console.cookies, "headers": {"sec-fetch-site": "same-origin"}}

    page = await console.ask("nobody", "GET", "", **dict(sent))
    done = await console.ask("nobody", "POST", f"/keys/{key}/revoke", **dict(sent))

    assert (page.status_code, done.status_code) == (200, 303)
    assert (await console.store.get(key)).revoked_s is not None
