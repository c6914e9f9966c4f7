"""The compiled limits of a tenant: their shapes, their ids and their lines in the summary."""

import pytest

from headgate.core.policy import (
    Count,
    CountedRequests,
    OnOutage,
    Per,
    PricedTokens,
    Slots,
    Smooth,
    TokenWeights,
    WeightedTokens,
    Windowed,
)
from headgate.policy import PolicyError, describe, parse_policy
from headgate.policy.composer import compose
from headgate.policy.meaning import meaning_of, written_meaning
from headgate.policy.schema import PolicyFile
from tests.policy.policies import with_limits
from tests.ratelimit.builders import books_of


def test_a_limit_is_closed_in_an_outage_by_default() -> None:
    limits = [
        "{count: tokens, limit: 5, per: day}",
        "{count: requests, limit: 5, per: day, on_outage: open}",
        "{count: concurrent, limit: 5, on_outage: share}",
    ]
    compiled = with_limits(*limits).tenants["acme"].limits

    assert [limit.on_outage for limit in compiled] == list(OnOutage)


def test_a_limit_of_cost_is_in_nanos_with_the_costs_of_the_models_that_it_can_meet() -> None:
    policy = """\
models:
  tiny: {upstream: "http://h", context_tokens: 9, prices: {input: 0.2, output: 0.6}}
  sql: {base: tiny}
  dear: {base: tiny, prices: {input: 3.000001, cached_input: 0.000001, output: 1000000}}
  other: {base: tiny}
tenants:
  acme:
    models: [tiny, sql, dear]
    limits:
      - {count: cost, limit: 25.00, per: month, each: user}
      - {count: cost, limit: 0.000000001, per: day, models: [dear], on_outage: share}
      - {count: cost, limit: 9000000, per: year, shadow: true}
"""
    whole, narrow, most = parse_policy(policy.encode(), "headgate.yaml").tenants["acme"].limits

    weights = TokenWeights(200_000, 200_000, 600_000), TokenWeights(3_000_001, 1, 10**12)
    tiny, dear = books_of({"tiny": weights[0], "dear": weights[1]}).values()
    costs = {"tiny": tiny, "sql": tiny, "dear": dear}
    assert (whole.id, whole.count, whole.limit) == ("cost.month.user", Count.COST, 25 * 10**9)
    assert whole.shape == Windowed(Per.MONTH, PricedTokens(costs))
    assert most.shape == Windowed(Per.YEAR, PricedTokens(costs))
    assert narrow.shape == Windowed(Per.DAY, PricedTokens({"dear": dear}))
    assert (narrow.limit, narrow.on_outage) == (1, OnOutage.SHARE)
    assert (most.id, most.limit, most.shadow) == ("shadow.cost.year", 9 * 10**15, True)


def test_a_limit_of_tokens_has_the_weights_of_each_kind() -> None:
    limits = [
        "{count: tokens, limit: 5, per: day}",
        "{count: tokens, limit: 5, per: day, weights: {input: 0.5, output: 4.125}}",
        "{count: tokens, limit: 5, per: day, weights: {cached_input: 0}}",
    ]
    compiled = with_limits(*limits).tenants["acme"].limits

    weights = [(1000, 1000, 1000), (500, 500, 4125), (1000, 0, 1000)]
    assert [limit.shape for limit in compiled] == [
        Windowed(Per.DAY, WeightedTokens(TokenWeights(*kinds))) for kinds in weights
    ]


class TestLimitId:
    """The id of a limit is made of its meaning."""

    def test_the_burst_is_no_part_of_it(self) -> None:
        before, after = (
            with_limits(f"{{count: tokens, limit: 5, per: hour, smooth: true{burst}}}")
            for burst in ("", ", burst: 9")
        )
        assert before.tenants["acme"].limits[0].id == after.tenants["acme"].limits[0].id

    def test_the_number_the_lease_and_the_outage_are_no_part_of_it(self) -> None:
        before = with_limits("{count: concurrent, limit: 5}").tenants["acme"].limits
        other = "{count: concurrent, limit: 9, lease_s: 60, on_outage: open}"
        after = with_limits(other).tenants["acme"].limits

        assert before[0].id == after[0].id

    def test_the_place_in_the_file_and_the_order_of_names_are_no_part_of_it(self) -> None:
        one = "{count: tokens, limit: 5, per: day, each: [user, model], models: [tiny, sql-expert]}"
        same = (
            "{models: [sql-expert, tiny], each: [model, user], per: day, limit: 5, count: tokens}"
        )
        other = "{count: requests, limit: 5, per: day}"
        before = with_limits(one, other).tenants["acme"].limits
        after = with_limits(other, same).tenants["acme"].limits

        assert [limit.id for limit in before] == [limit.id for limit in reversed(after)]

    def test_whatever_changes_the_meaning_changes_it(self) -> None:
        limits = [
            "{count: tokens, limit: 5, per: day}",
            "{count: requests, limit: 5, per: day}",
            "{count: tokens, limit: 5, per: month}",
            "{count: tokens, limit: 5, per: day, each: user}",
            "{count: tokens, limit: 5, per: day, each: [user, model]}",
            "{count: tokens, limit: 5, per: day, users: [alice]}",
            "{count: tokens, limit: 5, per: day, models: [tiny]}",
            "{count: tokens, limit: 5, per: day, models: [sql-expert]}",
            "{count: tokens, limit: 5, per: day, users: [alice], models: [tiny]}",
            "{count: concurrent, limit: 5}",
            "{count: tokens, limit: 5, per: day, shadow: true}",
            "{count: concurrent, limit: 5, shadow: true}",
            "{count: cost, limit: 5, per: day}",
            "{count: tokens, limit: 5, per: day, weights: {output: 4}}",
            "{count: tokens, limit: 5, per: day, weights: {cached_input: 0.1, output: 4}}",
            "{count: requests, limit: 5, per: hour}",
            "{count: requests, limit: 5, per: hour, smooth: true}",
        ]
        ids = [limit.id for limit in with_limits(*limits).tenants["acme"].limits]

        assert len(set(ids)) == len(limits)

    def test_it_stays_the_same_over_releases_as_counters_are_kept_under_it(self) -> None:
        limits = (
            with_limits(
                "{count: tokens, limit: 5, per: day, each: user}",
                "{count: tokens, limit: 5, per: day, each: user, users: [alice], models: [tiny]}",
                "{count: cost, limit: 5, per: month, each: user}",
                "{count: tokens, limit: 5, per: day, weights: {cached_input: 0.1, output: 4.50}}",
                "{count: tokens, limit: 5, per: hour, weights: {output: 1}}",
                "{count: tokens, limit: 5, per: hour, each: user, smooth: true}",
            )
            .tenants["acme"]
            .limits
        )

        assert [limit.id for limit in limits] == [
            "tokens.day.user",
            "tokens.day.user.28efff1fd8f0",
            "cost.month.user",
            "tokens.day.weights-1-0.1-4.5",
            "tokens.hour",
            "tokens.hour.smooth.user",
        ]


def test_the_burst_of_a_smooth_limit_is_its_limit_by_default() -> None:
    entry = "count: requests, limit: 600, per"
    limits = [f"{{{entry}: minute, smooth: true, burst: 100}}", f"{{{entry}: hour, smooth: true}}"]
    policy = with_limits(*limits, f"{{{entry}: day, smooth: false}}")

    assert [limit.shape for limit in policy.tenants["acme"].limits] == [
        Smooth(Per.MINUTE, 100, CountedRequests()),
        Smooth(Per.HOUR, 600, CountedRequests()),
        Windowed(Per.DAY, CountedRequests()),
    ]
    assert describe(policy).splitlines()[-3:] == [
        "  600 requests per minute in bursts of up to 100",
        "  600 requests per hour in bursts of up to 600",
        "  600 requests per day",
    ]


def test_a_shadow_limit_may_accompany_the_same_limit_in_force() -> None:
    force, shadow, slots = (
        with_limits(
            "{count: tokens, limit: 9, per: day, each: user}",
            "{count: tokens, limit: 5, per: day, each: user, shadow: true}",
            "{count: concurrent, limit: 5, lease_s: 60, shadow: true}",
        )
        .tenants["acme"]
        .limits
    )

    assert [force.shadow, shadow.shadow, slots.shadow] == [False, True, True]
    assert (shadow.id, slots.id) == ("shadow.tokens.day.user", "shadow.concurrent")
    assert slots.shape == Slots(lease_s=60.0)


def test_the_summary_marks_shadow_limits_with_their_name_in_metrics() -> None:
    policy = with_limits("{count: tokens, limit: 5, per: day, shadow: true}")

    assert describe(policy).splitlines()[-1] == (
        "  5 tokens per day; shadow: refuses nobody, in metrics shadow.tokens.day"
    )


def test_the_summary_shows_cost_and_weights() -> None:
    policy = with_limits(
        "{count: cost, limit: 25, per: month, each: user}",
        "{count: cost, limit: 0.000001, per: month, models: [tiny]}",
        "{count: tokens, limit: 5, per: day, weights: {cached_input: 0.1, output: 4}}",
    )

    assert describe(policy).splitlines()[-3:] == [
        "  25.00 of cost per month for each user",
        "  0.000001 of cost per month, models tiny",
        "  5 tokens per day, weights input 1, cached_input 0.1, output 4",
    ]


def test_the_outage_rule_of_a_shadow_limit_has_no_effect() -> None:
    entry = "{count: tokens, limit: 5, per: day, shadow: true, on_outage: share}"
    assert describe(with_limits(entry)).splitlines()[-1] == (
        "  5 tokens per day; shadow: refuses nobody, in metrics shadow.tokens.day"
    )


def test_a_slice_is_no_part_of_what_a_limit_means() -> None:
    plain, sliced = (
        with_limits(entry).tenants["acme"].limits[0]
        for entry in (
            "{count: tokens, limit: 500, per: day}",
            "{count: tokens, limit: 500, per: day, slice: 500}",
        )
    )
    assert plain.shape == Windowed(Per.DAY, WeightedTokens())
    assert sliced.shape == Windowed(Per.DAY, WeightedTokens(), slice=500)
    assert plain.id == sliced.id


def test_the_summary_says_how_much_a_replica_takes_at_a_time() -> None:
    priced = """\
models:
  tiny: {upstream: "http://h", context_tokens: 8, prices: {input: 1, output: 1}}
tenants:
  acme:
    models: [tiny]
    limits:
      - {count: tokens, limit: 500, per: day, slice: 50}
      - {count: cost, limit: 25, per: month, slice: 0.5}
"""
    policy = parse_policy(priced.encode(), "headgate.yaml")
    price = PricedTokens(books_of({"tiny": TokenWeights(10**6, 10**6, 10**6)}))
    assert [limit.shape for limit in policy.tenants["acme"].limits] == [
        Windowed(Per.DAY, WeightedTokens(), slice=50),
        Windowed(Per.MONTH, price, slice=500_000_000),
    ]
    assert describe(policy).splitlines()[-2:] == [
        "  500 tokens per day, in slices of 50",
        "  25.00 of cost per month, in slices of 0.50",
    ]


@pytest.mark.parametrize("weight", ["1e9999", "1e-9999", "0.0001", "one", "[]", "-1"])
def test_bad_weights_are_reported_and_end_no_check(weight: str) -> None:
    entry = f"{{count: tokens, limit: 5, per: day, weights: {{output: {weight}}}}}"
    with pytest.raises(PolicyError) as caught:
        with_limits(entry, entry)
    assert any(".weights.output: " in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    "entry",
    [
        "{count: tokens, limit: 5, per: day, each: user}",
        "{count: tokens, limit: 5, per: day, each: [user, model], shadow: true}",
        "{count: tokens, limit: 5, per: day, weights: {input: 0.50, output: 4.125}}",
        "{count: tokens, limit: 5, per: hour, smooth: true, burst: 7, weights: {cached_input: 0}}",
        "{count: requests, limit: 5, per: minute, models: [tiny], users: [alice], slice: 2}",
        "{count: cost, limit: 0.5, per: month, on_outage: share}",
        "{count: concurrent, limit: 5, each: key, lease_s: 60}",
    ],
)
def test_the_file_as_written_and_the_schema_agree_on_the_meaning(entry: str) -> None:
    text = (
        f"models: {{tiny: {{base: x}}}}\ntenants: {{acme: {{models: [tiny], limits: [{entry}]}}}}"
    )
    root, _ = compose(text)
    assert root is not None
    [written] = root["tenants"]["acme"]["limits"]
    [limit] = PolicyFile.model_validate(root).tenants["acme"].limits
    assert written_meaning(written) == meaning_of(limit)
