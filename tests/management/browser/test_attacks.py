"""Attacks on people who log in by a browser. Each is refused, and leaves no session."""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from headgate.core.errors import OperatorError
from headgate.management.browser.attempt import Attempt, attempt_of, landing_of
from headgate.management.browser.origin import own_origin
from headgate.management.problems import ProblemError
from tests.management.browser.conftest import ATTEMPT, OWN, SAME, SESSION, Browser, Site
from tests.management.conftest import OPERATOR_TOKEN

FOREIGN = {
    "no header": {},
    "another site": {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    "a neighbour": {"sec-fetch-site": "same-site", "origin": "https://x.test"},
    "an address bar": {"sec-fetch-site": "none"},
    "an old browser, another origin": {"origin": "https://evil.example"},
    "an opaque origin": {"origin": "null"},
    "the origin that the host names": {"origin": "https://evil.example", "host": "evil.example"},
    "another port": {"origin": OWN + ":8443"},
    "no tls": {"origin": "http://api.test"},
    "two answers": {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
async def test_a_change_from_another_site_is_refused(
    site: Site, browser: Browser, headers: dict[str, str]
) -> None:
    await browser.post("/login", data={"token": OPERATOR_TOKEN})
    path = "/api/v1/tenants/acme/users/rita/block"

    assert (await browser.http.post(path, headers=headers)).status_code == 403
    assert (await browser.http.post("/logout", headers=headers)).status_code == 403
    form = {"token": OPERATOR_TOKEN}
    assert (await browser.http.post("/login", headers=headers, data=form)).status_code == 403
    assert (await browser.http.post(path, headers=SAME)).status_code == 200


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": OWN}], ids=str)
async def test_either_header_of_our_own_page_is_enough(
    browser: Browser, headers: dict[str, str]
) -> None:
    await browser.post("/login", data={"token": OPERATOR_TOKEN})
    path = "/api/v1/tenants/acme/users/rita/block"

    assert (await browser.http.post(path, headers=headers)).status_code == 200


async def test_a_token_in_a_header_needs_no_origin(browser: Browser) -> None:
    headers = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
    path = "/api/v1/tenants/acme/users/rita/block"

    assert (await browser.http.post(path, headers=headers)).status_code == 200


async def test_a_bad_token_is_not_saved_by_a_good_cookie(browser: Browser) -> None:
    await browser.log_in()
    headers = {"authorization": "Bearer nothing"}

    assert (await browser.http.get("/api/v1/tenants", headers=headers)).status_code == 401


async def test_a_session_after_log_out_is_gone_wherever_its_cookie_went(
    site: Site, browser: Browser
) -> None:
    await browser.log_in()
    stolen = {SESSION: browser.session}

    out = await browser.post("/logout")

    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert SESSION not in browser.http.cookies
    async with site.browser() as thief:
        thief.http.cookies.update(stolen)
        assert await thief.status() == 401


async def test_a_cookie_set_before_the_login_opens_nothing_after_it(
    site: Site, browser: Browser
) -> None:
    """Fixation: neither an invented session, nor one of the attacker, nor the attempt's secret."""
    async with site.browser() as attacker:
        await attacker.post("/login", data={"token": OPERATOR_TOKEN})
        planted = attacker.session
        browser.http.cookies.set(SESSION, planted, domain="api.test")
        url = await browser.callback()
        attempt = browser.http.cookies[ATTEMPT]
        await browser.get(url)

        assert await attacker.status() == 401
        for value in (planted, attempt, attempt.partition(".")[0]):
            attacker.http.cookies.clear()
            attacker.http.cookies.set(SESSION, value, domain="api.test")
            assert await attacker.status() == 401
    assert await browser.status() == 200


async def test_a_callback_counts_once(site: Site, browser: Browser) -> None:
    url = await browser.callback()
    attempt = browser.http.cookies[ATTEMPT]
    assert (await browser.get(url)).status_code == 303
    browser.http.cookies.delete(SESSION)

    assert (await browser.get(url)).status_code == 401
    browser.http.cookies.set(ATTEMPT, attempt, domain="api.test")
    again = await browser.get(url)
    assert again.status_code == 503  # the issuer takes no code twice
    assert SESSION not in browser.http.cookies


async def test_a_callback_in_another_browser_opens_nothing(site: Site, browser: Browser) -> None:
    """Login CSRF: an attacker sends their own answer to somebody else."""
    url = await browser.callback()
    async with site.browser() as victim:
        assert (await victim.get(url)).status_code == 401
        await victim.callback()
        assert (await victim.get(url)).status_code == 401
        assert SESSION not in victim.http.cookies


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", ""), ("state", "x"), ("state", "é"), ("iss", "https://evil.example")],
)
async def test_a_changed_answer_of_the_issuer_is_refused(
    browser: Browser, name: str, value: str
) -> None:
    parts = urlsplit(await browser.callback())
    query = {**dict(parse_qsl(parts.query)), name: value}

    answer = await browser.get(f"{parts.path}?{urlencode(query)}")

    assert answer.status_code == 401
    assert SESSION not in browser.http.cookies


async def test_the_answer_of_one_issuer_does_not_fit_another(site: Site, browser: Browser) -> None:
    """Mix-up (RFC 9700, 4.4): the state names its issuer."""
    attempt = Attempt("s" * 43, "/login")

    assert attempt.state("corp") != attempt.state("other")
    assert attempt.nonce("corp") != attempt.nonce("other")
    assert len({attempt.state("corp"), attempt.nonce("corp"), attempt.verifier("corp")}) == 3


async def test_an_id_token_of_another_login_is_refused(site: Site, browser: Browser) -> None:
    site.issuer.nonce = "of another login"

    answer = await browser.log_in()

    assert answer.status_code == 401
    assert "answers another login" in answer.text


async def test_what_an_issuer_says_cannot_write_into_the_page(browser: Browser) -> None:
    parts = urlsplit(await browser.callback())
    state = dict(parse_qsl(parts.query))["state"]

    answer = await browser.get(f"{parts.path}?state={state}&error={quote('<b>x</b>')}")

    assert answer.status_code == 403
    assert "<b>" not in answer.text


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/console//evil.example",
        "/consoleevil",
        "/console/\r\nset-cookie: a=b",
        "/console/\t",
        "javascript:alert(1)",
        "/api/v1/keys",
        "/console/" + "x" * 600,
        "/console/é",
    ],
)
async def test_nobody_is_led_to_another_site(browser: Browser, to: str) -> None:
    assert landing_of(to) == "/login"
    assert (await browser.log_in(to)).headers["location"] == "/login"


@pytest.mark.parametrize(
    "to", ["/console", "/console/", "/console/keys?tenant=a&after=~0", "/login"]
)
def test_pages_of_the_console_are_landings(to: str) -> None:
    assert landing_of(to) == to
    attempt = Attempt("a" * 43, to)
    assert attempt_of(attempt.cookie()) == attempt


@pytest.mark.parametrize("cookie", ["", ".", "a", "a" * 43 + ".é", "b" * 44 + ".", "a" * 42 + "é."])
def test_a_cookie_that_is_no_attempt_is_none(cookie: str) -> None:
    assert attempt_of(cookie) is None


@pytest.mark.parametrize("cookie", ["x", "y" * 43, "é" * 43, "z" * 5000, "'; drop table--"])
async def test_an_invented_session_opens_nothing(browser: Browser, cookie: str) -> None:
    headers = {"cookie": f"{SESSION}={cookie}".encode()}

    answer = await browser.http.get("/api/v1/tenants", headers=headers)

    assert answer.status_code == 401


async def test_invented_sessions_are_limited_by_address(browser: Browser) -> None:
    browser.http.cookies.set(SESSION, "y" * 43, domain="api.test")

    assert [await browser.status() for _ in range(101)][-1] == 429


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://API.example.org/", "https://api.example.org"),
        ("https://api.example.org:443", "https://api.example.org"),
        ("https://api.example.org:8443", "https://api.example.org:8443"),
        ("http://127.0.0.1:8082", "http://127.0.0.1:8082"),
        ("http://[::1]:8082", "http://[::1]:8082"),
        ("http://127.0.0.2:8082", "http://127.0.0.2:8082"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(url: str, text: str) -> None:
    assert own_origin(url).text == text


@pytest.mark.parametrize(
    "url",
    ["api.example.org", "http://api.example.org", "https://", "https://a/b", "https://u@a", "ftp://a",
     "https://a:x", "https://a?b", ""],
)  # fmt: skip
def test_an_address_that_is_no_origin_is_a_mistake_of_the_operator(url: str) -> None:
    with pytest.raises(OperatorError, match="--api-url"):
        own_origin(url)


def test_reading_needs_no_origin() -> None:
    own_origin(OWN).check("GET", {})
    with pytest.raises(ProblemError):
        own_origin(OWN).check("DELETE", {})
