"""The price book: from which moment which price holds, and how a price is named."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from headgate.core.policy import Count
from headgate.core.prices import PriceBook, PricePeriod, Prices, TokenWeights
from headgate.policy import parse_policy
from ratelimit.demand import Subject, claims_of

OCTOBER_S = 1_790_812_800.0  # 2026-10-01T00:00:00Z
POLICY = """\
currency: EUR
models:
  tiny:
    upstream: "http://127.0.0.1:8000"
    context_tokens: 8192
    prices:
      - {from: 2026-10-01, input: 2, output: 4, reasoning: 6, request: 0.001, audio_second: 0.0001}
      - {input: 1, output: 2}
    versions: {v1: {weight: 90}, v2: {weight: 10, prices: {input: 8, output: 8}}}
  own: {base: tiny, prices: {input: 3, output: 3}}
  other: {base: tiny}
tenants:
  acme: {models: [tiny, own, other], limits: [{count: cost, limit: 1, per: month}]}
"""


def policy(text: str = POLICY) -> dict[str, PriceBook]:
    models = parse_policy(text.encode(), "headgate.yaml").models
    return {name: model.prices for name, model in models.items()}


def test_a_price_holds_from_its_moment_to_the_next_one() -> None:
    book = policy()["tiny"]

    assert book.at(OCTOBER_S - 0.001).prices.input == 1
    assert book.at(OCTOBER_S).prices.input == 2


def test_before_the_first_price_there_is_none() -> None:
    book = PriceBook((PricePeriod(OCTOBER_S, Prices(Decimal(1))),))

    assert book.at(OCTOBER_S - 1).version is None
    assert book.at(OCTOBER_S - 1).prices == Prices()


def test_versions_and_adapters_have_their_own_prices_or_those_of_the_model() -> None:
    books = policy()

    assert books["tiny"].at(OCTOBER_S, "v2").prices.input == 8
    assert books["tiny"].at(OCTOBER_S, "v1").prices.input == 2
    assert books["own"].at(OCTOBER_S, "v2").prices.input == 3
    assert books["other"].at(OCTOBER_S, "v2").prices.input == 8


def test_a_version_names_the_content_of_a_price() -> None:
    before, after = policy()["tiny"], policy(POLICY.replace("output: 4", "output: 5"))["tiny"]

    assert before.at(OCTOBER_S).version == policy()["tiny"].at(OCTOBER_S + 1).version
    assert str(before.at(OCTOBER_S).version).startswith("2026-10-01.")
    assert str(before.at(0.0).version).startswith("always.")
    assert before.at(OCTOBER_S).version != after.at(OCTOBER_S).version
    assert before.at(0.0).version == after.at(0.0).version
    francs = policy(POLICY.replace("EUR", "CHF"))["tiny"]
    assert francs.at(0.0).version != before.at(0.0).version


def test_each_kind_has_its_price() -> None:
    prices = policy()["tiny"].at(OCTOBER_S).prices
    used = prices.cost(100, 50, 30, reasoning=10, audio_seconds=7, requests=1)

    micros = 100 * 2 + 50 * 2 + 20 * 4 + 10 * 6 + 7 * 100 + 1000
    assert used == micros * 1000


def test_a_limit_of_cost_reads_the_same_book_and_takes_the_dearest_of_the_versions() -> None:
    compiled = parse_policy(POLICY.encode(), "headgate.yaml")
    tenant = compiled.tenants["acme"]
    subject = Subject("acme", "alice", "laptop", "own")

    [claim] = claims_of(tenant, subject, OCTOBER_S)
    assert claim.limit.count is Count.COST
    assert (claim.weights.input, claim.weights.request) == (3_000_000, 0)

    [claim] = claims_of(tenant, Subject("acme", "alice", "laptop", "tiny"), OCTOBER_S)
    assert (claim.weights.input, claim.weights.output) == (8_000_000, 8_000_000)
    assert claim.weights.request == 10**9


def test_a_limit_of_cost_takes_the_prices_of_the_version_that_it_knows() -> None:
    compiled = parse_policy(POLICY.encode(), "headgate.yaml")
    tenant, book = compiled.tenants["acme"], compiled.models["tiny"].prices
    subject = Subject("acme", "alice", "laptop", "tiny")

    for version in (*book.of_versions, "another"):
        [claim] = claims_of(tenant, subject, OCTOBER_S, version)
        record = book.at(OCTOBER_S, version).prices.per_token
        assert (claim.weights.input, claim.weights.output) == (record.input, record.output)


@given(
    moments=st.lists(st.integers(0, 10**6), unique=True, max_size=6), now_s=st.integers(0, 10**6)
)
def test_the_price_in_force_is_the_last_that_has_begun(moments: list[int], now_s: int) -> None:
    periods = (PricePeriod(float(one), Prices(Decimal(one))) for one in sorted(moments))
    found = PriceBook(tuple(periods)).at(now_s)

    begun = [one for one in moments if one <= now_s]
    assert found.prices.input == max(begun, default=0)
    assert (found.version is None) == (not begun)


def test_a_model_without_prices_weighs_nothing() -> None:
    assert PriceBook().weights(0.0) == TokenWeights(0, 0, 0)
