"""People who log in by a browser: at their issuer, or with the operator token."""

import pytest

from headgate.identity.change_log import Actor
from headgate.identity.sessions import IDLE_S, LONGEST_S
from headgate.identity.users import TokensOf
from tests.management.browser.conftest import ATTEMPT, SAME, SESSION, Browser, Site
from tests.management.conftest import OPERATOR_TOKEN

BY = Actor("okta:admin", "192.0.2.1")
ADMIN = "[{tenant: acme, groups: [ml], role: admin}]"


async def test_a_person_logs_in_at_their_issuer_and_calls_the_api(browser: Browser) -> None:
    assert await browser.status() == 401

    done = await browser.log_in("/console/keys?tenant=acme")

    assert (done.status_code, done.headers["location"]) == (303, "/console/keys?tenant=acme")
    tenants = (await browser.get("/api/v1/tenants")).json()["data"]
    assert [(one["name"], one["role"]) for one in tenants] == [("acme", "user")]
    assert "You are Alice Example." in (await browser.get("/login")).text


async def test_a_session_has_the_roles_of_a_token_and_its_changes_say_who(
    site: Site, browser: Browser
) -> None:
    site.policy = site.policy_with(ADMIN)
    await browser.log_in()

    made = await browser.post("/api/v1/tenants/acme/keys", json={"user": "rita"})

    assert made.status_code == 201, made.text
    assert (await browser.get("/api/v1/changes")).status_code == 403
    changes = (await browser.get("/api/v1/tenants/acme/changes")).json()["data"]
    assert [(one["actor"], one["origin"]) for one in changes] == [("corp:alice", "192.0.2.7")]


async def test_cookies_belong_to_this_origin_and_say_nothing(site: Site, browser: Browser) -> None:
    url = await browser.callback()
    done = await browser.get(url)

    put = {line.partition("=")[0]: line for line in done.headers.get_list("set-cookie")}
    assert put.keys() == {SESSION, ATTEMPT}
    for line in put.values():
        words = set(line.lower().split("; ")[1:])
        assert {"httponly", "secure", "samesite=lax", "path=/"} <= words
        assert not any(word.startswith("domain") for word in words)
    assert len(browser.session) == 43
    assert "max-age=0" in put[ATTEMPT].lower()


async def test_no_row_exists_before_a_login_and_none_holds_the_cookie(
    site: Site, browser: Browser
) -> None:
    async def rows() -> list[tuple[object, ...]]:
        async with site.desk.connect() as connection:
            cursor = await connection.execute("select * from headgate.browser_session")
            return await cursor.fetchall()

    url = await browser.callback()
    assert await rows() == []
    await browser.get(url)

    (row,) = await rows()
    assert browser.session not in str(row)
    assert browser.session.encode() not in row


async def test_a_session_ends_when_it_is_idle(site: Site, browser: Browser) -> None:
    await browser.log_in()
    for _ in range(3):
        site.rig.clock.advance(IDLE_S - 1)
        assert await browser.status() == 200
    site.rig.clock.advance(IDLE_S)

    assert await browser.status() == 401


async def test_a_session_ends_half_a_day_after_its_login(site: Site, browser: Browser) -> None:
    await browser.log_in()
    steps = int(LONGEST_S / (IDLE_S / 2))
    for _ in range(steps - 1):
        site.rig.clock.advance(IDLE_S / 2)
        assert await browser.status() == 200
    site.rig.clock.advance(IDLE_S / 2)

    assert await browser.status() == 401


@pytest.mark.parametrize(
    "change",
    ["[{tenant: lab, groups: [ml]}]", "[{tenant: acme, groups: [other]}]", ADMIN],
    ids=["another tenant", "another group", "another role"],
)
async def test_a_change_of_the_issuers_entry_ends_its_sessions(
    site: Site, browser: Browser, change: str
) -> None:
    await browser.log_in()
    assert await browser.status() == 200

    site.policy = site.policy_with(change)

    assert await browser.status() == 401


async def test_a_reload_of_the_same_policy_ends_no_session(site: Site, browser: Browser) -> None:
    await browser.log_in()
    site.policy = site.policy_with()

    assert await browser.status() == 200


async def test_a_blocked_user_loses_the_tenant_in_a_session(site: Site, browser: Browser) -> None:
    await browser.log_in()

    await site.desk.users.block("acme", "corp:alice", BY)

    assert (await browser.get("/api/v1/tenants/acme/keys")).status_code == 403


@pytest.mark.parametrize(
    "tokens",
    [TokensOf(issuer="corp", user="corp:alice"), TokensOf(issuer="corp", token_id="t-1")],
    ids=["of the user", "of the login"],
)
async def test_revoked_tokens_end_the_session(
    site: Site, browser: Browser, tokens: TokensOf
) -> None:
    await browser.log_in()

    await site.desk.users.revoke(tokens, BY)

    assert await browser.status() == 401


async def test_the_operator_token_opens_a_session_until_it_is_replaced(
    site: Site, browser: Browser
) -> None:
    done = await browser.post("/login?to=/console/", data={"token": OPERATOR_TOKEN})

    assert (done.status_code, done.headers["location"]) == (303, "/console/")
    assert (await browser.get("/api/v1/changes")).status_code == 200
    assert OPERATOR_TOKEN not in str(browser.http.cookies)
    site.token_file.write_text("another-operator-token-0123456789abcdef")
    assert await browser.status() == 401


async def test_wrong_operator_tokens_are_limited_by_address(browser: Browser) -> None:
    answers = [(await browser.post("/login", data={"token": "x" * 40})) for _ in range(101)]

    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429


async def test_an_issuer_that_is_away_gets_a_page_and_not_a_hang(
    site: Site, browser: Browser
) -> None:
    site.issuer.named = "https://elsewhere.example.org"

    answer = await browser.get("/login/corp")

    assert answer.status_code == 503
    assert "does not answer as it should" in answer.text


async def test_a_person_without_a_tenant_gets_the_reason_and_no_session(
    site: Site, browser: Browser
) -> None:
    site.issuer.changed = {"groups": ["nobody"]}

    answer = await browser.log_in()

    assert answer.status_code == 401
    assert "issuers.corp.tenants" in answer.text
    assert SESSION not in browser.http.cookies


async def test_pages_allow_no_frame_and_no_script(browser: Browser) -> None:
    page = await browser.get("/login?to=/console/")

    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text
    assert SAME["origin"] not in page.text
