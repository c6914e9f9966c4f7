"""Envoy's external processing service: Process()."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from msgspec.structs import replace

from extproc import wire
from extproc.affinity import Places, no_places
from extproc.cache.cache import Place
from extproc.cache.serving import CachedAnswers, OverLimit, Served
from extproc.call import ProcessCall, Reply, says
from extproc.decide import decide
from extproc.edits import Edited, edited
from extproc.estimate import Estimator
from extproc.failover import Moves, stays
from extproc.limits import LIMITS_UNAVAILABLE, LimitsOf
from extproc.lookup import size_to_keep, version_to_keep
from extproc.stream import Replace, RequestStream, Unchanged
from extproc.transitions import UnexpectedMessageError
from extproc.types import (
    Admit,
    Answer,
    KeyCall,
    Peek,
    Refuse,
    RequestDecision,
    RequestFacts,
)
from extproc.versions import Pins
from headgate._gen.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from headgate.core.adapters import NO_ADAPTERS, NO_USES, Adapters, Uses
from headgate.core.answer_cache import OFFER_METADATA
from headgate.core.apis import Api, ErrorShape
from headgate.core.auto import AUTO
from headgate.core.clock import Clock
from headgate.core.contract import COUNTING_METADATA, AdmissionKey, RequestKey
from headgate.core.errors import ApiError
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.core.rpc import Context, Method, Status

_HOOK = "ext_proc"
_BASE_AND_VERSION = (AdmissionKey.BASE, AdmissionKey.VERSION)
_HOW = {True: "kept", False: "new", None: "unremembered"}
_PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"


OwnKeys: TypeAlias = Callable[[KeyCall], Awaitable[bytes | ApiError]]
"""Carries out an action on a user's own keys: the answer's JSON, or the refusal."""


class ExternalProcessor:
    """Answers Process: one reply for a request, two if its body must be rewritten.

    If Envoy says that the service counts tokens, each piece of the answer gets a reply, too. Each
    stream reads the policy once.

    A stream that fails here ends with a gRPC error. Envoy (failure_mode_allow: false) turns it into
    a refusal, or into the end of an answer that has begun. A clean end without a reply would let
    the request pass, or leave its answer uncounted.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], CompiledPolicy],
        estimator: Estimator,
        new_id: Callable[[], str],
        limits_of: LimitsOf,
        usage_of: LimitsOf,
        own_keys: OwnKeys,
        pins: Pins,
        metrics: Metrics,
        clock: Clock,
        keys: KeyRing = NO_KEYS,
        places: Places = no_places,
        moves: Moves = stays,
        adapters: Adapters = NO_ADAPTERS,
        uses: Uses = NO_USES,
        cached: CachedAnswers | None = None,
    ) -> None:
        self._policy = policy
        self._estimator = estimator
        self._new_id = new_id
        self._peeks = {Api.LIMITS: limits_of, Api.USAGE: usage_of}
        self._own_keys = own_keys
        self._pins = pins
        self._metrics = metrics
        self._clock = clock
        self._keys = keys
        self._places = places
        self._moves = moves
        self._adapters = adapters
        self._uses = uses
        self._cached = cached

    def methods(self) -> tuple[Method, ...]:
        """The methods of `envoy.service.ext_proc.v3.ExternalProcessor`."""
        process = Method(
            path=_PROCESS,
            behavior=self.process,
            read=ProcessingRequest.FromString,
            write=ProcessingResponse.SerializeToString,
            takes_stream=True,
            gives_stream=True,
        )
        return (process,)

    async def process(
        self, messages: AsyncIterator[ProcessingRequest], context: Context
    ) -> AsyncIterator[ProcessingResponse]:
        """One request. Ends after the last reply, so that streams are short."""
        caches = self._cached is not None and says(context, OFFER_METADATA)
        stream = RequestStream(
            lambda facts: self._decide(facts, self._new_id(), caches),
            self._now_ms,
            says(context, COUNTING_METADATA),
        )
        call = ProcessCall(stream)
        try:
            async for message in messages:
                try:
                    response = await self._respond(call, message)
                except UnexpectedMessageError as error:
                    context.abort(Status.INVALID_ARGUMENT, str(error))
                yield response
                if stream.done:
                    return
        finally:
            call.close()

    async def _respond(self, call: ProcessCall, message: ProcessingRequest) -> ProcessingResponse:
        """The reply to one message, whatever its kind."""
        stream = call.stream
        match message.WhichOneof("request"):
            case "request_headers":
                return await self._reply(call, self._on_headers(stream, message))
            case "request_body":
                return await self._reply(call, self._on_body(call, message.request_body.body))
            case "response_body":
                return wire.encode_answer_reply(await call.read_chunk(message.response_body))
            case "response_headers":
                return wire.encode_answer_reply(call.begin_answer(message.response_headers))
            case "response_trailers":
                return wire.encode_answer_reply(stream.on_answer_trailers())
            case kind:
                raise UnexpectedMessageError(f"unexpected message: {kind}")

    async def _reply(
        self, call: ProcessCall, handle: Awaitable[Reply | RequestDecision]
    ) -> ProcessingResponse:
        """The reply to a message of the request: measured, and counted once it is the last."""
        with self._metrics.time_hook(_HOOK):
            reply = await handle
            if not isinstance(reply, Replace | Unchanged | Served | OverLimit):
                reply = await self._completed(reply)
            response = call.encoded(reply)
        if call.stream.request_done:
            self._count(reply)
        return response

    async def _on_body(
        self, call: ProcessCall, body: bytes
    ) -> Replace | Unchanged | Refuse | Served | OverLimit:
        """The body as vLLM gets it, or what ends the request: an answer of the cache, a refusal."""
        reply = call.stream.on_body(body)
        admit = call.admit
        if self._cached is None or admit is None or isinstance(reply, Refuse):
            return reply
        sent = reply.body if isinstance(reply, Replace) else body
        found = await self._cached.serve(admit, sent)
        if found is not None and not isinstance(found, Place):
            return found
        call.recorder = None if found is None else self._cached.recorder(found)
        call.stream.on_no_answer(records=found is not None)
        return reply

    async def _on_headers(
        self, stream: RequestStream, message: ProcessingRequest
    ) -> RequestDecision:
        return stream.on_headers(await self._sized(wire.decode_headers(message)))

    async def _sized(self, facts: RequestFacts) -> RequestFacts:
        """The facts with what is remembered of their conversation, if they need it."""
        policy = self._policy()
        is_auto = facts.values.get(RequestKey.MODEL) == AUTO
        size = size_to_keep(facts, policy, self._keys) if is_auto else None
        if size is not None:
            return replace(facts, at_least=await self._pins.largest(size))
        version = version_to_keep(facts, policy, self._keys, self._adapters)
        if version is not None:
            return replace(facts, adapter_version=(await self._pins.keep(version)).version)
        return facts

    async def decide(self, facts: RequestFacts, reservation_id: str) -> Edited | Refuse | Answer:
        """Decides about one request in one step. The proxy then edits the body by itself."""
        decision = self._decide(await self._sized(facts), reservation_id)
        completed = await self._completed(decision)
        reply = edited(completed, facts) if isinstance(completed, Admit) else completed
        self._count(reply)
        return reply

    async def _completed(self, decision: RequestDecision) -> Admit | Answer | Refuse:
        """The decision with what the stores know: the remembered version, the state of limits."""
        if isinstance(decision, Peek):
            return await self._peek(decision)
        if isinstance(decision, KeyCall):
            return await self._keys_of(decision)
        if isinstance(decision, Admit):
            admit = await self._pinned(decision)
            return admit if admit.placing is None else self._placed(admit)
        return decision

    def _count(self, reply: Reply | Edited) -> None:
        label = reply.error.refusal.code if isinstance(reply, Refuse) else "ok"
        self._metrics.decisions.labels(_HOOK, label).value += 1
        if isinstance(reply, Refuse) and reply.wants is not None:
            self._uses.wanted(reply.wants)

    def _decide(
        self, facts: RequestFacts, reservation_id: str, caches: bool = False
    ) -> RequestDecision:
        decision = decide(
            facts,
            self._policy(),
            self._estimator,
            reservation_id,
            self._keys,
            adapters=self._adapters,
        )
        if isinstance(decision, Admit) and AdmissionKey.ADAPTER in decision.admission:
            self._uses.began(decision.admission[AdmissionKey.ADAPTER])
        if isinstance(decision, Admit) and decision.caching is not None and not caches:
            return replace(decision, caching=None)
        return decision

    def _now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)

    async def _pinned(self, admit: Admit) -> Admit:
        """The admission on the remembered version of its conversation, or on the spare one."""
        how = "chosen" if admit.chose_version else "only"
        if admit.pin is not None:
            pinned = await self._pins.keep(admit.pin)
            admit = admit.with_version(pinned.version)
            how = _HOW[pinned.remembered]
        if AdmissionKey.VERSION in admit.admission:
            admit, how = self._moved(admit, how)
            base, version = (admit.admission[key] for key in _BASE_AND_VERSION)
            self._metrics.versions.labels(base, version, how).inc()
        return admit

    def _moved(self, admit: Admit, how: str) -> tuple[Admit, str]:
        """The admission on the spare version, and why, if its own one is down or full."""
        base, version = (admit.admission[key] for key in _BASE_AND_VERSION)
        failover = admit.failover
        if failover is None or version == failover.to:
            return admit, how
        move = self._moves((base, version), failover, admit.placing)
        if move is None:
            return admit.with_spare(failover.to), how
        return admit.with_version(failover.to), move

    def _placed(self, admit: Admit) -> Admit:
        """The admission on the pods of its version, if Headgate chooses between them."""
        placing = admit.placing
        if placing is None:
            return admit
        version = admit.admission.get(AdmissionKey.VERSION, "")
        hosts = self._places(placing.of(version), placing)
        return admit.with_hosts(hosts) if hosts else admit

    async def _peek(self, peek: Peek) -> Answer | Refuse:
        body = await self._peeks[peek.api](peek.tenant, peek.caller, peek.model)
        if body is None:
            return Refuse(LIMITS_UNAVAILABLE, ErrorShape.OPENAI)
        return Answer(peek.api, body)

    async def _keys_of(self, call: KeyCall) -> Answer | Refuse:
        said = await self._own_keys(call)
        if isinstance(said, ApiError):
            return Refuse(said, ErrorShape.OPENAI)
        return Answer(Api.OWN_KEYS, said)
