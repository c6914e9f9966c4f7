"""The compiled policy that the hooks see."""

from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from headgate.core.policy import (
    Calendar,
    Caller,
    CountedRequests,
    Each,
    Limit,
    Model,
    Per,
    PricedTokens,
    Slots,
    Tenant,
    WeightedTokens,
    Windowed,
)
from headgate.core.prices import PriceBook, PricePeriod, Prices
from headgate.core.weekdays import Weekday
from headgate.policy import describe, load_policy, parse_policy
from tests.policy.policies import DIGEST, MODELS

EXAMPLE = Path(__file__).parents[2] / "examples" / "headgate.yaml"
BERLIN = Calendar(ZoneInfo("Europe/Berlin"))


def models(text: str) -> dict[str, Model]:
    name = text.split(":", 1)[0].strip()
    policy = f"models:\n  {text}\ntenants:\n  acme: {{models: [{name}]}}\n"
    return dict(parse_policy(policy.encode(), "headgate.yaml").models)


def always(prices: Prices, currency: str | None = None) -> PriceBook:
    return PriceBook((PricePeriod(None, prices, currency),))


def test_the_example_compiles_to_what_it_says() -> None:
    policy = load_policy(EXAMPLE)

    llama = Model(
        name="llama-8b",
        base="llama-8b",
        served_as="meta-llama/Llama-3.1-8B-Instruct",
        upstream="http://127.0.0.1:8000",
        context_tokens=8192,
        forces_usage=False,
        prices=always(Prices(Decimal("0.20"), Decimal("0.05"), Decimal("0.60"))),
    )
    expert = Model(
        name="sql-expert",
        base="llama-8b",
        served_as="lora-a",
        upstream="http://127.0.0.1:8000",
        context_tokens=8192,
        forces_usage=False,
        adapter="lora-a",
        prices=llama.prices,
    )
    user, model = Each.USER, Each.MODEL
    acme = policy.tenants["acme"]
    scarce = frozenset({"sql-expert"})
    limits = (
        Limit(
            id="tokens.day.user",
            limit=100_000,
            shape=Windowed(Per.DAY, WeightedTokens()),
            each=frozenset({user}),
        ),
        Limit(
            id="requests.minute.model.user",
            limit=100,
            shape=Windowed(Per.MINUTE, CountedRequests()),
            each=frozenset({user, model}),
        ),
        Limit(id="concurrent", limit=8, shape=Slots(lease_s=900.0)),
        Limit(
            id=acme.limits[3].id,
            limit=5_000_000,
            shape=Windowed(Per.MONTH, WeightedTokens()),
            models=scarce,
        ),
        Limit(
            id="cost.month.user",
            limit=25 * 10**9,
            shape=Windowed(
                Per.MONTH,
                PricedTokens(dict.fromkeys(policy.models, llama.prices)),
            ),
            each=frozenset({user}),
        ),
    )
    assert {"llama-8b": llama, "sql-expert": expert} == policy.models
    assert (
        Tenant(name="acme", calendar=BERLIN, models=frozenset(policy.models), limits=limits) == acme
    )
    sundays = Calendar(ZoneInfo("UTC"), week_start=Weekday.SUNDAY)
    assert sundays == policy.tenants["globex"].calendar
    assert {
        bytes.fromhex(f"{'a11ce':0<64}"): Caller("acme", "alice", "alice-laptop"),
        bytes.fromhex(f"{'b0b':0<64}"): Caller("acme", "bob", "bob-ci"),
        bytes.fromhex(f"{'ca201':0<64}"): Caller("globex", "carol", "ca2010000000"),
    } == policy.keys


@pytest.mark.parametrize(
    ("written", "compiled"),
    [
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("https://vllm.example", "https://vllm.example:443"),
        ("https://vllm.example:8443/", "https://vllm.example:8443"),
        ("http://vllm_1:8000/llama/eight/", "http://vllm_1:8000/llama/eight"),
        ("HTTP://LOCALHOST:8000", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_upstream_always_has_its_port_and_no_last_slash(written: str, compiled: str) -> None:
    tiny = models(f'tiny: {{upstream: "{written}", context_tokens: 1}}')["tiny"]

    assert compiled == tiny.upstream


def test_a_model_is_served_under_its_own_name_by_default() -> None:
    entry = '{upstream: "http://h", context_tokens: 1}'
    plain = models(f"org/tiny: {entry}")["org/tiny"]
    policy = MODELS.replace(", adapter: lora-a", "") + "tenants:\n  acme: {models: [tiny]}\n"
    adapter = parse_policy(policy.encode(), "headgate.yaml").models["sql-expert"]

    assert plain.served_as == "org/tiny"
    assert (adapter.served_as, adapter.adapter, adapter.base) == (
        "sql-expert",
        "sql-expert",
        "tiny",
    )


def test_an_adapter_may_come_before_its_base_and_have_its_own_prices() -> None:
    policy = """\
models:
  sql: {base: tiny, prices: {input: 3, output: 4}}
  tiny:
    {upstream: "http://h", context_tokens: 10, forces_usage: true, prices: {input: 1, output: 2}}
tenants:
  acme: {models: [sql]}
"""
    policy = parse_policy(policy.encode(), "headgate.yaml")

    assert list(policy.models) == ["sql", "tiny"]
    assert policy.models["sql"].prices == always(Prices(Decimal(3), Decimal(3), Decimal(4)))
    assert policy.models["sql"].forces_usage


def test_cached_input_costs_as_input_by_default() -> None:
    tiny = models(
        'tiny: {upstream: "http://h", context_tokens: 1, prices: {input: 0.10, output: 1}}'
    )

    assert tiny["tiny"].prices == always(Prices(Decimal("0.10"), Decimal("0.10"), Decimal(1)))


def test_a_digest_may_be_written_in_capitals() -> None:
    policy = (
        MODELS
        + f"""\
tenants:
  acme:
    models: [tiny]
    keys: [{{user: alice@example.com, sha256: {DIGEST.upper()}}}]
"""
    )
    policy = parse_policy(policy.encode(), "headgate.yaml")

    caller = Caller("acme", "alice@example.com", "0123456789ab")
    assert {bytes.fromhex(DIGEST): caller} == policy.keys


def test_aliases_share_limits_between_tenants() -> None:
    policy = (
        MODELS
        + """\
tenants:
  acme: {models: [tiny], limits: &standard [{count: tokens, limit: 5, per: day}]}
  globex: {models: [tiny], limits: *standard}
"""
    )
    tenants = parse_policy(policy.encode(), "headgate.yaml").tenants

    assert tenants["acme"].limits == tenants["globex"].limits != ()


def test_equal_limits_of_many_tenants_take_memory_once() -> None:
    entry = "{models: [tiny], limits: [{count: tokens, limit: 5, per: day}]}"
    policy = MODELS + f"tenants:\n  acme: {entry}\n  globex: {entry}\n"
    tenants = parse_policy(policy.encode(), "headgate.yaml").tenants

    assert tenants["acme"].limits[0] is tenants["globex"].limits[0]


def test_weeks_begin_on_monday_and_months_on_their_first_day_by_default() -> None:
    plain = "  plain: {models: [tiny]}\n"
    own = "  own: {models: [tiny], timezone: Asia/Tokyo, week_start: saturday, billing_day: 31}\n"
    policy = parse_policy(f"{MODELS}tenants:\n{plain}{own}".encode(), "headgate.yaml")

    assert [tenant.calendar for tenant in policy.tenants.values()] == [
        Calendar(ZoneInfo("UTC"), Weekday.MONDAY, 1),
        Calendar(ZoneInfo("Asia/Tokyo"), Weekday.SATURDAY, 31),
    ]
    assert describe(policy).splitlines()[-2:] == [
        "tenant plain (UTC): 0 keys; tiny",
        "tenant own (Asia/Tokyo, weeks from Saturday, months from day 31): 0 keys; tiny",
    ]


def weights(*lines: str) -> dict[str, int | None]:
    """The weights of tenants `a`, `b` and so on, with these lines in their entries."""
    entries = "".join(
        f"  {name}:\n    models: [tiny]\n{line}" for name, line in zip("abc", lines, strict=False)
    )
    policy = parse_policy(f"{MODELS}tenants:\n{entries}".encode(), "headgate.yaml")
    return {name: tenant.weight for name, tenant in policy.tenants.items()}


def test_without_fairness_no_tenant_has_a_weight() -> None:
    assert weights("", "") == {"a": None, "b": None}


def test_as_soon_as_one_tenant_has_a_weight_all_others_have_one() -> None:
    assert weights("    fairness: {weight: 3}\n", "") == {"a": 3, "b": 1}
