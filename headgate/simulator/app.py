"""The simulated server as an ASGI application: its routes, and all that is not inference."""

from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST

from headgate.core.clock import Clock
from headgate.simulator.exchange import (
    ClientGoneError,
    EngineStoppedError,
    Exchange,
    Receive,
    Scope,
    Send,
)
from headgate.simulator.exposition import Exposition
from headgate.simulator.failures import Simulation, parse_words
from headgate.simulator.fields import Fields, read_json
from headgate.simulator.inference import VERSION, Handler, Inference
from headgate.simulator.metrics import EngineMetrics
from headgate.simulator.models import Models
from headgate.simulator.scheduler import Scheduler
from headgate.simulator.settings import Settings
from headgate.simulator.vllm_errors import VllmError, engine_dead, invalid_body, to_json

_JSON = "application/json"
_ANTHROPIC_PATH = "/v1/messages"


class Simulator:
    """One server. `stop` ends all running requests, the way vLLM's shutdown does."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._models = Models(
            settings.models, settings.adapters, settings.max_model_len, int(clock.now_s())
        )
        self._metrics = EngineMetrics(clock)
        scheduler = Scheduler(settings)
        self._exposition = Exposition(self._models.base, self._metrics, scheduler)
        self._inference = Inference(settings, clock, self._models, self._metrics, scheduler)
        self._open: set[Exchange] = set()
        inference = {path: {"POST": run} for path, run in self._inference.routes().items()}
        self._routes: dict[str, Mapping[str, Handler]] = {**inference, **self._server_routes()}

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

    def _server_routes(self) -> dict[str, Mapping[str, Handler]]:
        return {
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

    # --- models and adapters ---------------------------------------------------------------

    async def _list_models(self, exchange: Exchange) -> None:
        await _answer_json(exchange, self._models.listing())

    async def _load_adapter(self, exchange: Exchange) -> None:
        text = self._models.load(await _fields(exchange))
        await exchange.answer(200, text.encode(), None)

    async def _unload_adapter(self, exchange: Exchange) -> None:
        text = self._models.unload(await _fields(exchange))
        await exchange.answer(200, text.encode(), None)

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
        await _answer_json(exchange, self._inference.failures.words())

    async def _set_simulation(self, exchange: Exchange) -> None:
        self._inference.failures = parse_words((await _fields(exchange)).values)
        await self._show_simulation(exchange)

    async def _clear_simulation(self, exchange: Exchange) -> None:
        self._inference.failures = Simulation()
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
