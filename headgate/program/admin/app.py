"""HTTP for people and their tools: is it alive, is it ready, what does it count?

Nothing here is secret, and nothing here changes anything.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

_INDEX = """\
Headgate
/healthz  200 while the process lives
/readyz   200 once it can serve, 503 with what is missing and why; what is away meanwhile
/metrics  Prometheus or OpenMetrics text
/stats/prometheus  the metrics of Envoy itself, in one box
/debug/config  the settings in force, without passwords

For deployments of envoyproxy/ratelimit:
/healthcheck  200 once it can serve, 500 otherwise
/rlconfig     the limits of --ratelimit-config
"""


def admin_app(
    read_metrics: Callable[[], Awaitable[CollectorRegistry]],
    ready: Callable[[], Mapping[str, str]],
    *,
    degraded: Callable[[], Mapping[str, str]] = dict,
    rate_limits: Callable[[], str] = str,
    config: Callable[[], Any] = dict,
    envoy_metrics: Callable[[], Awaitable[str | None]] | None = None,
) -> Starlette:
    """The admin application.

    `read_metrics` returns those of the whole program. `ready` names each part that must be ready
    before traffic may come, and why it is not; the reason is empty for a ready one. `degraded`
    names each part that is away while traffic may come, and what follows. `rate_limits` describes
    the limits of --ratelimit-config in force. `config` is what /debug/config shows.
    `envoy_metrics` is None where no Envoy runs, and returns None while it does not answer.
    """

    async def readyz(_request: Request) -> Response:
        return _readiness(ready(), degraded())

    async def healthcheck(_request: Request) -> Response:
        is_ready = not any(ready().values())
        return PlainTextResponse("OK" if is_ready else "", status_code=200 if is_ready else 500)

    async def metrics(request: Request) -> Response:
        return _exposition(await read_metrics(), request.headers.get("accept", ""))

    return Starlette(
        routes=[
            Route("/", _index),
            Route("/healthz", _healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/stats/prometheus", _envoy_page(envoy_metrics)),
            Route("/debug/config", _json_page(config)),
            Route("/healthcheck", healthcheck),
            Route("/rlconfig", _text_page(rate_limits)),
        ]
    )


def _json_page(content: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def page(_request: Request) -> Response:
        return JSONResponse(content())

    return page


def _text_page(content: Callable[[], str]) -> Callable[[Request], Awaitable[Response]]:
    async def page(_request: Request) -> Response:
        return PlainTextResponse(content())

    return page


async def _index(_request: Request) -> Response:
    return PlainTextResponse(_INDEX)


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _readiness(parts: Mapping[str, str], degraded: Mapping[str, str]) -> Response:
    why = {name: reason for name, reason in parts.items() if reason}
    answer = {"ready": not why, "missing": sorted(why), "why": why, "degraded": dict(degraded)}
    return JSONResponse(answer, status_code=503 if why else 200)


def _envoy_page(
    read: Callable[[], Awaitable[str | None]] | None,
) -> Callable[[Request], Awaitable[Response]]:
    async def page(_request: Request) -> Response:
        if read is None:
            return PlainTextResponse("no Envoy runs here: ask the proxy\n", status_code=404)
        text = await read()
        if text is None:
            return PlainTextResponse("Envoy does not answer\n", status_code=503)
        return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    return page


def _exposition(registry: CollectorRegistry, accept: str) -> Response:
    """The metrics in the format that `Accept` names (Prometheus text where it names none)."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # an Accept whose version is no number
        encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    return Response(encode(registry), headers={"content-type": content_type})
