"""Envoy's messages to our values and back."""

import json

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from headgate._gen.ratelimit_pb2 import RateLimitDescriptor, RateLimitRequest, RateLimitResponse
from headgate.core.amounts import NANOS
from headgate.core.apis import Api
from headgate.core.contract import (
    ABSENT,
    RESERVE_ENTRIES,
    SETTLE_ADMISSION_ENTRIES,
    SETTLE_USAGE_ENTRIES,
)
from headgate.core.policy import Count, Per
from headgate.core.settlement import Estimate, Usage
from ratelimit.answers import Admitted, LimitStatus, Reason, Refused, ReserveRequest
from ratelimit.wire import BadDescriptorError, SettleCall, decode, encode_decision
from tests.ratelimit.builders import NOW_S, limit, request
from tests.ratelimit.calls import reserve, settle

REQUEST = request("r1", 500, prompt_tokens=100, key="k1", api=Api.CHAT)
LEFT = LimitStatus(limit(10), 4, int(NOW_S) + 60)


def test_a_reserve_is_a_request_with_its_estimate() -> None:
    assert decode(reserve()) == REQUEST


def test_the_estimate_may_stand_at_the_request_instead() -> None:
    call = reserve(None)
    call.hits_addend = 2**32 - 1
    asked = decode(call)
    assert isinstance(asked, ReserveRequest)
    assert asked.tokens == 2**32 - 1


def test_a_caller_without_user_or_model_is_taken_as_it_comes() -> None:
    call = reserve(user=ABSENT, key=ABSENT, model=ABSENT, api=ABSENT)
    assert decode(call) == request(
        "r1", 500, prompt_tokens=100, user=ABSENT, key=ABSENT, model=ABSENT
    )


@pytest.mark.parametrize("prompt", [ABSENT, "", "501", "-1", "1.5", "many", "9" * 17])
def test_a_prompt_that_is_no_part_of_the_estimate_is_not_known(prompt: str) -> None:
    asked = decode(reserve(estimate_prompt=prompt))
    assert isinstance(asked, ReserveRequest)
    assert (asked.tokens, asked.prompt_tokens) == (500, None)


def test_a_proxy_that_sends_neither_the_prompts_part_nor_the_version_is_understood() -> None:
    call = reserve(version="v2")
    for name in ("version", "estimate_prompt"):
        assert call.descriptors[0].entries.pop().key == name
    asked = decode(call)
    assert isinstance(asked, ReserveRequest)
    assert (asked.tokens, asked.prompt_tokens, asked.version) == (500, None, None)


def test_a_reserve_says_which_version_was_chosen() -> None:
    asked = decode(reserve(version="v2"))
    assert isinstance(asked, ReserveRequest)
    assert asked.version == "v2"


def test_a_settlement_carries_what_the_tap_saw() -> None:
    usage = Usage(status=200, prompt=120, completion=30, complete=True)
    assert decode(settle()) == SettleCall(
        reservation="r1", tenant="demo", usage=usage, estimate=Estimate(500, 100)
    )


def test_a_settlement_says_who_holds_the_request_where_somebody_said_so() -> None:
    calls = [decode(settle()), decode(settle(held_by="abc+"))]
    assert [call.held_by for call in calls] == ["", "abc+"]


def test_only_a_request_that_a_replica_holds_is_marked_so() -> None:
    plain, held = Admitted((LEFT,)), Admitted((LEFT,), held_by="abc+")
    answers = [encode_decision(REQUEST, answer, NOW_S) for answer in (plain, held)]
    assert [dict(answer.dynamic_metadata) for answer in answers] == [{}, {"held_by": "abc+"}]


def test_the_answer_tells_the_limit_that_refused_and_how_full_it_was() -> None:
    refused = Refused(Reason.LIMIT, LEFT, 7, (LEFT,), needed=20, used=990)
    answers = [
        encode_decision(REQUEST, answer, NOW_S)
        for answer in (refused, Refused(Reason.REPLAYED, None, 1, ()))
    ]
    facts = {
        "refused_by": LEFT.id,
        "refused_count": "requests",
        "refused_most": str(LEFT.limit),
        "refused_used": "990",
        "refused_asked": "20",
    }
    assert [dict(answer.dynamic_metadata) for answer in answers] == [facts, {}]


def test_a_request_that_never_got_a_reservation_settles_nothing() -> None:
    call = settle(reservation=ABSENT, tenant=ABSENT, estimate=ABSENT, estimate_prompt=ABSENT)
    decoded = decode(call)
    assert isinstance(decoded, SettleCall)
    assert decoded.reservation is None


def two_descriptors() -> RateLimitRequest:
    call = reserve()
    call.descriptors.append(reserve().descriptors[0])
    return call


def negative() -> RateLimitRequest:
    call = reserve()
    call.descriptors[0].is_negative_hits = True
    return call


def with_entry(key: str, value: str) -> RateLimitRequest:
    call = reserve()
    call.descriptors[0].entries.append(RateLimitDescriptor.Entry(key=key, value=value))
    return call


def with_op(op: str) -> RateLimitRequest:
    call = reserve()
    call.descriptors[0].entries[0].value = op
    return call


def without_op() -> RateLimitRequest:
    call = reserve()
    del call.descriptors[0].entries[0]
    return call


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (RateLimitRequest(), "the domain must be headgate, not ''"),
        (reserve(domain="other"), "the domain must be headgate, not 'other'"),
        (RateLimitRequest(domain="headgate"), "exactly one descriptor, this one has 0"),
        (two_descriptors(), "exactly one descriptor, this one has 2"),
        (with_op("peek\n"), r"op must be reserve or settle, not 'peek\\n'"),
        (with_op("x" * 10_000), "op must be reserve or settle, not 'x{40}'$"),
        (without_op(), "op must be reserve or settle, not absent"),
        (with_entry("tenant", "other"), "an entry appears twice in the descriptor"),
        (reserve(reservation=ABSENT), "the descriptor lacks reservation"),
        (reserve(reservation=""), "the descriptor lacks reservation"),
        (reserve(tenant=ABSENT), "the descriptor lacks tenant"),
        (reserve(None), "a reserve needs the estimate as hits_addend"),
        (negative(), "must not be negative"),
        (settle(tenant=ABSENT), "the descriptor lacks tenant"),
        (settle(reservation=""), "the descriptor lacks reservation"),
        (settle(estimate=ABSENT), "the descriptor lacks estimate"),
        (settle(estimate_prompt="many"), "estimate_prompt must be a whole number, not 'many'"),
        (settle(estimate="-5"), "estimate must be a whole number, not '-5'"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(
    call: RateLimitRequest, message: str
) -> None:
    with pytest.raises(BadDescriptorError, match=message) as raised:
        decode(call)
    assert str(raised.value).isprintable()


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    try:
        decode(RateLimitRequest.FromString(data))
    except (DecodeError, BadDescriptorError):
        return


names = st.sampled_from([*RESERVE_ENTRIES, *SETTLE_ADMISSION_ENTRIES, *SETTLE_USAGE_ENTRIES])


@given(st.dictionaries(names, st.text(max_size=20)), st.booleans())
def test_no_entries_do_more_than_be_refused(entries: dict[str, str], settling: bool) -> None:
    call = settle(**entries) if settling else reserve(**entries)
    try:
        decode(call)
    except BadDescriptorError:
        return


def headers(response: RateLimitResponse) -> dict[str, str]:
    return {header.key: header.value for header in response.response_headers_to_add}


def test_admitted_is_ok_with_headers_and_the_tightest_limit() -> None:
    slack = LimitStatus(limit(100, per=Per.DAY), 99, int(NOW_S) + 9999)

    response = encode_decision(REQUEST, Admitted((slack, LEFT)), NOW_S)

    assert response.overall_code == RateLimitResponse.OK
    assert headers(response)["x-ratelimit-remaining-requests"] == "4"
    assert response.raw_body == b""
    [status] = response.statuses
    assert status.code == RateLimitResponse.OK
    assert status.current_limit.requests_per_unit == 10
    assert status.current_limit.unit == RateLimitResponse.RateLimit.MINUTE
    assert status.limit_remaining == 4
    assert status.duration_until_reset.seconds == 60


def test_refused_is_over_limit_with_the_body_of_the_api() -> None:
    refused = Refused(Reason.LIMIT, LEFT, 60, (LEFT,))

    openai = encode_decision(REQUEST, refused, NOW_S)
    anthropic_request = request("r1", 500, key="k1", api=Api.MESSAGES)
    anthropic = encode_decision(anthropic_request, refused, NOW_S)

    assert openai.overall_code == anthropic.overall_code == RateLimitResponse.OVER_LIMIT
    assert openai.statuses[0].code == RateLimitResponse.OVER_LIMIT
    assert headers(openai)["retry-after"] == "60"
    assert headers(openai)["content-type"] == "application/json"
    error = json.loads(openai.raw_body)["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert "10 requests per minute" in error["message"]
    assert json.loads(anthropic.raw_body)["error"]["message"] == error["message"]
    assert json.loads(anthropic.raw_body)["type"] == "error"


@pytest.mark.parametrize("per", list(Per))
def test_every_window_has_its_unit(per: Per) -> None:
    limit_status = LimitStatus(limit(10, per=per), 4, int(NOW_S) + 60)
    [status] = encode_decision(REQUEST, Admitted((limit_status,)), NOW_S).statuses
    unit = RateLimitResponse.RateLimit.Unit.Name(status.current_limit.unit)
    assert unit == per.name


def test_numbers_that_the_message_cannot_hold_are_cut_to_its_largest() -> None:
    limit_status = LimitStatus(limit(2**53, Count.TOKENS), 2**53 - 1, int(NOW_S) - 5)
    response = encode_decision(REQUEST, Admitted((limit_status,)), NOW_S)
    [status] = response.statuses
    assert status.current_limit.requests_per_unit == status.limit_remaining == 2**32 - 1
    assert status.duration_until_reset.seconds == 0
    assert headers(response)["x-ratelimit-limit-tokens"] == str(2**53)


def test_cost_is_told_in_thousandths_of_the_currency() -> None:
    limit_status = LimitStatus(
        limit(25 * NANOS, Count.COST, per=Per.MONTH), 13_999_999, int(NOW_S) + 60
    )
    response = encode_decision(
        REQUEST, Refused(Reason.LIMIT, limit_status, 60, (limit_status,)), NOW_S
    )
    [status] = response.statuses
    assert (status.current_limit.requests_per_unit, status.limit_remaining) == (25_000, 13)
    assert status.current_limit.unit == RateLimitResponse.RateLimit.MONTH
    assert headers(response) == {
        "content-type": "application/json",
        "retry-after": "60",
        "x-ratelimit-reset-cost": "1m0s",
    }
    assert "25.00 of cost per month" in json.loads(response.raw_body)["error"]["message"]


def test_a_limit_of_slots_has_no_unit_and_no_reset() -> None:
    limit_status = LimitStatus(limit(3, Count.CONCURRENT), 0, None)
    response = encode_decision(
        REQUEST, Refused(Reason.LIMIT, limit_status, 1, (limit_status,)), NOW_S
    )
    assert response.statuses[0].current_limit.unit == RateLimitResponse.RateLimit.UNKNOWN
    assert headers(response) == {"content-type": "application/json", "retry-after": "1"}
    assert b"3 requests at once" in response.raw_body


def test_refused_without_a_limit_is_over_limit_too() -> None:
    unknown = Refused(Reason.UNKNOWN_TENANT, None, 1, ())
    response = encode_decision(REQUEST, unknown, NOW_S)
    assert response.overall_code == RateLimitResponse.OVER_LIMIT
    assert b"not in the policy" in response.raw_body


def test_a_priority_goes_to_vllm_as_a_header() -> None:
    admitted = encode_decision(REQUEST, Admitted((), priority=7), NOW_S)
    without = encode_decision(REQUEST, Admitted(()), NOW_S)

    [header] = admitted.request_headers_to_add
    assert (header.key, header.value) == ("x-vllm-priority", "7")
    assert not without.request_headers_to_add
