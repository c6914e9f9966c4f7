"""A repricing prices each record by the code that priced it first, and changes nothing."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.answer_cache import HIT_DETAILS
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import connected
from headgate.ledger.months import drop_months
from headgate.ledger.repricing.pricing import Repricer, nanos_of
from headgate.ledger.repricing.reading import read_repriced
from headgate.ledger.repricing.values import BilledRecord, RepricedLine, RepricingError
from headgate.policy.load import parse_policy
from headgate.program.postgres.folder import APPLICATION, OWNER
from tests.ledger.builders import record, rows
from tests.ledger.showback.months import (
    AFTER,
    POLICY_FILE,
    close,
    policy,
    put,
    records,
    statement,
    written,
)
from tests.postgres_server import PostgresServer

MENDED = POLICY_FILE.read_text().replace(
    "input: 2.00, cached_input: 0.50", "input: 1.50, cached_input: 0.25"
)
BEFORE, FROM = datetime(2026, 10, 10, tzinfo=UTC), datetime(2026, 10, 16, tzinfo=UTC)
MISPRICED = """
select coalesce(sum(prompt_tokens - coalesce(cached_tokens, 0)) filter (where not hit), 0)::bigint,
  coalesce(sum(case when hit then tokens else cached_tokens end), 0)::bigint
from (
  select *, prompt_tokens + completion_tokens as tokens,
    coalesce(details = 'headgate_cache_hit', false) as hit
  from headgate.usage_record
) as record
where model = 'large' and source in ('usage', 'partial', 'estimate')
  and ended_at >= '2026-10-16T00:00:00Z' and ended_at < '2026-10-31T23:00:00Z'
"""
"""The tokens, uncached and cached, to which the mended prices apply. Those of a hit are cached."""
BY = ("--actor", "finance")

counts = st.integers(0, 10**7)
billed = st.builds(
    BilledRecord,
    tenant=st.sampled_from(("acme", "globex")),
    person=st.sampled_from(("1", "2")),
    model=st.sampled_from(("large", "small", "tuned")),
    base=st.just("large"),
    version=st.sampled_from((None, "blue")),
    ended_at=st.sampled_from((BEFORE, FROM, AFTER)),
    source=st.sampled_from(("usage", "partial", "estimate")),
    is_from_cache=st.booleans(),
    prompt=counts,
    cached=counts,
    completion=counts,
    reasoning=counts,
    audio_seconds=st.none() | counts,
    charged_version=st.just(""),
    charged_nanos=st.just(0),
)


def charged(one: BilledRecord, compiled: CompiledPolicy) -> BilledRecord:
    """The record as it is charged by a policy."""
    price = compiled.models[one.model].prices.at(one.ended_at.timestamp(), one.version)
    nanos = nanos_of(one, price)
    return replace(one, charged_version=price.version or "", charged_nanos=nanos)


def repriced(
    found: list[BilledRecord], compiled: CompiledPolicy, registered: tuple[str, ...] = ()
) -> tuple[RepricedLine, ...]:
    repricer = Repricer(compiled, registered)
    for one in found:
        repricer.add(one)
    return repricer.lines()


@given(st.lists(billed, max_size=30))
def test_the_same_price_book_gives_no_difference(found: list[BilledRecord]) -> None:
    lines = repriced([charged(one, policy()) for one in found], policy())

    assert [line.difference_nanos for line in lines] == [0] * len(lines)
    assert all(line.charged_version == line.new_version for line in lines)
    assert sum(line.requests for line in lines) == len(found)


@given(st.lists(billed, max_size=30), st.randoms())
def test_the_lines_add_up_to_the_records_in_any_order(
    found: list[BilledRecord], chance: Any
) -> None:
    mended = policy_of(MENDED)
    shuffled = chance.sample(found, len(found))
    lines = repriced([charged(one, policy()) for one in found], mended)

    assert sum(line.new_nanos for line in lines) == sum(
        charged(one, mended).charged_nanos for one in found
    )
    assert repriced([charged(one, policy()) for one in shuffled], mended) == lines


def test_a_registered_adapter_costs_as_its_base_and_an_unknown_model_is_refused() -> None:
    one = BilledRecord(
        tenant="acme",
        person="1",
        model="~support",
        base="large",
        version=None,
        ended_at=BEFORE,
        source="usage",
        is_from_cache=False,
        prompt=1_000_000,
        cached=0,
        completion=0,
        reasoning=0,
        audio_seconds=None,
        charged_version="",
        charged_nanos=0,
    )

    [line] = repriced([one], policy(), ("~support",))
    assert line.new_nanos == 10**9
    with pytest.raises(RepricingError, match="no prices for models that were charged: ~support"):
        repriced([one], policy())


def policy_of(text: str) -> CompiledPolicy:
    return parse_policy(text.encode(), "mended.yaml")


@pytest.fixture
async def month(postgres: PostgresServer, tmp_path: Path) -> PostgresServer:
    postgres.clean_database()
    await put(postgres, written(tmp_path / "records.jsonl", records(400)))
    return postgres


def run(server: PostgresServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    url = server.server.folder.url(APPLICATION, "clean")
    command = [sys.executable, "-m", "headgate", "ledger", *map(str, arguments), "--database", url]
    return subprocess.run(command, capture_output=True, text=True)


def reprice(
    server: PostgresServer, name: str, file: Path = POLICY_FILE, *more: object
) -> subprocess.CompletedProcess[str]:
    return run(
        server, "reprice", name, "--month", "2026-10", "--policy", file, *BY, *more
    )  # fmt: skip


def shown(server: PostgresServer, name: str) -> list[Mapping[str, str]]:
    done = run(server, "repricing", name, "--format", "csv")
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.fixture
def mended(tmp_path: Path) -> Path:
    path = tmp_path / "mended.yaml"
    path.write_text(MENDED)
    return path


async def everything(server: PostgresServer) -> tuple[list[Any], list[Any]]:
    """The rows of the ledger, and the closed months."""
    found = await rows(server, "select * from headgate.usage_record order by request_id")
    return found, await rows(server, "select * from headgate.closed_month")


async def test_a_run_by_the_same_book_has_no_difference_and_changes_no_row_and_no_closed_month(
    month: PostgresServer,
) -> None:
    closing = await close(month)
    before = await everything(month)

    done = reprice(month, "check")

    assert done.returncode == 0, done.stderr
    assert {line["difference"] for line in shown(month, "check")} == {"0.000000000"}
    assert await everything(month) == before
    after = await statement(month)
    assert after.closing == closing
    lines = [line for line in after.report.lines if line.reason is None]
    in_report = sum(line.usage.cost_nanos for line in lines)
    assert sum(nanos(line["charged"]) for line in shown(month, "check")) == in_report
    requests = sum(int(line["requests"]) for line in shown(month, "check"))
    assert requests == sum(line.usage.requests for line in lines)


async def test_the_difference_is_that_of_the_mended_prices_to_the_last_nano(
    month: PostgresServer, mended: Path
) -> None:
    assert reprice(month, "mended", mended).returncode == 0

    lines = shown(month, "mended")
    by_model = {
        model: sum(nanos(line["difference"]) for line in lines if line["model"] == model)
        for model in ("large", "small", "tuned")
    }
    mispriced = await rows(month, MISPRICED)
    [(fresh, cached)] = mispriced
    assert by_model == {"large": -500 * fresh - 250 * cached, "small": 0, "tuned": 0}
    assert fresh > 0
    assert {line["new_prices"] for line in lines if line["difference"] != "0.000000000"} == {
        policy_of(MENDED).models["large"].prices.at(FROM.timestamp()).version
    }


def nanos(text: str) -> int:
    return int(Decimal(text).scaleb(9))


async def test_an_answer_from_the_cache_keeps_its_own_price(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    hit = record(1, model="large", base="large", details=HIT_DETAILS, prompt_tokens=100, cost=0)
    await put(postgres, written(tmp_path / "hit.jsonl", iter([hit])))

    async with connected(postgres.address("clean")) as connection:
        _, [line] = await read_repriced(connection, policy(), "2026-10", None)

    assert line.new_nanos == 105 * 250  # all tokens at the price of cached input


async def test_the_run_of_one_tenant_has_its_lines_alone(month: PostgresServer) -> None:
    assert reprice(month, "globex", POLICY_FILE, "--tenant", "globex").returncode == 0

    assert {line["tenant"] for line in shown(month, "globex")} == {"globex"}


async def test_a_name_is_taken_once_and_the_run_stays_as_it_is(
    month: PostgresServer, mended: Path
) -> None:
    first = reprice(month, "october", mended)
    kept = run(month, "repricing", "october", "--format", "json")
    again = reprice(month, "october")

    assert first.returncode == 0, first.stderr
    assert again.returncode == 1
    assert again.stderr == (
        "headgate: the repricing october is kept already and never changes: choose another name\n"
    )
    assert run(month, "repricing", "october", "--format", "json").stdout == kept.stdout
    checksum = sha256(kept.stdout.encode()).hexdigest()
    assert first.stdout.endswith(f"as october, SHA-256 {checksum}\n")
    table = run(month, "repricing", "october").stdout.splitlines()
    assert table[0] == "Repricing october of 2026-10, EUR, all tenants"
    assert table[1].endswith(" by finance")
    assert table[2] == f"SHA-256 {checksum}"
    assert table[-1].startswith("total ")
    [change] = await rows(month, "select action, object, after from headgate.change")
    assert change == (
        "ledger.reprice", "october", {"month": "2026-10", "checksum": checksum},
    )  # fmt: skip
    prices = json.loads(kept.stdout)["prices"]
    versions = {one for line in shown(month, "october") for one in (line["charged_prices"],)}
    assert versions <= prices.keys()


@pytest.mark.parametrize(
    "change", ["update headgate.repricing set document = ''", "delete from headgate.repricing"]
)
async def test_the_role_of_the_services_cannot_change_a_repricing(
    month: PostgresServer, change: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        month.run_as(APPLICATION, "clean", change)


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_month_whose_records_were_dropped_is_refused_with_its_days(
    month: PostgresServer, is_closed: bool
) -> None:
    if is_closed:
        await close(month)
    async with connected(month.address("clean", OWNER)) as connection:
        await drop_months(connection, date(2026, 10, 1))

    done = reprice(month, "october")

    assert done.returncode == 1
    assert done.stderr == (
        "headgate: records of 2026-10 of 2026-09-30 to 2026-09-30 (UTC) were dropped:"
        " a repricing needs each of them\n"
    )


async def test_a_closed_month_whose_records_came_back_is_repriced(
    month: PostgresServer, tmp_path: Path
) -> None:
    await close(month)
    async with connected(month.address("clean", OWNER)) as connection:
        await drop_months(connection, date(2026, 11, 1))
    assert reprice(month, "october").returncode == 1

    await put(month, tmp_path / "records.jsonl")

    assert reprice(month, "october").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("repricing", "none"), "headgate: there is no repricing none; those that are kept: none"),
        (
            ("reprice", "a", "--month", "2026-12", "--policy", POLICY_FILE, *BY),
            "headgate: the ledger has no billed requests in 2026-12",
        ),
        (
            ("reprice", "a", "--month", "10/2026", "--policy", POLICY_FILE, *BY),
            "Error: --month is written as 2026-10",
        ),
    ],
)
async def test_a_mistake_is_one_line_that_says_what_is_allowed(
    month: PostgresServer, arguments: tuple[object, ...], problem: str
) -> None:
    done = run(month, *arguments)

    assert done.returncode != 0
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


async def test_prices_of_another_currency_are_refused(
    month: PostgresServer, tmp_path: Path
) -> None:
    file = tmp_path / "dollars.yaml"
    file.write_text(MENDED.replace("currency: EUR", "currency: USD"))

    done = reprice(month, "dollars", file)

    assert done.returncode == 1
    assert "was charged in EUR, and the policy's currency is USD" in done.stderr
