"""The pages: guarded headers, no script, escaped words, filters, forms, sums and exports."""

import csv
import io
import re
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.console.filters import FilterError, Reading, conditions_of, filters_of
from headgate.console.frame import HEADERS
from headgate.console.routes import PAGES
from headgate.ledger.cells import as_csv
from headgate.ledger.conditions import FIELDS
from headgate.ledger.sums import GROUPS
from tests.console.conftest import MARKUP, Console
from tests.ledger.builders import record

BERLIN = ZoneInfo("Europe/Berlin")
READING = Reading(datetime(2026, 10, 25, 12, tzinfo=UTC), BERLIN, "cost_center")
ALL = [page.path for page in PAGES if page.method == "GET" and "{" not in page.path]
STRANGERS = ["/requests", "/requests/odd", "/requests/of-bob", "/explore?by=user"]
MEANINGLESS = ["colour:red", "status:ok", "ip:home", "since:soon", "slower:x", "user:"]
ALL += ["/requests/of-bob", "/requests/odd", "/requests/none", "/nothing", "/requests?f=user:zoe"]


class _Reader(HTMLParser):
    """Collects what a browser would run, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        values = dict(attrs)
        is_ours = tag == "script" and values.get("src", "").startswith("/console/static/")  # type: ignore[union-attr]
        if (tag in ("script", "style", "iframe", "object") and not is_ours) or "style" in names:
            self.scripts.append(tag)
        self.scripts += [name for name in names if name.startswith("on")]
        wanted = ("src", "action") if tag != "a" else ("href",)
        self.fetched += [
            str(v) for name, v in attrs if name in wanted or (tag == "link" and name == "href")
        ]


@pytest.mark.parametrize("path", ALL)
async def test_a_page_runs_no_script_and_fetches_from_us(console: Console, path: str) -> None:
    answer = await console.get("operator", path)
    read = _Reader(answer.text)

    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert read.scripts == []
    assert [url for url in read.fetched if not url.startswith(("/", "#"))] == []


@pytest.mark.parametrize(
    "path", ["/requests", "/requests/odd", "/requests/of-bob", "/explore?by=user"]
)
async def test_words_of_strangers_are_escaped(console: Console, path: str) -> None:
    text = (await console.get("operator", path)).text

    assert "&lt;script&gt;" in text
    assert MARKUP not in text


async def test_a_search_shows_what_was_typed_as_text_only(console: Console) -> None:
    text = (await console.get("operator", f'/requests?q=user:"{MARKUP}"&f=model:{MARKUP}')).text

    assert MARKUP not in text


async def test_a_spreadsheet_runs_no_formula_of_a_user(console: Console) -> None:
    for path in ("/requests?format=csv", "/explore?by=user&format=csv&since=30d"):
        text = (await console.get("operator", path)).text
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert "'=cmd|'/c calc'!A1" in cells
        assert [cell for cell in cells if cell.startswith("=")] == []


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_every_text_comes_back_from_a_csv_without_a_formula(cells: list[str]) -> None:
    [_, row] = csv.reader(io.StringIO(as_csv(["x"] * len(cells), [cells]), newline=""))

    assert [cell.removeprefix("'") for cell in row] == [cell.removeprefix("'") for cell in cells]
    assert not any(cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t")) for cell in row)


async def test_a_request_says_which_limit_refused_it(console: Console) -> None:
    text = (await console.get("finance", "/requests/refused")).text

    assert "Refused by “5 tokens per day”" in text
    assert "The limit is 5 tokens: 4 were in use, and the request needed 2." in text
    assert "no pod saw it" in text


async def test_paging_shows_each_request_once(console: Console) -> None:
    times = [f"2027-01-10T0{n % 3}:00:00Z" for n in range(120)]
    await console.add(
        *(record(n, request_id=f"page-{n:03}", time=at, duration_s=1) for n, at in enumerate(times))
    )
    path, found = "/requests?f=until:2027-01-12", []
    while path:
        text = (await console.get("operator", path)).text
        found += re.findall(r'class="mono" href="/console/requests/(page-\d+)"', text)
        older = re.search(r'href="/console(/requests[^"]*)">Older', text)
        path = unescape(older[1]) if older else ""

    assert len(found) == 120
    assert len(set(found)) == 120


@pytest.mark.parametrize("group", GROUPS)
async def test_the_groups_of_a_sum_add_up_to_the_whole(console: Console, group: str) -> None:
    text = (await console.get("operator", f"/explore?by={group}&since=30d&format=csv")).text
    rows = list(csv.DictReader(io.StringIO(text)))

    assert sum(int(row["requests"]) for row in rows) == 6
    assert sum(int(row["cost_nanos"]) for row in rows) == 5 * 12_345


FILTERS = {
    "since:2027-01-15": 4,
    "until:2027-01-15": 2,
    "tenant:acme": 5,
    "user:bob": 2,
    "key:laptop": 6,
    "ip:10.0.0.7": 6,
    "model:tiny": 6,
    "status:429": 1,
    'limit:"5 tokens per day"': 1,
    "id:of-bob": 1,
    "slower:1": 5,
    "dearer:0.00001": 5,
    "pod:10.1.0.1:8000": 6,
    "label:*": 0,
    "billed:yes": 6,
    "user_id:00000000-0000-0000-0000-000000000000": 0,
    "result:refused": 1,
}


async def test_every_filter_finds_its_rows_and_the_excluded_ones_are_the_rest(
    console: Console,
) -> None:
    assert {text.partition(":")[0] for text in FILTERS} == set(FIELDS)
    for text, number in FILTERS.items():
        for sign, expected in (("", number), ("-", 6 - number)):
            answer = await console.http.get(
                "/console/requests",
                params={"q": sign + text, "format": "csv"},
                headers={"authorization": "Bearer operator-token-of-the-tests-0123456789"},
            )
            assert len(answer.text.splitlines()) - 1 == expected, sign + text


@pytest.mark.parametrize(
    "text", ["colour:red", "status:ok", "ip:home", "since:soon", "slower:x", "user:"]
)
async def test_a_filter_without_meaning_says_what_is_allowed(console: Console, text: str) -> None:
    answer = await console.get("operator", f"/requests?q={text}")

    assert answer.status_code == 200
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("today", datetime(2026, 10, 24, 22, tzinfo=UTC)),
        ("yesterday", datetime(2026, 10, 23, 22, tzinfo=UTC)),
        ("2h", datetime(2026, 10, 25, 10, tzinfo=UTC)),
        ("2026-10-26", datetime(2026, 10, 25, 23, tzinfo=UTC)),
    ],
)
def test_days_begin_at_the_readers_midnight_when_clocks_change_too(
    text: str, expected: datetime
) -> None:
    [condition] = conditions_of(filters_of([f"since:{text}"]), READING)

    assert condition.value == expected


@given(st.text(max_size=50))
def test_no_search_crashes(text: str) -> None:
    try:
        conditions_of(filters_of([], text), READING)
    except FilterError:
        return


async def test_a_key_is_issued_once_rotated_and_revoked(console: Console) -> None:
    form = {"tenant": "acme", "user": "rita", "name": MARKUP, "models": "tiny", "tokens": "5,000"}
    issued = await console.ask("admin", "POST", "/keys/new", data=form)
    [secret] = re.findall(r">(sk-hg-[^<]+)<", issued.text)
    [key] = set(re.findall(r"~[0-9a-f]{16}", issued.text))
    listed = (await console.get("admin", "/keys?tenant=acme")).text
    rotated = await console.ask("admin", "POST", f"/keys/{key}/rotate", data={"overlap": "0"})
    revoked = await console.ask("admin", "POST", f"/keys/{key}/revoke")

    assert secret not in listed
    assert "5,000 tokens per day" in listed
    assert MARKUP not in listed + issued.text
    assert re.findall(r">(sk-hg-[^<]+)<", rotated.text) not in ([], [secret])
    assert revoked.headers["location"] == "/console/keys?tenant=acme&done=revoked"
    assert (await console.store.get(key)).revoked_s is not None
    assert (await console.get("admin", f"/keys/{key}/revoke")).status_code == 409
    changes = (await console.get("operator", "/changes")).text
    assert changes.index("key.revoke") < changes.index("key.rotate") < changes.index("key.issue")


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"user": "a b"}, "user"),
        ({"user": "rita", "models": "unknown"}, "models"),
        ({"user": "rita", "tokens": "many"}, "tokens"),
        ({"user": "rita", "expires": "soon"}, "expires_at"),
        ({"user": "rita", "expires": "9999-12-31"}, "expires_at"),
    ],
)
async def test_a_form_with_a_wrong_value_comes_back_with_what_was_written(
    console: Console, form: dict[str, str], field: str
) -> None:
    answer = await console.ask("admin", "POST", "/keys/new", data={"tenant": "acme", **form})

    assert answer.status_code == 422
    assert f"<b>{field}</b>" in answer.text
    assert f'value="{form["user"]}"' in answer.text


async def test_an_admin_issues_no_key_of_another_tenant(console: Console) -> None:
    form = {"tenant": "globex", "user": "rita"}

    assert (await console.ask("admin", "POST", "/keys/new", data=form)).status_code == 403


async def test_theme_and_zone_are_kept_and_lead_to_no_other_site(console: Console) -> None:
    form = {"theme": "dark", "zone": "Asia/Tokyo", "to": "https://evil.example"}
    answer = await console.ask("user", "POST", "/preferences", data=form)
    cookies = {
        one.split("=")[0]: one.split("=")[1].split(";")[0]
        for one in answer.headers.get_list("set-cookie")
    }
    page = await console.ask("user", "GET", "/requests", cookies=cookies)

    assert answer.headers["location"] == "/console"
    assert 'data-theme="dark"' in page.text
    assert "16:00:01.250" in page.text
    wrong = await console.ask("user", "POST", "/preferences", data={"zone": "Mars/Base"})
    assert wrong.status_code == 422


async def test_an_empty_search_names_the_filter_at_fault(console: Console) -> None:
    text = (await console.get("operator", "/requests?f=tenant:acme&f=user:zoe")).text

    assert "No request matches all 2 filters" in text
    assert "Drop <b>user:zoe</b>" in text


@pytest.mark.parametrize("path", ["/requests?before=x", "/changes?before=x", "/explore?by=x"])
async def test_an_address_that_was_edited_gets_an_error_page(console: Console, path: str) -> None:
    answer = await console.get("operator", path)

    assert answer.status_code in (400, 422)
    assert "<nav" in answer.text


async def test_the_style_sheet_and_fonts_are_served_from_here(console: Console) -> None:
    css = await console.http.get("/console/static/console.css")
    fonts = re.findall(r"url\((fonts[^)]+)\)", css.text)

    assert len(fonts) == 3
    for font in fonts:
        answer = await console.http.get(f"/console/static/{font}")
        assert answer.content.startswith(b"wOF2")
    assert "http" not in css.text
