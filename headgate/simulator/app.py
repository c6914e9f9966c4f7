"""The simulated server: an ASGI application. One route after the other, from top to bottom."""

import uuid
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST

from headgate.core.clock import Clock
from headgate.simulator import prompts, requests
from headgate.simulator.audio import AudioWriter, read_audio, read_form
from headgate.simulator.chat import ChatWriter
from headgate.simulator.completions import CompletionsWriter
from headgate.simulator.embeddings import embeddings_body
from headgate.simulator.engine import Pace, Playback, send_whole
from headgate.simulator.exchange import (
    ClientGoneError,
    EngineStoppedError,
    Exchange,
    Receive,
    Scope,
    Send,
)
from headgate.simulator.exposition import Exposition
from headgate.simulator.failures import Simulation, parse_header, parse_words
from headgate.simulator.fields import Fields, read_json
from headgate.simulator.generate import Answer, plan
from headgate.simulator.messages import MessagesWriter
from headgate.simulator.metrics import Metrics
from headgate.simulator.models import Models
from headgate.simulator.prefix_cache import PrefixCache
from headgate.simulator.requests import Ask
from headgate.simulator.responses import ResponsesWriter
from headgate.simulator.scoring import read_rerank, read_score, rerank_body, score_body
from headgate.simulator.settings import Settings
from headgate.simulator.streams import Writer
from headgate.simulator.vllm_errors import (
    VllmError,
    engine_dead,
    forced_status,
    invalid_body,
    to_json,
)

VERSION = "0.32.0"
FINGERPRINT = f"vllm-{VERSION}-51341a70"
_JSON = "application/json"
_CACHE_BLOCKS = 65_536
_ANTHROPIC_PATH = "/v1/messages"

Handler = Callable[[Exchange], Awaitable[None]]
Write = Callable[[str, int, str, Ask], bytes]
"""The body of an answer that is made at once, of its id, its time, the model, what was asked."""


class Simulator:
    """One server. `stop` ends what runs, the way vLLM's shutdown does."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._models = Models(
            settings.models, settings.adapters, settings.max_model_len, int(clock.now_s())
        )
        self._cache = PrefixCache(_CACHE_BLOCKS)
        self._metrics = Metrics(clock)
        self._exposition = Exposition(self._models.base, self._metrics)
        self._for_all = Simulation()
        self._open: set[Exchange] = set()
        self._routes: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._completions},
            "/v1/responses": {"POST": self._responses},
            "/v1/messages": {"POST": self._messages},
            "/v1/embeddings": {"POST": self._at_once(requests.read_embeddings, embeddings_body)},
            "/v1/chat/completions/batch": {"POST": self._chat_batch},
            "/v1/score": {"POST": self._at_once(read_score, score_body)},
            "/v1/rerank": {"POST": self._at_once(read_rerank, rerank_body)},
            "/v2/rerank": {"POST": self._at_once(read_rerank, rerank_body)},
            "/v1/messages/count_tokens": {
                "POST": self._at_once(requests.read_count_tokens, _count_body)
            },
            "/tokenize": {
                "POST": self._at_once(requests.read_tokenize, self._tokenize_body, bounded=False)
            },
            "/v1/audio/transcriptions": {"POST": self._audio(translates=False)},
            "/v1/audio/translations": {"POST": self._audio(translates=True)},
            "/v1/models": {"GET": self._list_models},
            "/v1/load_lora_adapter": {"POST": self._load_adapter},
            "/v1/unload_lora_adapter": {"POST": self._unload_adapter},
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health, "POST": self._health},
            "/load": {"GET": self._load},
            "/version": {"GET": self._version},
            "/metrics": {"GET": self._show_metrics},
            "/simulate": {
                "GET": self._show_simulation,
                "POST": self._set_simulation,
                "DELETE": self._clear_simulation,
            },
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        exchange = Exchange(scope, receive, send)
        self._open.add(exchange)
        try:
            await self._answer(exchange)
        except ClientGoneError:
            pass
        finally:
            self._open.discard(exchange)
            exchange.close()

    def stop(self) -> None:
        """The engine stops: running streams get its error, without usage; others get 500."""
        for exchange in self._open:
            exchange.interrupt(EngineStoppedError)

    async def _answer(self, exchange: Exchange) -> None:
        methods = self._routes.get(exchange.path)
        if methods is None:
            return await exchange.answer(404, b'{"detail":"Not Found"}', _JSON)
        handler = methods.get(exchange.method)
        if handler is None:
            return await exchange.answer(405, b'{"detail":"Method Not Allowed"}', _JSON)
        try:
            await handler(exchange)
        except VllmError as error:
            await _answer_error(exchange, error)
        except RecursionError:
            too_deep = invalid_body("recursion_loop", "body", "The body is nested too deeply")
            await _answer_error(exchange, too_deep)
        except EngineStoppedError:
            await _answer_error(exchange, engine_dead())
        return None

    # --- inference -------------------------------------------------------------------------

    async def _chat(self, exchange: Exchange) -> None:
        await self._chat_as(exchange, requests.read_chat)

    async def _chat_batch(self, exchange: Exchange) -> None:
        """One choice for each conversation."""
        await self._chat_as(exchange, requests.read_chat_batch)

    async def _chat_as(self, exchange: Exchange, reader: Callable[[Fields], Ask]) -> None:
        ask, simulation = await self._read(exchange, reader)
        answer = self._plan(_request_id(exchange), ask, simulation)
        await self._play(exchange, ask, answer, simulation, ChatWriter(answer, FINGERPRINT))

    async def _completions(self, exchange: Exchange) -> None:
        ask, simulation = await self._read(exchange, requests.read_completions)
        answer = self._plan(_request_id(exchange), ask, simulation)
        writer = CompletionsWriter(answer, FINGERPRINT, ask.echo, only_echo=ask.max_tokens == 0)
        await self._play(exchange, ask, answer, simulation, writer)

    async def _responses(self, exchange: Exchange) -> None:
        ask, simulation = await self._read(exchange, requests.read_responses)
        answer = self._plan(_fresh_id(), ask, simulation)
        room = self._settings.max_model_len - answer.prompt_tokens[0]
        granted = room if ask.max_tokens is None else min(room, ask.max_tokens)
        writer = ResponsesWriter(answer, ask.options, granted)
        await self._play(exchange, ask, answer, simulation, writer)

    async def _messages(self, exchange: Exchange) -> None:
        ask, simulation = await self._read(exchange, requests.read_messages)
        answer = self._plan(_request_id(exchange), ask, simulation)
        await self._play(exchange, ask, answer, simulation, MessagesWriter(answer))

    def _audio(self, *, translates: bool) -> Handler:
        """A real server has these routes only with a model that hears."""

        async def handler(exchange: Exchange) -> None:
            ask, simulation = await self._read(exchange, read_audio, form=True)
            answer = self._plan(_request_id(exchange), ask, simulation)
            writer = AudioWriter(answer, ask, translates=translates)
            await self._play(exchange, ask, answer, simulation, writer)

        return handler

    def _at_once(
        self, reader: Callable[[Fields], Ask], write: Write, *, bounded: bool = True
    ) -> Handler:
        """An answer without generation. A real server has those of embeddings and scores only
        with such a model, and then no chat."""

        async def handler(exchange: Exchange) -> None:
            ask, simulation = await self._read(exchange, reader, bounded=bounded)
            model = self._models.resolve(ask.model)
            created_s = int(self._clock.now_s())
            body = write(_request_id(exchange), created_s, model, ask)
            await send_whole(exchange, body, simulation.breaks[0] if simulation.breaks else None)

        return handler

    async def _read(
        self,
        exchange: Exchange,
        reader: Callable[[Fields], Ask],
        *,
        bounded: bool = True,
        form: bool = False,
    ) -> tuple[Ask, Simulation]:
        """The request, after the failures that come before an answer. The context bounds its
        length where it is `bounded`."""
        body = await exchange.read_body()
        exchange.watch()
        own = parse_header(exchange.header(b"x-simulate"))
        simulation = self._for_all.overridden_by(own)
        if simulation.status is not None:
            raise forced_status(simulation.status)
        if simulation.hang_up is not None:
            await exchange.pause(simulation.hang_up)
            await exchange.cut()
            exchange.check()
        kind = exchange.header(b"content-type")
        ask = reader(await read_form(kind, body) if form else read_json(kind, body))
        self._models.resolve(ask.model)
        if bounded:
            requests.check_lengths(ask, self._settings.max_model_len)
        if simulation.headers_delay is not None:
            self._metrics.waiting += 1
            try:
                await exchange.pause(simulation.headers_delay)
            finally:
                self._metrics.waiting -= 1
        return ask, simulation

    def _plan(self, answer_id: str, ask: Ask, simulation: Simulation) -> Answer:
        settings = self._settings
        model = self._models.resolve(ask.model)
        counts = tuple(prompts.count_tokens(prompt) for prompt in ask.prompts)
        limit = 1 if ask.max_tokens == 0 else ask.max_tokens  # `echo` alone still generates one
        sequences = plan(
            counts,
            ask.n,
            max_tokens=limit,
            natural_tokens=simulation.output_tokens,
            context=settings.max_model_len,
            default_tokens=settings.default_output_tokens,
        )
        cached = tuple(
            self._cache.cached_tokens(model, ask.cache_salt, prompt) for prompt in ask.prompts
        )
        return Answer(
            id=answer_id,
            created_s=int(self._clock.now_s()),
            model=model,
            sequences=sequences,
            prompt_tokens=counts,
            cached_tokens=cached,
            include_usage=ask.include_usage or settings.force_usage,
            continuous_usage=ask.continuous_usage or settings.force_usage,
            show_details=settings.prompt_tokens_details,
        )

    async def _play(
        self,
        exchange: Exchange,
        ask: Ask,
        answer: Answer,
        simulation: Simulation,
        writer: Writer,
    ) -> None:
        adapter = answer.model if answer.model != self._models.base else None
        cached = sum(answer.cached_tokens) * ask.n
        pace = Pace(
            self._settings.ttft_s if simulation.ttft is None else simulation.ttft,
            self._settings.token_interval_s if simulation.interval is None else simulation.interval,
            simulation.breaks,
        )
        run = self._metrics.start(answer.sequences, cached, adapter)
        playback = Playback(exchange, self._metrics, run, answer, pace)
        try:
            await (playback.stream(writer) if ask.stream else playback.whole(writer))
        finally:
            self._metrics.end(run)

    # --- models and adapters ---------------------------------------------------------------

    async def _list_models(self, exchange: Exchange) -> None:
        await _answer_json(exchange, self._models.listing())

    async def _load_adapter(self, exchange: Exchange) -> None:
        text = self._models.load(await _fields(exchange))
        await exchange.answer(200, text.encode(), None)

    async def _unload_adapter(self, exchange: Exchange) -> None:
        text = self._models.unload(await _fields(exchange))
        await exchange.answer(200, text.encode(), None)

    def _tokenize_body(self, _: str, __: int, ___: str, ask: Ask) -> bytes:
        tokens = prompts.token_ids(ask.prompts[0])
        shown = {
            "count": len(tokens),
            "max_model_len": self._settings.max_model_len,
            "tokens": tokens,
            "token_strs": None,
        }
        return to_json(shown).encode()

    # --- the server itself -----------------------------------------------------------------

    async def _health(self, exchange: Exchange) -> None:
        await exchange.answer(200, b"", None)

    async def _load(self, exchange: Exchange) -> None:
        await _answer_json(exchange, {"server_load": len(self._metrics.running)})

    async def _version(self, exchange: Exchange) -> None:
        await _answer_json(exchange, {"version": VERSION})

    async def _show_metrics(self, exchange: Exchange) -> None:
        await exchange.answer(200, self._exposition.page(), CONTENT_TYPE_LATEST)

    # --- failures on demand ----------------------------------------------------------------

    async def _show_simulation(self, exchange: Exchange) -> None:
        await _answer_json(exchange, self._for_all.words())

    async def _set_simulation(self, exchange: Exchange) -> None:
        self._for_all = parse_words((await _fields(exchange)).values)
        await self._show_simulation(exchange)

    async def _clear_simulation(self, exchange: Exchange) -> None:
        self._for_all = Simulation()
        await self._show_simulation(exchange)


async def _fields(exchange: Exchange) -> Fields:
    body = await exchange.read_body()
    return read_json(exchange.header(b"content-type"), body)


async def _answer_json(exchange: Exchange, value: object) -> None:
    await exchange.answer(200, to_json(value).encode(), _JSON)


async def _answer_error(exchange: Exchange, error: VllmError) -> None:
    anthropic = exchange.path.startswith(_ANTHROPIC_PATH)
    body = error.anthropic_body() if anthropic else error.openai_body()
    await exchange.answer(error.status, body, _JSON)


def _count_body(_: str, __: int, ___: str, ask: Ask) -> bytes:
    return to_json({"input_tokens": prompts.count_tokens(ask.prompts[0])}).encode()


def _request_id(exchange: Exchange) -> str:
    """The client's X-Request-Id, which vLLM takes for its own, or a fresh one."""
    return exchange.header(b"x-request-id") or _fresh_id()


def _fresh_id() -> str:
    return uuid.uuid4().hex
