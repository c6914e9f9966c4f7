"""Answers inference requests: reads, plans and plays them, or answers without generation."""

import uuid
from collections.abc import Awaitable, Callable

from headgate.core.clock import Clock
from headgate.simulator import prompts, requests
from headgate.simulator.audio import AudioWriter, read_audio, read_form
from headgate.simulator.chat import ChatWriter
from headgate.simulator.completions import CompletionsWriter
from headgate.simulator.embeddings import embeddings_body
from headgate.simulator.engine import Pace, Playback, send_whole
from headgate.simulator.exchange import Exchange
from headgate.simulator.failures import Simulation, parse_header
from headgate.simulator.fields import Fields, read_json
from headgate.simulator.generate import GeneratedAnswer, plan
from headgate.simulator.messages import MessagesWriter
from headgate.simulator.metrics import EngineMetrics
from headgate.simulator.models import Models
from headgate.simulator.prefix_cache import PrefixCache
from headgate.simulator.requests import InferenceRequest
from headgate.simulator.responses import ResponsesWriter
from headgate.simulator.scheduler import Scheduler
from headgate.simulator.scoring import read_rerank, read_score, rerank_body, score_body
from headgate.simulator.settings import Settings
from headgate.simulator.streams import Writer
from headgate.simulator.vllm_errors import forced_status, to_json

VERSION = "0.32.0"
_FINGERPRINT = f"vllm-{VERSION}-51341a70"
_CACHE_BLOCKS = 65_536
_WITH_PRIORITY = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
)
"""The paths on which vLLM reads X-Vllm-Priority."""

Handler = Callable[[Exchange], Awaitable[None]]
Reader = Callable[[Fields], InferenceRequest]
WriterOf = Callable[[InferenceRequest, GeneratedAnswer], Writer]
BodyOf = Callable[[str, int, str, InferenceRequest], bytes]
"""An answer without generation: of its id, its Unix time, the model and the request."""


class Inference:
    """The inference routes. `failures` are those of every request from now on."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        models: Models,
        metrics: EngineMetrics,
        scheduler: Scheduler,
    ) -> None:
        self.failures = Simulation()
        self._settings = settings
        self._clock = clock
        self._models = models
        self._metrics = metrics
        self._scheduler = scheduler
        self._cache = PrefixCache(_CACHE_BLOCKS)

    def routes(self) -> dict[str, Handler]:
        """The handler of POST by path.

        A real server has those of audio, embeddings and scores only with such a model, and those
        of embeddings and scores only without chat.
        """
        generated = self._generated
        at_once = self._at_once
        return {
            "/v1/chat/completions": generated(requests.read_chat, _chat_writer),
            "/v1/chat/completions/batch": generated(requests.read_chat_batch, _chat_writer),
            "/v1/completions": generated(requests.read_completions, _completions_writer),
            "/v1/responses": generated(
                requests.read_responses, self._responses_writer, own_id=True
            ),
            "/v1/messages": generated(requests.read_messages, _messages_writer),
            "/v1/audio/transcriptions": generated(read_audio, _transcription_writer, form=True),
            "/v1/audio/translations": generated(read_audio, _translation_writer, form=True),
            "/v1/embeddings": at_once(requests.read_embeddings, embeddings_body),
            "/v1/score": at_once(read_score, score_body),
            "/v1/rerank": at_once(read_rerank, rerank_body),
            "/v2/rerank": at_once(read_rerank, rerank_body),
            "/v1/messages/count_tokens": at_once(requests.read_count_tokens, _count_body),
            "/tokenize": at_once(requests.read_tokenize, self._tokenize_body, bounded=False),
        }

    def _generated(
        self, reader: Reader, writer_of: WriterOf, *, form: bool = False, own_id: bool = False
    ) -> Handler:
        """An answer with generated tokens. With `own_id` the client cannot choose its id."""

        async def handler(exchange: Exchange) -> None:
            request, simulation = await self._read(exchange, reader, form=form)
            answer_id = _fresh_id() if own_id else _request_id(exchange)
            answer = self._plan(answer_id, request, simulation)
            writer = writer_of(request, answer)
            arrived_s = self._clock.monotonic_s()
            await self._scheduler.enter(exchange, len(answer.choices), _priority(exchange))
            playback = self._playback(exchange, request, answer, simulation, arrived_s)
            try:
                await (playback.stream(writer) if request.stream else playback.whole(writer))
            finally:
                playback.end()
                self._scheduler.leave(len(answer.choices))

        return handler

    def _at_once(self, reader: Reader, body_of: BodyOf, *, bounded: bool = True) -> Handler:
        """An answer without generation."""

        async def handler(exchange: Exchange) -> None:
            request, simulation = await self._read(exchange, reader, bounded=bounded)
            model = self._models.resolve(request.model)
            created_s = int(self._clock.now_s())
            body = body_of(_request_id(exchange), created_s, model, request)
            await send_whole(exchange, body, simulation.breaks[0] if simulation.breaks else None)

        return handler

    async def _read(
        self, exchange: Exchange, reader: Reader, *, bounded: bool = True, form: bool = False
    ) -> tuple[InferenceRequest, Simulation]:
        """The request, after the failures that come before an answer. The context bounds its
        length where it is `bounded`."""
        body = await exchange.read_body()
        exchange.watch()
        own = parse_header(exchange.header(b"x-simulate"))
        simulation = self.failures.overridden_by(own)
        await _fail_before_reading(exchange, simulation)
        kind = exchange.header(b"content-type")
        request = reader(await read_form(kind, body) if form else read_json(kind, body))
        self._models.resolve(request.model)
        if bounded:
            requests.check_lengths(request, self._settings.max_model_len)
        if simulation.headers_delay is not None:
            self._metrics.waiting += 1
            try:
                await exchange.pause(simulation.headers_delay)
            finally:
                self._metrics.waiting -= 1
        return request, simulation

    def _plan(
        self, answer_id: str, request: InferenceRequest, simulation: Simulation
    ) -> GeneratedAnswer:
        settings = self._settings
        model = self._models.resolve(request.model)
        counts = tuple(prompts.count_tokens(prompt) for prompt in request.prompts)
        choices = plan(
            counts,
            request.n,
            # vLLM generates a token even where `echo` alone is asked for.
            max_tokens=1 if request.max_tokens == 0 else request.max_tokens,
            natural_tokens=simulation.output_tokens,
            context=settings.max_model_len,
            default_tokens=settings.default_output_tokens,
        )
        cached = tuple(
            self._cache.cached_tokens(model, request.cache_salt, prompt)
            for prompt in request.prompts
        )
        return GeneratedAnswer(
            id=answer_id,
            created_s=int(self._clock.now_s()),
            model=model,
            choices=choices,
            prompt_tokens=counts,
            cached_tokens=cached,
            include_usage=request.include_usage or settings.force_usage,
            continuous_usage=request.continuous_usage or settings.force_usage,
            show_details=settings.prompt_tokens_details,
            show_times=settings.per_request_metrics,
        )

    def _playback(
        self,
        exchange: Exchange,
        request: InferenceRequest,
        answer: GeneratedAnswer,
        simulation: Simulation,
        arrived_s: float,
    ) -> Playback:
        adapter = answer.model if answer.model != self._models.base else None
        cached = sum(answer.cached_tokens) * request.n
        settings = self._settings
        prefill_s = self._scheduler.prefill_s(
            answer.total_prompt_tokens - sum(answer.cached_tokens)
        )
        pace = Pace(
            (settings.ttft_s if simulation.ttft is None else simulation.ttft) + prefill_s,
            settings.token_interval_s if simulation.interval is None else simulation.interval,
            simulation.breaks,
        )
        run = self._metrics.start(answer.choices, cached, adapter, arrived_s)
        return Playback(
            exchange, answer, pace, run=run, metrics=self._metrics, scheduler=self._scheduler
        )

    def _responses_writer(self, request: InferenceRequest, answer: GeneratedAnswer) -> Writer:
        room = self._settings.max_model_len - answer.prompt_tokens[0]
        granted = room if request.max_tokens is None else min(room, request.max_tokens)
        return ResponsesWriter(answer, request.options, granted)

    def _tokenize_body(self, _: str, __: int, ___: str, request: InferenceRequest) -> bytes:
        tokens = prompts.token_ids(request.prompts[0])
        shown = {
            "count": len(tokens),
            "max_model_len": self._settings.max_model_len,
            "tokens": tokens,
            "token_strs": None,
        }
        return to_json(shown).encode()


async def _fail_before_reading(exchange: Exchange, simulation: Simulation) -> None:
    if simulation.status is not None:
        raise forced_status(simulation.status)
    if simulation.hang_up is not None:
        await exchange.pause(simulation.hang_up)
        await exchange.cut()
        exchange.check()


def _chat_writer(_: InferenceRequest, answer: GeneratedAnswer) -> Writer:
    return ChatWriter(answer, _FINGERPRINT)


def _completions_writer(request: InferenceRequest, answer: GeneratedAnswer) -> Writer:
    only_echo = request.max_tokens == 0
    return CompletionsWriter(answer, _FINGERPRINT, request.echo, only_echo=only_echo)


def _messages_writer(_: InferenceRequest, answer: GeneratedAnswer) -> Writer:
    return MessagesWriter(answer)


def _transcription_writer(request: InferenceRequest, answer: GeneratedAnswer) -> Writer:
    return AudioWriter(answer, request, translates=False)


def _translation_writer(request: InferenceRequest, answer: GeneratedAnswer) -> Writer:
    return AudioWriter(answer, request, translates=True)


def _count_body(_: str, __: int, ___: str, request: InferenceRequest) -> bytes:
    return to_json({"input_tokens": prompts.count_tokens(request.prompts[0])}).encode()


def _request_id(exchange: Exchange) -> str:
    """The client's X-Request-Id, which vLLM takes for its own, or a fresh one."""
    return exchange.header(b"x-request-id") or _fresh_id()


def _priority(exchange: Exchange) -> int:
    """The number of the header, as vLLM reads it on some paths; 0 if it is none."""
    text = exchange.header(b"x-vllm-priority") if exchange.path in _WITH_PRIORITY else ""
    try:
        return int(text)
    except ValueError:
        return 0


def _fresh_id() -> str:
    return uuid.uuid4().hex
