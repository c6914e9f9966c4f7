"""Spans of the real Envoy, as a collector receives them."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from itertools import count

import httpx
import pytest
import pytest_asyncio

from headgate._gen import ratelimit_pb2
from headgate.core.contract import AdmissionKey, LimitsKey
from headgate.dataplane.box import Tracing
from headgate.dataplane.envoy_admin import EnvoyAdmin
from headgate.dataplane.tracing import collector, tracer
from headgate.dataplane.upstream import BadUpstream
from tests.envoy_process import CHAT, Rig, running_envoy
from tests.fake_hooks import deny, route, too_many
from tests.fake_upstream import Received, reply
from tests.otlp import Receiver, Span, receiver
from tests.patience import PATIENCE_S
from tests.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = (
    b'{"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5,'
    b'"prompt_tokens_details":{"cached_tokens":3}}}'
)
PARENT = "cd" * 8
SPANS_OF_A_REQUEST = 6
FLUSHES = "tracing.opentelemetry.timer_flushed"
HOOK_SPANS = {
    "async envoy.service.auth.v3.Authorization.Check egress",
    "async envoy.service.ext_proc.v3.ExternalProcessor.Process egress",
    "async envoy.service.ratelimit.v3.RateLimitService.ShouldRateLimit egress",
}
UPSTREAM_SPAN = "router model:tiny egress"
ADMITTED = route({AdmissionKey.MODEL: "tiny", AdmissionKey.VERSION: "v1"})
_numbers = count(1)


def new_trace() -> str:
    """A trace id that no other test has."""
    return f"{next(_numbers):032x}"


def traceparent(trace_id: str, flags: str = "01") -> str:
    return f"00-{trace_id}-{PARENT}-{flags}"


def root(spans: Sequence[Span]) -> Span:
    """The span of the request itself: the child of the client's."""
    return next(span for span in spans if span.parent_span_id.hex() == PARENT)


@pytest.fixture(scope="module")
def spans() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def envoy_with_traces(spans: Receiver) -> AsyncIterator[Rig]:
    async with running_envoy(tracing=Tracing(spans.url)) as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def traced(envoy_with_traces: Rig) -> Rig:
    await envoy_with_traces.reset()
    envoy_with_traces.services.process = ADMITTED
    return envoy_with_traces


async def arrived(spans: Receiver, trace_id: str, number: int) -> Sequence[Span]:
    return await asyncio.to_thread(spans.trace, trace_id, number)


async def test_hooks_and_upstream_are_children_of_a_span_that_continues_the_clients_trace(
    traced: Rig, spans: Receiver
) -> None:
    traced.upstream.answer = reply(200, USAGE)
    trace_id = new_trace()
    await traced.post(traceparent=traceparent(trace_id))
    seen = await arrived(spans, trace_id, 5)
    top = root(seen)
    children = {span.name for span in seen if span.parent_span_id == top.span_id}
    assert top.name == "chat tiny"
    assert children == HOOK_SPANS | {UPSTREAM_SPAN}
    to_vllm = traced.upstream.received[-1].headers["traceparent"]
    at_upstream = next(span for span in seen if span.name == UPSTREAM_SPAN)
    assert to_vllm == f"00-{trace_id}-{at_upstream.span_id.hex()}-01"


async def test_the_tags_name_the_caller_the_model_and_the_tokens(
    traced: Rig, spans: Receiver
) -> None:
    traced.upstream.answer = reply(200, USAGE)
    trace_id = new_trace()
    answer = await traced.post(traceparent=traceparent(trace_id))
    tags = root(await arrived(spans, trace_id, 5)).tags
    assert tags["guid:x-request-id"] == answer.headers["x-request-id"]
    expected = {
        "headgate.tenant": "acme",
        "user.id": "alice",
        "headgate.key": "k1",
        "headgate.version": "v1",
        "headgate.reservation": "r1",
        "headgate.estimate": "40",
        "headgate.complete": "1",
        "gen_ai.provider.name": "vllm",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tiny",
        "gen_ai.usage.input_tokens": "7",
        "gen_ai.usage.output_tokens": "5",
        "gen_ai.usage.cache_read.input_tokens": "3",
    }
    assert {key: tags.get(key) for key in expected} == expected
    assert "headgate.refused_by" not in tags


async def test_a_refusal_names_its_limit_and_has_no_upstream(traced: Rig, spans: Receiver) -> None:
    def refuse(request: ratelimit_pb2.RateLimitRequest) -> ratelimit_pb2.RateLimitResponse:
        answer = too_many(request)
        answer.dynamic_metadata.update({LimitsKey.REFUSED_BY: "acme.requests"})
        return answer

    traced.services.limit = refuse
    trace_id = new_trace()
    await traced.post(traceparent=traceparent(trace_id))
    seen = await arrived(spans, trace_id, 4)
    tags = root(seen).tags
    assert (tags["http.status_code"], tags["headgate.refused_by"]) == ("429", "acme.requests")
    assert UPSTREAM_SPAN not in {span.name for span in seen}


async def test_a_request_without_a_key_is_named_by_method_and_cause(
    traced: Rig, spans: Receiver
) -> None:
    traced.services.check = deny(401, "{}")
    trace_id = new_trace()
    await traced.post(traceparent=traceparent(trace_id))
    top = root(await arrived(spans, trace_id, 2))
    assert top.name == "POST ext_authz_denied"
    assert "headgate.tenant" not in top.tags


async def test_no_query_of_a_url_reaches_a_span(traced: Rig, spans: Receiver) -> None:
    trace_id = new_trace()
    await traced.post(path=f"{CHAT}?api_key=sk-secret", traceparent=traceparent(trace_id))
    seen = await arrived(spans, trace_id, 5)
    assert root(seen).tags["http.url"] == CHAT
    assert not any("sk-secret" in str(span) for span in seen)


async def test_an_aborted_stream_has_the_tags_that_were_known_by_then(
    traced: Rig, spans: Receiver
) -> None:
    left = asyncio.Event()

    async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
            b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
        )
        await writer.drain()
        await left.wait()

    traced.upstream.answer = endless
    trace_id = new_trace()
    headers = {"content-type": "application/json", "traceparent": traceparent(trace_id)}
    body = b'{"model": "tiny", "stream": true}'
    with suppress(httpx.HTTPError):
        async with traced.client.stream("POST", CHAT, content=body, headers=headers) as answer:
            await anext(answer.aiter_bytes())
    tags = root(await arrived(spans, trace_id, 5)).tags
    left.set()
    assert (tags["response_flags"], tags["headgate.events"]) == ("DC", "1")
    assert int(tags["headgate.first_event_ms"]) >= int(tags["headgate.start_ms"])
    assert "headgate.complete" not in tags


@pytest.mark.parametrize("header", ["x-client-trace-id", "traceparent", "x-envoy-force-trace"])
async def test_no_header_of_a_client_raises_the_ratio(spans: Receiver, header: str) -> None:
    """At the smallest ratio, 20 requests that ask for a trace get none, or one by chance."""
    async with running_envoy(tracing=Tracing(spans.url, 0.0001)) as rig:
        rig.services.process = ADMITTED
        before = len(spans.spans)
        for _ in range(20):
            value = traceparent(new_trace()) if header == "traceparent" else "1"
            await rig.post(**{header: value})
        await flushed(rig)
    assert len(spans.spans) - before <= SPANS_OF_A_REQUEST


async def flushed(rig: Rig) -> None:
    """Waits until Envoy has sent the spans that it has by now."""
    admin = EnvoyAdmin(rig.box.admin_socket, PATIENCE_S)
    try:
        async with asyncio.timeout(PATIENCE_S):
            seen = (await admin.numbers([FLUSHES]))[FLUSHES]
            while True:
                if (await admin.numbers([FLUSHES]))[FLUSHES] >= seen + 2:
                    return
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def test_a_client_may_turn_its_trace_off(traced: Rig, spans: Receiver) -> None:
    off, on = new_trace(), new_trace()
    await traced.post(traceparent=traceparent(off, "00"))
    await traced.post(traceparent=traceparent(on))
    await arrived(spans, on, 5)
    assert not [span for span in spans.spans if span.trace_id.hex() == off]
    assert traced.upstream.received[0].headers["traceparent"].endswith("-00")


async def test_a_box_that_follows_its_clients_traces_as_their_flag_says(spans: Receiver) -> None:
    off, on = new_trace(), new_trace()
    async with running_envoy(tracing=Tracing(spans.url, 0.0001, follows_client=True)) as rig:
        await rig.post(traceparent=traceparent(off, "00"))
        await rig.post(traceparent=traceparent(on))
        await arrived(spans, on, 5)
    assert not [span for span in spans.spans if span.trace_id.hex() == off]


async def test_requests_pass_while_nobody_listens_at_the_collectors_address() -> None:
    async with running_envoy(tracing=Tracing(f"http://127.0.0.1:{free_port()}")) as rig:
        answers = [await rig.post() for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}


async def test_requests_pass_while_the_collector_does_not_answer() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running_envoy(tracing=Tracing(url)) as rig:
        answers = [await rig.post() for _ in range(20)]
    server.close()
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("ratio", [0.0001, 0.05, 1.0])
async def test_the_ratio_is_given_to_envoy_in_percent(ratio: float) -> None:
    sampling = tracer(Tracing("http://127.0.0.1", ratio)).random_sampling
    assert sampling is not None
    assert sampling.value == pytest.approx(100 * ratio)


@pytest.mark.parametrize("url", ["127.0.0.1:4317", "grpc://a:4317", "http://a:4318/v1/traces"])
async def test_a_collector_needs_a_url_without_a_path(url: str) -> None:
    with pytest.raises(BadUpstream):
        collector(Tracing(url))
