"""Envoy's external processing service: Process()."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc

from extproc import wire
from extproc.decide import Admit, Answer, Decision, Peek, Refuse, RequestFacts, decide
from extproc.estimate import Estimator
from extproc.limits import LIMITS_UNAVAILABLE, LimitsOf
from extproc.stream import AnswerReply, Reply, RequestStream, UnexpectedMessageError
from extproc.versions import Pins
from headgate._gen.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from headgate.core.apis import Api, ErrorShape
from headgate.core.clock import Clock
from headgate.core.contract import COUNTING_METADATA, AdmissionKey
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy

_HOOK = "ext_proc"
_LONG_BYTES = 256 * 1024
"""A piece of an answer is read apart, beside other requests, where so much is held: the worst
event of 8 MiB takes a second or two."""
_BASE_AND_VERSION = (AdmissionKey.BASE, AdmissionKey.VERSION)
_HOW = {True: "kept", False: "new", None: "unremembered"}
_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"


class ExternalProcessor:
    """Answers Process: one reply for a request, two where its body must be rewritten; where Envoy
    says that the service counts, one more for each piece of its answer.

    Each stream reads the policy once. A stream that fails here ends with a gRPC error, which
    Envoy (failure_mode_allow: false) turns into a refusal, or, once an answer has begun, into its
    end; a clean end without a reply would let the request pass, or its answer uncounted.
    """

    def __init__(
        self,
        policy: Callable[[], CompiledPolicy],
        estimator: Estimator,
        new_id: Callable[[], str],
        limits_of: LimitsOf,
        pins: Pins,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._estimator = estimator
        self._new_id = new_id
        self._limits_of = limits_of
        self._pins = pins
        self._metrics = metrics
        self._clock = clock

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler of `envoy.service.ext_proc.v3.ExternalProcessor`."""
        process = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=ProcessingRequest.FromString,
            response_serializer=ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(_SERVICE, {"Process": process})

    async def process(
        self,
        messages: AsyncIterator[ProcessingRequest],
        context: "grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse]",
    ) -> AsyncIterator[ProcessingResponse]:
        """One request. Ends after the last reply, so that streams are short."""
        stream = RequestStream(self._decide, self._now_ms, _counts(context))
        async for message in messages:
            try:
                if stream.decided:
                    response = wire.encode_counted(await _count(stream, message))
                else:
                    response = await self._reply(stream, message)
            except UnexpectedMessageError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            yield response
            if stream.done:
                return

    async def _reply(self, stream: RequestStream, message: ProcessingRequest) -> ProcessingResponse:
        with self._metrics.time_hook(_HOOK):
            reply = _handle(stream, message)
            if isinstance(reply, Peek):
                reply = await self._peek(reply)
            elif isinstance(reply, Admit):
                reply = await self._on_its_version(reply)
            response = wire.encode(reply, stream.counts)
        if stream.decided:
            self._metrics.decisions.labels(_HOOK, _label(reply)).inc()
        return response

    def _decide(self, facts: RequestFacts) -> Decision:
        return decide(facts, self._policy(), self._estimator, self._new_id())

    def _now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)

    async def _on_its_version(self, admit: Admit) -> Admit:
        """Remembers which version a conversation is on."""
        how = "chosen" if admit.chose_version else "only"
        if admit.pin is not None:
            kept = await self._pins.keep(admit.pin)
            admit = admit.with_version(kept.version)
            how = _HOW[kept.remembered]
        if AdmissionKey.VERSION in admit.admission:
            base, version = (admit.admission[key] for key in _BASE_AND_VERSION)
            self._metrics.versions.labels(base, version, how).inc()
        return admit

    async def _peek(self, peek: Peek) -> Answer | Refuse:
        body = await self._limits_of(peek.tenant, peek.caller, peek.model)
        if body is None:
            return Refuse(LIMITS_UNAVAILABLE, ErrorShape.OPENAI)
        return Answer(Api.LIMITS, body)


def _handle(stream: RequestStream, message: ProcessingRequest) -> Reply:
    match message.WhichOneof("request"):
        case "request_headers":
            return stream.on_headers(wire.decode_headers(message))
        case "request_body":
            return stream.on_body(message.request_body.body)
        case _:
            raise UnexpectedMessageError("a message of a kind that was not asked for")


async def _count(stream: RequestStream, message: ProcessingRequest) -> AnswerReply:
    match message.WhichOneof("request"):
        case "response_body":
            chunk, is_last = message.response_body.body, message.response_body.end_of_stream
            if stream.held_bytes + len(chunk) > _LONG_BYTES:
                return await asyncio.to_thread(stream.on_answer_body, chunk, is_last)
            return stream.on_answer_body(chunk, is_last)
        case "response_headers":
            headers = message.response_headers
            head = wire.decode_answer_headers(headers)
            return stream.on_answer_headers(head, headers.end_of_stream)
        case "response_trailers":
            return stream.on_answer_trailers()
        case _:
            raise UnexpectedMessageError("a message of a kind that was not asked for")


def _counts(context: "grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse]") -> bool:
    """Whether Envoy's filter says that answers are counted here."""
    return COUNTING_METADATA in (context.invocation_metadata() or ())


def _label(reply: Reply) -> str:
    return reply.error.refusal.code if isinstance(reply, Refuse) else "ok"
