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
/readyz   200 once it can serve, 503 with what is missing and why
/metrics  Prometheus or OpenMetrics text
/debug/config  the settings in force, without passwords

For deployments of envoyproxy/ratelimit:
/healthcheck  200 once it can serve, 500 otherwise
/rlconfig     the limits of --ratelimit-config
"""


def admin_app(
    registry: CollectorRegistry,
    ready: Callable[[], Mapping[str, str]],
    rate_limits: Callable[[], str] = str,
    config: Callable[[], Any] = dict,
) -> Starlette:
    """The admin application.

    `ready` names each part that must be ready before traffic may come, and why it is not; the
    reason is empty for a ready one. `config` is what /debug/config shows. `rate_limits` describes
    the limits of --ratelimit-config that are in force.
    """

    async def readyz(_request: Request) -> Response:
        why = {name: reason for name, reason in ready().items() if reason}
        answer = {"ready": not why, "missing": sorted(why), "why": why}
        return JSONResponse(answer, status_code=503 if why else 200)

    async def healthcheck(_request: Request) -> Response:
        is_ready = not any(ready().values())
        return PlainTextResponse("OK" if is_ready else "", status_code=200 if is_ready else 500)

    async def rlconfig(_request: Request) -> Response:
        return PlainTextResponse(rate_limits())

    async def metrics(request: Request) -> Response:
        return _exposition(registry, request.headers.get("accept", ""))

    return Starlette(
        routes=[
            Route("/", _index),
            Route("/healthz", _healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/debug/config", _json_page(config)),
            Route("/healthcheck", healthcheck),
            Route("/rlconfig", rlconfig),
        ]
    )


def _json_page(content: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def page(_request: Request) -> Response:
        return JSONResponse(content())

    return page


async def _index(_request: Request) -> Response:
    return PlainTextResponse(_INDEX)


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _exposition(registry: CollectorRegistry, accept: str) -> Response:
    """The metrics in the format that `Accept` names (Prometheus text where it names none)."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # an Accept whose version is no number
        encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    return Response(encode(registry), headers={"content-type": content_type})
