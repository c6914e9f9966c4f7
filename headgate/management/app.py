"""The HTTP application of the management API: log in, find the right, call the handler."""

import re
from collections.abc import Sequence

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headgate.core.issuers import Role
from headgate.core.policy import CompiledPolicy
from headgate.identity.change_log import Actor
from headgate.identity.keys import Key, KeyRuleError
from headgate.management.callers import Callers, address_of
from headgate.management.calls import Answer, Call, Desk
from headgate.management.endpoints import ENDPOINTS, PREFIX, Endpoint
from headgate.management.failures import without_errors
from headgate.management.openapi import document
from headgate.management.problems import ProblemError, problem_response
from headgate.management.rights import Manager, has_role, owns
from headgate.management.ways import ways_route

MAX_BODY_BYTES = 64 * 1024
_KEY_ID = re.compile(r"~[0-9a-f]{16}")
_NO_KEY = "There is no such key, or none that you may see."


def management_app(desk: Desk, callers: Callers, pages: Sequence[BaseRoute] = ()) -> Starlette:
    """The application, with `pages` for people beside the API.

    Every answer of the API needs a login, but the OpenAPI document and the ways to log in.
    """
    routes = [_route(endpoint, desk, callers) for endpoint in ENDPOINTS]
    described = Route(f"{PREFIX}/openapi.json", _openapi)
    return Starlette(
        routes=[described, ways_route(desk.policy, PREFIX), *routes, *pages],
        exception_handlers={HTTPException: _http_problem},
    )


def _route(endpoint: Endpoint, desk: Desk, callers: Callers) -> Route:
    name = f"{endpoint.method} {endpoint.path}"

    async def answered(request: Request) -> Response:
        return await without_errors(name, lambda: _answer(endpoint, desk, callers, request))

    # Names of users may have slashes.
    path = PREFIX + endpoint.path.replace("{user}", "{user:path}")
    return Route(path, answered, methods=[endpoint.method])


async def _answer(endpoint: Endpoint, desk: Desk, callers: Callers, request: Request) -> Response:
    origin = address_of(request)
    manager = await callers.manager(request)
    policy = desk.policy()
    tenant, key = await _allowed(endpoint, manager, request, desk, policy)
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


async def _allowed(
    endpoint: Endpoint, manager: Manager, request: Request, desk: Desk, policy: CompiledPolicy
) -> tuple[str, Key | None]:
    """The tenant and the key that the call is about. Raises ProblemError without the right."""
    if "tenant" in request.path_params:
        return _allowed_tenant(endpoint, manager, request.path_params["tenant"], policy), None
    if "key" in request.path_params:
        key = await _allowed_key(endpoint, manager, request.path_params["key"], desk)
        return key.request.tenant, key
    if not manager.is_operator and not any(
        has_role(manager, endpoint.least, one) for one in manager.tenants
    ):
        raise ProblemError(403, f"This needs the role `{endpoint.least}`.")
    return "", None


def _allowed_tenant(
    endpoint: Endpoint, manager: Manager, tenant: str, policy: CompiledPolicy
) -> str:
    if not has_role(manager, endpoint.least, tenant):
        raise ProblemError(403, f"This needs the role `{endpoint.least}` in that tenant.")
    if tenant not in policy.tenants:
        raise ProblemError(404, "The policy has no such tenant.")
    return tenant


async def _allowed_key(endpoint: Endpoint, manager: Manager, key_id: str, desk: Desk) -> Key:
    """A key of another tenant, and another user's key, look as if they did not exist."""
    if _KEY_ID.fullmatch(key_id) is None:
        raise ProblemError(404, _NO_KEY)
    try:
        key = await desk.store.get(key_id)
    except KeyRuleError:
        raise ProblemError(404, _NO_KEY) from None
    tenant, user = key.request.tenant, key.request.user
    is_own = owns(manager, tenant, user)
    if has_role(manager, endpoint.least, tenant) or (endpoint.own and is_own):
        return key
    if is_own or has_role(manager, Role.FINANCE, tenant):
        raise ProblemError(403, f"This needs the role `{endpoint.least}` in the key's tenant.")
    raise ProblemError(404, _NO_KEY)


async def _body(endpoint: Endpoint, request: Request) -> object:
    if endpoint.input is None:
        return None
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise ProblemError(413, f"The body has more than {MAX_BODY_BYTES} bytes.")
    try:
        return msgspec.json.decode(bytes(raw) or b"{}", type=endpoint.input)
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
    return problem_response(ProblemError(error.status_code, error.detail))


async def _openapi(_request: Request) -> Response:
    return Response(msgspec.json.encode(document()), media_type="application/json")
