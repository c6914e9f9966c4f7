"""Process over a real gRPC connection, counted message by message."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from prometheus_client import CollectorRegistry

from extproc.estimate import Estimator
from extproc.own_keys import no_keys
from extproc.pins.memory import MemoryPins
from extproc.service import ExternalProcessor
from headgate._gen.ext_proc_pb2 import ProcessingMode, ProcessingRequest, ProcessingResponse
from headgate.core.contract import COUNTING_METADATA, Namespace
from headgate.core.metrics import Metrics
from headgate.core.policy import Caller, Tenant
from tests.extproc.builders import ALICE, POLICY, body_message, headers_message
from tests.fakes import FakeClock
from tests.hook_channel import hook_channel

PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
OPTIONS = [
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ("grpc.max_send_message_length", 32 * 1024 * 1024),
]

STREAM = b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'


def answer_messages(*chunks: bytes) -> list[ProcessingRequest]:
    """A streamed answer whose end comes as an empty last chunk, as in HTTP/1."""
    headers = ProcessingRequest()
    sent = headers.response_headers.headers.headers
    sent.add(key=":status", raw_value=b"200")
    sent.add(key="content-type", raw_value=b"text/event-stream; charset=utf-8")
    messages = [headers]
    for chunk in (*chunks, b""):
        message = ProcessingRequest()
        message.response_body.body = chunk
        messages.append(message)
    messages[-1].response_body.end_of_stream = True
    return messages


Exchange = Callable[..., Awaitable[list[ProcessingResponse]]]


class Desk:
    """A running ExternalProcessor with its metrics. Its ids are r1, r2, ..."""

    def __init__(self) -> None:
        self.counted = CollectorRegistry()
        self._ids = 0
        metrics = Metrics(self.counted, FakeClock(0))
        self.limits: bytes | None = b'{"object": "list", "data": []}'
        self.peeked: list[tuple[Tenant, Caller, str | None]] = []
        self.service = ExternalProcessor(
            policy=lambda: POLICY,
            estimator=Estimator(),
            new_id=self._new_id,
            limits_of=self._limits_of,
            usage_of=self._limits_of,
            own_keys=no_keys,
            pins=MemoryPins(FakeClock(0)),
            metrics=metrics,
            clock=FakeClock(0),
        )

    def _new_id(self) -> str:
        self._ids += 1
        return f"r{self._ids}"

    async def _limits_of(self, tenant: Tenant, caller: Caller, model: str | None) -> bytes | None:
        self.peeked.append((tenant, caller, model))
        return self.limits

    def decisions(self) -> dict[str, float]:
        """The count of each decision."""
        return {
            sample.labels["decision"]: sample.value
            for metric in self.counted.collect()
            for sample in metric.samples
            if sample.name == "headgate_decisions_total"
        }


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def exchange(desk: Desk) -> AsyncIterator[Exchange]:
    """Sends messages on one stream and returns every reply until the service ends it."""
    async with hook_channel(desk.service.methods(), OPTIONS) as channel:
        process = channel.stream_stream(
            PROCESS,
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )

        async def send(
            *messages: ProcessingRequest, metadata: tuple[tuple[str, str], ...] = ()
        ) -> list[ProcessingResponse]:
            return [reply async for reply in process(iter(messages), metadata=metadata)]

        yield send


async def test_a_plain_request_takes_one_message(desk: Desk, exchange: Exchange) -> None:
    """One in, one out, and the service ends the stream itself."""
    (reply,) = await exchange(headers_message({"model": "tiny"}))

    assert reply.WhichOneof("response") == "request_headers"
    assert reply.dynamic_metadata[Namespace.ADMISSION]["reservation"] == "r1"
    assert not reply.HasField("mode_override")
    assert desk.decisions() == {"ok": 1}


async def test_a_rewritten_request_takes_two_messages(desk: Desk, exchange: Exchange) -> None:
    """The second reply carries the rewritten body; it counts as one decision."""
    sent = b'{"model": "poet", "messages": []}'

    first, second = await exchange(headers_message({"model": "poet"}), body_message(sent))

    assert first.HasField("mode_override")
    body = second.request_body.response.body_mutation.body
    assert json.loads(body) == {"model": "lora-poet", "messages": []}
    assert desk.decisions() == {"ok": 1}


async def test_a_large_body_is_rewritten(exchange: Exchange) -> None:
    """16 MB go through one message each way."""
    sent = b'{"model": "poet", "prompt": "' + b"x" * 16_000_000 + b'"}'

    _, second = await exchange(headers_message({"model": "poet"}), body_message(sent))

    assert len(second.request_body.response.body_mutation.body) > 16_000_000


async def test_a_refusal_takes_one_message(desk: Desk, exchange: Exchange) -> None:
    """It is counted under the code that the client reads."""
    (reply,) = await exchange(headers_message({"model": "../x"}))

    assert reply.immediate_response.status.code == 404
    assert desk.decisions() == {"model_not_found": 1}


async def test_a_body_that_cannot_be_rewritten_is_refused(desk: Desk, exchange: Exchange) -> None:
    """A request that is admitted at its headers and then refused counts once, as refused."""
    _, second = await exchange(headers_message({"model": "poet"}), body_message(b"[]"))

    assert second.immediate_response.status.code == 400
    assert desk.decisions() == {"invalid_request": 1}


async def test_the_model_list_is_answered_here(exchange: Exchange) -> None:
    """vLLM is not asked, because its list names every tenant's adapters."""
    (reply,) = await exchange(headers_message(path="/v1/models"))

    ids = {entry["id"] for entry in json.loads(reply.immediate_response.body)["data"]}
    assert ids == {"tiny", "shy", "alias", "poet", "org/slashed"}


async def test_each_request_gets_its_own_reservation(exchange: Exchange) -> None:
    """Ids are never used twice."""
    ids = []
    for _ in range(3):
        (reply,) = await exchange(headers_message({"model": "tiny"}))
        ids.append(reply.dynamic_metadata[Namespace.ADMISSION]["reservation"])

    assert ids == ["r1", "r2", "r3"]


async def test_answers_are_counted_where_envoy_says_so(desk: Desk, exchange: Exchange) -> None:
    """The call's metadata decides; the service has no setting. It is still one decision."""
    request = [headers_message({"model": "poet", "stream": True}), body_message(b"{}")]
    answer = answer_messages(STREAM[:30], STREAM[30:])

    without = await exchange(*request)
    replies = await exchange(*request, *answer, metadata=(COUNTING_METADATA,))

    assert without[0].mode_override.response_body_mode == ProcessingMode.NONE
    assert [reply.WhichOneof("response") for reply in replies] == [
        "request_headers",
        "request_body",
        "response_headers",
        *["response_body"] * 3,
    ]
    assert replies[0].mode_override.response_body_mode == ProcessingMode.STREAMED
    bodies = [reply.response_body.response.body_mutation.body for reply in replies[3:5]]
    assert b"".join(bodies) == b'data: {"choices":[{"index":0}]}\n\n'
    usage: dict[str, object] = {}
    for reply in replies[2:]:
        if Namespace.USAGE in reply.dynamic_metadata:
            usage |= dict(reply.dynamic_metadata[Namespace.USAGE])
    assert usage == {
        "status": "200",
        "prompt": "3",
        "completion": "2",
        "events": "1",
        "first_event_ms": "0",
    }
    assert desk.decisions() == {"ok": 2}


async def test_a_long_event_is_counted_like_a_short_one(exchange: Exchange) -> None:
    """It is read in a thread, in the order of the stream."""
    long = b'data: {"choices":[{"index":0,"text":"' + b"x" * 1_000_000 + b'"}]}\n\n'
    replies = await exchange(
        headers_message({"model": "tiny", "stream": True}),
        *answer_messages(long[:500_000], long[500_000:], STREAM),
        metadata=(COUNTING_METADATA,),
    )

    assert replies[-2].dynamic_metadata[Namespace.USAGE]["completion"] == "2"
    assert replies[-1].dynamic_metadata[Namespace.USAGE]["events"] == "2"


@pytest.mark.parametrize(
    "message",
    [ProcessingRequest(), body_message(b"{}"), headers_message({"model": "tiny"})],
    ids=["other kind", "request body", "request headers"],
)
async def test_a_message_that_is_no_part_of_an_answer_ends_with_an_error(
    exchange: Exchange, message: ProcessingRequest
) -> None:
    """A clean end would let the rest of the answer pass uncounted."""
    headers, *_ = answer_messages()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await exchange(
            headers_message({"model": "tiny"}), headers, message, metadata=(COUNTING_METADATA,)
        )

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "messages",
    [
        [body_message(b"{}")],
        [ProcessingRequest()],
        [headers_message({"model": "poet"}), headers_message({"model": "poet"})],
        [headers_message({"model": "poet"}), ProcessingRequest()],
    ],
    ids=["body first", "other kind first", "headers twice", "other kind for the body"],
)
async def test_a_message_that_was_not_asked_for_ends_with_an_error(
    desk: Desk, exchange: Exchange, messages: list[ProcessingRequest]
) -> None:
    """A clean end would let Envoy pass the request; an error makes it refuse."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await exchange(*messages)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert desk.decisions() == {}


async def test_messages_after_the_last_reply_change_nothing(exchange: Exchange) -> None:
    """The stream has already ended."""
    replies = await exchange(headers_message({"model": "tiny"}), body_message(b"{}"))

    assert len(replies) == 1


async def test_a_stream_without_messages_ends_quietly(desk: Desk, exchange: Exchange) -> None:
    """A client may disconnect before the first message."""
    assert await exchange() == []
    assert desk.decisions() == {}


async def test_limits_are_looked_up_for_the_caller_and_answered_in_one_message(
    desk: Desk, exchange: Exchange
) -> None:
    for query, model in (("", None), ("?model=org%2Fslashed", "org/slashed"), ("?x=1", None)):
        (reply,) = await exchange(headers_message(path=f"/v1/headgate/limits{query}"))

        assert reply.immediate_response.status.code == 200
        assert reply.immediate_response.body == desk.limits
        assert reply.immediate_response.details == "headgate_limits"
        assert desk.peeked.pop() == (POLICY.tenants["acme"], ALICE, model)
    assert desk.decisions() == {"ok": 3}


async def test_without_the_store_the_limits_are_unavailable(desk: Desk, exchange: Exchange) -> None:
    desk.limits = None
    (reply,) = await exchange(headers_message(path="/v1/headgate/limits"))

    immediate = reply.immediate_response
    error = json.loads(immediate.body)["error"]
    sent = {header.header.key: header.header.raw_value for header in immediate.headers.set_headers}
    assert (immediate.status.code, error["code"]) == (503, "service_unavailable")
    assert sent["retry-after"] == b"1"
    assert desk.decisions() == {"service_unavailable": 1}
