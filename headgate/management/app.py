"""The HTTP application of the management API: log in, find the right, call the handler."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headgate.identity.change_log import Actor
from headgate.management.access import allowed
from headgate.management.bodies import body_of
from headgate.management.callers import Callers, address_of
from headgate.management.calls import Answer, Call, Desk
from headgate.management.endpoint import Endpoint
from headgate.management.endpoints import ENDPOINTS, PREFIX
from headgate.management.failures import without_errors
from headgate.management.openapi import document
from headgate.management.problems import ProblemError, problem_response
from headgate.management.ways import ways_route

MAX_BODY_BYTES = 64 * 1024


def management_app(desk: Desk, callers: Callers, pages: Sequence[BaseRoute] = ()) -> Starlette:
    """The application, with `pages` for people beside the API.

    Every answer of the API needs a login, but the OpenAPI document and the ways to log in.
    """
    by_path = groupby(sorted(ENDPOINTS, key=_path), _path)
    routes = [
        _route(path, {one.method: one for one in group}, desk, callers) for path, group in by_path
    ]
    described = Route(f"{PREFIX}/openapi.json", _openapi)
    return Starlette(
        routes=[described, ways_route(desk.policy, PREFIX), *routes, *pages],
        exception_handlers={HTTPException: _http_problem},
    )


def _path(endpoint: Endpoint) -> str:
    """Names of users may have slashes."""
    return PREFIX + endpoint.path.replace("{user}", "{user:path}")


def _route(path: str, by_method: Mapping[str, Endpoint], desk: Desk, callers: Callers) -> Route:
    """All endpoints of a path, so that the `allow` of a 405 names each of their methods."""

    async def answered(request: Request) -> Response:
        endpoint = by_method["GET" if request.method == "HEAD" else request.method]
        name = f"{endpoint.method} {endpoint.path}"
        return await without_errors(name, lambda: _answer(endpoint, desk, callers, request))

    return Route(path, answered, methods=list(by_method))


async def _answer(endpoint: Endpoint, desk: Desk, callers: Callers, request: Request) -> Response:
    origin = address_of(request)
    manager = await callers.manager(request)
    policy = desk.policy()
    tenant, key = await allowed(endpoint, manager, request.path_params, desk, policy)
    call = Call(
        desk=desk,
        policy=policy,
        manager=manager,
        by=Actor(manager.name, origin, manager.display_name),
        body=await _body(endpoint, request),
        tenant=tenant,
        key=key,
        path=request.path_params,
        query=dict(request.query_params),
        headers=request.headers,
    )
    return _response(endpoint, await endpoint.handle(call))


async def _body(endpoint: Endpoint, request: Request) -> object:
    if endpoint.input is None:
        return None
    raw = await body_of(request, MAX_BODY_BYTES, "body")
    try:
        return msgspec.json.decode(raw or b"{}", type=endpoint.input)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(422, f"The body is wrong: {error}") from None


def _response(endpoint: Endpoint, answer: Answer) -> Response:
    headers = {"cache-control": "no-store"}
    if answer.version is not None:
        headers["etag"] = f'"{answer.version}"'
    status = answer.status or endpoint.status
    body = msgspec.json.encode(answer.body)
    return Response(body, status, headers, media_type="application/json")


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these alone
    response = problem_response(ProblemError(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


async def _openapi(_request: Request) -> Response:
    return Response(msgspec.json.encode(document()), media_type="application/json")
