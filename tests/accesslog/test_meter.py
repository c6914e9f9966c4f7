"""One record for each finished request, with the known values and no others."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accesslog.meter import MAX_TEXT, meter
from accesslog.types import Ended, LogEntry, OpenReservation, UsageRecord
from headgate.core.contract import AdmissionKey, CallerKey, RequestKey, UsageKey
from headgate.core.settlement import Estimate, Source, Usage
from tests.accesslog.entries import ADMISSION, BOOK, START_S, USAGE, entry, prices_of


def metered(**changes: Any) -> UsageRecord:
    finished = meter(entry(**changes), prices_of)
    assert finished is not None
    return finished.record


def reserved(**changes: Any) -> OpenReservation | None:
    finished = meter(entry(**changes), prices_of)
    assert finished is not None
    return finished.reservation


def without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def test_a_whole_stream_gives_a_whole_record() -> None:
    assert metered() == UsageRecord(
        time="2025-11-21T12:03:11.123456Z",
        request_id="q-1",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        reservation="r-1",
        tenant="acme",
        user="alice",
        key="alice-laptop",
        ip="192.0.2.7",
        user_agent="client/1.0",
        method="POST",
        path="/v1/chat/completions",
        api="chat",
        requested_model="llama-8b-sql",
        model="llama-8b-sql",
        base="llama-8b",
        adapter="sql-v3",
        version=None,
        stream=True,
        choices=2,
        max_tokens=64,
        status=200,
        upstream_status=200,
        ended=Ended.COMPLETE,
        limit=None,
        limit_count=None,
        limit_most=None,
        limit_used=None,
        limit_asked=None,
        pod="192.0.2.80:8000",
        attempts=1,
        replica=None,
        flags=(),
        details="via_upstream",
        request_header_bytes=210,
        request_bytes=96,
        response_header_bytes=180,
        response_bytes=9000,
        prompt_tokens=12,
        completion_tokens=64,
        cached_tokens=8,
        reasoning_tokens=0,
        audio_seconds=None,
        estimated_tokens=300,
        estimated_prompt_tokens=44,
        cost=Decimal("0.0000396"),
        price_version=BOOK.at(0.0).version,
        source=Source.USAGE,
        to_upstream_s=0.004,
        upstream_first_byte_s=0.06,
        ttft_s=0.126543,
        token_interval_s=0.011325,
        duration_s=0.84,
    )


CHARGES = {
    "usage": (USAGE, (12, 64, Source.USAGE)),
    "aborted before usage came": (
        {"status": "200", "events": "17"},
        (44, 17, Source.PARTIAL),
    ),
    "complete without usage": (
        {"status": "200", "complete": "1"},
        (44, 256, Source.ESTIMATE),
    ),
    "refused by the limiter, so no upstream answered": ({}, (0, 0, Source.REFUND)),
    "upstream failed": ({"status": "500", "complete": "1"}, (0, 0, Source.REFUND)),
}


@pytest.mark.parametrize(("usage", "expected"), CHARGES.values(), ids=CHARGES.keys())
def test_the_record_has_the_charge_of_the_settlement(
    usage: dict[str, str], expected: tuple[int, int, Source]
) -> None:
    record = metered(usage=usage)
    assert (record.prompt_tokens, record.completion_tokens, record.source) == expected


def test_the_cost_is_that_of_the_charged_tokens_by_the_prices_of_the_model() -> None:
    assert metered(usage={"status": "200", "complete": "1"}).cost == Decimal("0.0001624")
    assert metered(usage={}).cost == 0
    assert metered(usage={**USAGE, "cached": "0"}).cost == Decimal("0.0000408")


def test_without_a_charge_or_a_model_of_the_policy_there_is_no_cost() -> None:
    assert metered(admission={**ADMISSION, "model": "retired"}).cost is None
    assert metered(admission=without(ADMISSION, "model")).cost is None
    assert metered(admission=without(ADMISSION, "reservation")).cost is None


def test_a_refund_counts_no_cached_or_reasoning_tokens() -> None:
    record = metered(usage={**USAGE, "status": "500"})
    assert (record.cached_tokens, record.reasoning_tokens) == (None, None)


def test_a_request_without_a_known_key_has_a_record_without_names_or_tokens() -> None:
    record = metered(status=401, caller={}, admission={}, usage={}, request={})
    assert (record.tenant, record.user, record.key, record.model) == (None, None, None, None)
    assert (record.prompt_tokens, record.completion_tokens, record.source) == (None, None, None)
    assert (record.estimated_tokens, record.reservation, record.stream) == (None, None, None)
    assert (record.status, record.api, record.ip) == (401, "chat", "192.0.2.7")


def test_a_refused_model_is_recorded_as_requested_and_never_as_a_model() -> None:
    record = metered(
        status=404, admission={}, usage={}, request={"body": "read", "model": "../etc"}
    )
    assert (record.tenant, record.user) == ("acme", "alice")
    assert (record.requested_model, record.model) == ("../etc", None)


@pytest.mark.parametrize(
    ("cluster", "version"),
    [
        ("outbound|8000|v2|llama.vllm.svc.cluster.local", "v2"),
        ("model|v2|tiny", "v2"),
        ("outbound|8000||llama.vllm.svc.cluster.local", "v1"),
        ("model:tiny", "v1"),
        ("", "v1"),
    ],
)
def test_the_version_is_the_one_that_answered_or_else_the_chosen_one(
    cluster: str, version: str
) -> None:
    record = metered(admission={**ADMISSION, "version": "v1"}, upstream_cluster=cluster)

    assert record.version == version


def test_a_base_model_has_no_adapter() -> None:
    for adapter in ("", "-"):
        assert metered(admission={**ADMISSION, "adapter": adapter}).adapter is None
    assert metered(admission=without(ADMISSION, "adapter")).adapter is None


def test_an_entry_about_a_running_request_is_no_usage() -> None:
    assert meter(entry(duration_s=None), prices_of) is None


def test_an_answer_that_never_came_has_no_status() -> None:
    record = metered(
        status=None,
        flags=("DC",),
        details="downstream_remote_disconnect",
        usage={},
        upstream_rx_s=None,
    )
    assert (record.status, record.upstream_status, record.flags) == (None, None, ("DC",))


def test_the_path_is_kept_without_its_query() -> None:
    assert metered(path="/v1/models?api-key=secret").path == "/v1/models"


def test_an_unknown_path_has_no_api() -> None:
    assert metered(admission={}, path="/invocations").api is None


def test_a_clients_texts_are_kept_to_a_bound() -> None:
    long = "x" * 50_000
    record = metered(path="/" + long, user_agent=long, request_id=long, request={"model": long})
    for text in (record.path, record.user_agent, record.request_id, record.requested_model):
        assert text is not None
        assert len(text) == MAX_TEXT


STREAMS = {
    "asked for": ({"body": "read", "stream": True}, True),
    "declined": ({"body": "read", "stream": False}, False),
    "not said": ({"body": "read"}, False),
    "said with a wrong type": ({"body": "read", "stream": "true"}, None),
    "unreadable body": ({"body": "unreadable"}, None),
    "no body": ({}, None),
}


@pytest.mark.parametrize(("request_", "expected"), STREAMS.values(), ids=STREAMS.keys())
def test_stream_says_whether_the_body_asked_for_one(
    request_: dict[str, str | bool], expected: bool | None
) -> None:
    assert metered(request=request_).stream is expected


FIRST_EVENTS = {
    "seen": (START_S * 1000 + 623, 0.5),
    "within the millisecond of the start": (START_S * 1000 + 123, 0.0),
    "at the end": (START_S * 1000 + 963, 0.84),
    "long before the start": (START_S * 1000 - 5000, None),
    "after the end": (START_S * 1000 + 5000, None),
    "not seen": (None, None),
}


@pytest.mark.parametrize(("first_event_ms", "expected"), FIRST_EVENTS.values(), ids=FIRST_EVENTS)
def test_the_first_output_is_timed_only_inside_the_request(
    first_event_ms: int | None, expected: float | None
) -> None:
    usage = without(USAGE, "first_event_ms")
    if first_event_ms is not None:
        usage["first_event_ms"] = str(first_event_ms)
    start_ns = START_S * 1_000_000_000 + 123_000_000
    record = metered(start_ns=start_ns + (123 if expected == 0.0 else 0), usage=usage)
    assert record.ttft_s == expected


TOLD = {
    "after the way to vLLM": ({"ttft_ms": "250"}, 0.004, 0.254),
    "beside a first output that was seen": (
        {"ttft_ms": "250", "first_event_ms": str(START_S * 1000 + 623)},
        0.004,
        0.499543,
    ),
    "longer than the request": ({"ttft_ms": "900"}, 0.004, None),
    "of no number": ({"ttft_ms": "1.5"}, 0.004, None),
    "without a request to vLLM": ({"ttft_ms": "250"}, None, None),
    "not told": ({}, 0.004, None),
}


@pytest.mark.parametrize(("told", "sent_s", "expected"), TOLD.values(), ids=TOLD)
def test_the_first_token_of_a_whole_answer_is_timed_where_vllm_tells_it(
    told: dict[str, str], sent_s: float | None, expected: float | None
) -> None:
    usage = without(USAGE, "first_event_ms") | told
    assert metered(usage=usage, upstream_tx_s=sent_s).ttft_s == expected


TIMES = {
    0: "1970-01-01T00:00:00.000000Z",
    START_S * 10**9 + 999_999_999: "2025-11-21T12:03:11.999999Z",
    10**30: None,
    -(10**30): None,
    None: None,
}


@pytest.mark.parametrize(("start_ns", "expected"), TIMES.items())
def test_time_is_the_start_in_utc(start_ns: int | None, expected: str | None) -> None:
    assert metered(start_ns=start_ns).time == expected


def test_the_reservation_has_the_values_for_the_second_settlement() -> None:
    assert reserved(usage={"status": "200", "events": "3"}) == OpenReservation(
        id="r-1",
        tenant="acme",
        estimate=Estimate(300, 44),
        usage=Usage(status=200, events=3),
    )


@pytest.mark.parametrize(("value", "replica"), [("abc+", "abc+"), ("-", "")])
def test_the_reservation_names_the_replica_that_holds_it(value: str, replica: str) -> None:
    reservation = reserved(limits={"held_by": value})
    assert reservation is not None
    assert reservation.held_by == replica


@pytest.mark.parametrize("missing", ["reservation", "tenant"])
def test_without_a_reservation_or_its_tenant_there_is_nothing_to_settle(missing: str) -> None:
    for admission in (without(ADMISSION, missing), {**ADMISSION, missing: "-"}):
        assert reserved(admission=admission) is None
        assert metered(admission=admission).source is None


KEYS = st.sampled_from([*AdmissionKey, *CallerKey, *RequestKey, *UsageKey])
TEXTS = st.text(max_size=40) | st.integers().map(str) | st.sampled_from(["", "-", "1", "200"])
ENTRIES = st.builds(
    LogEntry,
    start_ns=st.none() | st.integers(),
    duration_s=st.none() | st.floats(min_value=0, max_value=1e12),
    request_id=st.text(),
    ip=st.text(),
    user_agent=st.text(),
    method=st.text(),
    path=st.text(),
    status=st.none() | st.integers(1, 2**32 - 1),
    flags=st.lists(st.sampled_from(["DC", "UF", "UAEX"])).map(tuple),
    details=st.text(),
    request_bytes=st.integers(0, 2**64 - 1),
    response_bytes=st.integers(0, 2**64 - 1),
    caller=st.dictionaries(KEYS, TEXTS),
    request=st.dictionaries(KEYS, TEXTS | st.booleans()),
    admission=st.dictionaries(KEYS, TEXTS),
    usage=st.dictionaries(KEYS, TEXTS),
)


@given(ENTRIES)
def test_garbage_never_raises_and_is_one_line_of_json(log_entry: LogEntry) -> None:
    finished = meter(log_entry, prices_of)
    assert (finished is None) == (log_entry.duration_s is None)
    if finished is None:
        return
    record = finished.record
    line = msgspec.json.encode(record)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=UsageRecord) == record
    assert (record.source is None) == (finished.reservation is None)
