"""Budgets, models and health: what the store, the pods and the metrics say now."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.console.fullness import counters_asked, counters_of, query_of
from headgate.console.health import Database, Seen, parts_of, worst
from headgate.console.pods import pods_at
from headgate.core.policy import Caller
from headgate.core.samples import Samples, parse_samples
from ratelimit.store.hits import Hit
from ratelimit.store.protocol import StoreAwayError
from tests.console.conftest import CONSOLE_POLICY, NOW_S, Console
from tests.management.conftest import ISSUER

ACME = CONSOLE_POLICY.tenants["acme"]
BOB = Caller("acme", "bob", "laptop")


async def used(console: Console, share: float) -> None:
    """Uses this share of every limit with a window of acme."""
    store, now_s = console.memory, float(NOW_S)
    asked = counters_asked(ACME, [BOB], now_s)
    hits = [
        Hit(
            key=key,
            amount=int(claim.limit.limit * share),
            limit=None,
            expires_at_s=claim.window.end_s,
        )
        for key, (claim, _) in asked.items()
        if claim.window is not None
    ]
    await store.count("acme", hits, now_s)


@pytest.mark.parametrize(
    ("share", "says"),
    [(0.5, "No budget is spent."), (0.9, "above 80&nbsp;%"), (1.3, "One budget is spent")],
)
async def test_a_budget_says_how_full_it_is(console: Console, share: float, says: str) -> None:
    await used(console, share)
    text = (await console.get("finance", "/budgets")).text
    overview = (await console.get("finance", "")).text

    assert ("near its end or beyond" in overview) == (share >= 0.8)
    assert says in " ".join(text.split())
    assert "80 %, forecast" in text
    assert f'<span class="pc{"" if share < 0.8 else " warn" if share < 1 else " bad"}">' in text
    assert "16 d 16 h" in text  # to the end of January in UTC


async def test_a_user_sees_the_counters_of_nobody_else(console: Console) -> None:
    await used(console, 0.5)
    mine = (await console.get("user", "/budgets")).text
    all_of_them = (await console.get("finance", "/budgets")).text

    assert "okta:user" in mine
    assert ">bob<" not in mine
    assert ">bob<" in all_of_them
    assert "globex" not in all_of_them
    assert (await console.get("finance", "/budgets?tenant=globex")).status_code == 403


async def test_budgets_say_that_the_store_is_away(console: Console) -> None:
    async def away(_query: object) -> dict[str, int]:
        raise StoreAwayError("Redis does not answer")

    console.set_peek(away)
    answer = await console.get("operator", "/budgets")

    assert answer.status_code == 200
    assert 'role="alert"' in answer.text


@given(st.lists(st.integers(0, 2**53), min_size=10, max_size=10))
def test_every_counter_has_a_place_from_full_to_empty(counts: list[int]) -> None:
    asked = counters_asked(ACME, [BOB], NOW_S)
    query = query_of("acme", asked, NOW_S)
    found = counters_of("acme", asked, dict(zip(asked, counts, strict=False)), NOW_S)

    assert {*query.counters, *query.leases} == set(asked)
    assert [one.percent for one in found] == sorted((x.percent for x in found), reverse=True)
    assert all(
        one.ends_at is None or one.ends_at > datetime.fromtimestamp(NOW_S, UTC) for one in found
    )


async def test_a_pod_that_does_not_answer_says_so(console: Console) -> None:
    text = (await console.get("user", "/models")).text

    assert "127.0.0.1:9" in text
    assert "does not answer yet" in text
    assert "not answer as vLLM" in text


async def test_a_name_without_an_address_is_a_pod_with_a_problem() -> None:
    found = await pods_at(["http://no-such-host.invalid:8000"], None)

    [[pod]] = found.values()
    assert pod.problem == "its name has no address"


async def test_a_model_of_no_tenant_of_the_reader_is_not_shown(console: Console) -> None:
    answer = await console.get("stranger", "/models")

    assert answer.status_code == 403


HEALTHY = """\
headgate_store_available 1
headgate_access_log_streams 1
headgate_keys_polled_timestamp_seconds 1799999999
headgate_ledger_current_timestamp_seconds 1799999999
headgate_issuer_keys_loaded_timestamp_seconds{issuer="okta"} 1799999990
headgate_policy_loaded_timestamp_seconds 1799990000
"""


def seen(metrics: str, **changes: object) -> Seen:
    whole = Seen(
        samples=parse_samples(metrics),
        envoy=Samples({}),
        database=Database("18.1", 10**7, 0.002),
        issuers=[ISSUER],
        now_s=float(NOW_S),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_a_healthy_program_has_no_trouble() -> None:
    assert worst(parts_of(seen(HEALTHY))) in ("ok", "off")
    assert all(part.kind in ("ok", "off") for part in parts_of(seen(HEALTHY)))


TROUBLE = {
    "Store": ("headgate_store_available 1", "headgate_store_available 0", "bad"),
    "PostgreSQL": ("keys_polled_timestamp_seconds 17", "keys_polled_timestamp_seconds 16", "warn"),
    "Ledger": (
        "ledger_current_timestamp_seconds 17",
        "ledger_current_timestamp_seconds 16",
        "warn",
    ),
    "Issuer okta": ('{issuer="okta"} 17', '{issuer="okta"} 16', "bad"),
    "Policy": ("headgate_policy_l", "headgate_policy_refused 1\nheadgate_policy_l", "bad"),
    "Services": ("headgate_store", "headgate_worker_ends_total 2\nheadgate_store", "warn"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_a_part_in_trouble_is_the_only_one(name: str) -> None:
    healthy, sick, kind = TROUBLE[name]
    assert healthy in HEALTHY
    parts = {part.name: part for part in parts_of(seen(HEALTHY.replace(healthy, sick, 1)))}

    assert parts[name].kind == kind
    assert {part.name for part in parts.values() if part.kind in ("bad", "warn")} == {name}


def test_lost_records_an_old_certificate_and_silence_are_trouble() -> None:
    lost = "headgate_ledger_lost_records_total 3\n"
    ended = f"headgate_certificate_expires_timestamp_seconds {NOW_S - 60}\n"
    parts = parts_of(seen(HEALTHY + lost + ended, envoy="silent", database="away"))

    assert {one.name for one in parts if one.kind == "bad"} == {
        "Envoy",
        "PostgreSQL",
        "Ledger",
        "Certificate",
    }


async def test_health_is_for_operators_and_needs_no_part(console: Console) -> None:
    assert (await console.get("admin", "/health")).status_code == 403
    page = await console.get("operator", "/health")

    assert page.status_code == 200
    assert "PostgreSQL" in page.text


def test_a_program_that_has_counted_nothing_has_a_page() -> None:
    assert parts_of(seen(""))
