"""Process over a real gRPC connection, counted message by message."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from prometheus_client import CollectorRegistry

from extproc.estimate import Estimator
from extproc.service import ExternalProcessor
from headgate.contract import Namespace
from headgate.metrics import Metrics
from protos.gen.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from registry.types import Caller, Tenant
from tests.extproc.builders import ALICE, REGISTRY, body_message, headers_message
from tests.fakes import FakeClock

PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
OPTIONS = [
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ("grpc.max_send_message_length", 32 * 1024 * 1024),
]

Exchange = Callable[..., Awaitable[list[ProcessingResponse]]]


class Desk:
    """A served ExternalProcessor and what it counts. Its ids are r1, r2, ..."""

    def __init__(self) -> None:
        self.counted = CollectorRegistry()
        self._ids = 0
        metrics = Metrics(self.counted, FakeClock(0))
        self.limits: bytes | None = b'{"object": "list", "data": []}'
        self.peeked: list[tuple[Tenant, Caller, str | None]] = []
        self.service = ExternalProcessor(
            lambda: REGISTRY, Estimator(), self._new_id, self._limits_of, metrics, FakeClock(0)
        )

    def _new_id(self) -> str:
        self._ids += 1
        return f"r{self._ids}"

    async def _limits_of(self, tenant: Tenant, caller: Caller, model: str | None) -> bytes | None:
        self.peeked.append((tenant, caller, model))
        return self.limits

    def decisions(self) -> dict[str, float]:
        """How often each decision was counted."""
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
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((desk.service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        process = channel.stream_stream(
            PROCESS,
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )

        async def send(*messages: ProcessingRequest) -> list[ProcessingResponse]:
            return [reply async for reply in process(iter(messages))]

        yield send
    await server.stop(None)


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
    """What was admitted at its headers counts as what became of it."""
    _, second = await exchange(headers_message({"model": "poet"}), body_message(b"[]"))

    assert second.immediate_response.status.code == 400
    assert desk.decisions() == {"invalid_request": 1}


async def test_the_model_list_is_answered_here(exchange: Exchange) -> None:
    """vLLM is not asked: it would tell of every tenant's adapters."""
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
async def test_what_was_not_asked_for_ends_with_an_error(
    desk: Desk, exchange: Exchange, messages: list[ProcessingRequest]
) -> None:
    """A clean end would let Envoy pass the request; an error makes it refuse."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await exchange(*messages)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert desk.decisions() == {}


async def test_messages_after_the_last_reply_change_nothing(exchange: Exchange) -> None:
    """The stream is over by then."""
    replies = await exchange(headers_message({"model": "tiny"}), body_message(b"{}"))

    assert len(replies) == 1


async def test_a_stream_without_messages_ends_quietly(desk: Desk, exchange: Exchange) -> None:
    """A client may leave before anything was said."""
    assert await exchange() == []
    assert desk.decisions() == {}


async def test_what_is_left_is_asked_for_the_caller_and_answered_in_one_message(
    desk: Desk, exchange: Exchange
) -> None:
    for query, model in (("", None), ("?model=org%2Fslashed", "org/slashed"), ("?x=1", None)):
        (reply,) = await exchange(headers_message(path=f"/v1/headgate/limits{query}"))

        assert reply.immediate_response.status.code == 200
        assert reply.immediate_response.body == desk.limits
        assert reply.immediate_response.details == "headgate_limits"
        assert desk.peeked.pop() == (REGISTRY.tenants["acme"], ALICE, model)
    assert desk.decisions() == {"ok": 3}


async def test_what_is_left_cannot_be_told_without_the_store(
    desk: Desk, exchange: Exchange
) -> None:
    desk.limits = None
    (reply,) = await exchange(headers_message(path="/v1/headgate/limits"))

    immediate = reply.immediate_response
    error = json.loads(immediate.body)["error"]
    sent = {header.header.key: header.header.raw_value for header in immediate.headers.set_headers}
    assert (immediate.status.code, error["code"]) == (503, "service_unavailable")
    assert sent["retry-after"] == b"1"
    assert desk.decisions() == {"service_unavailable": 1}
