"""The ways to get a token on a command line, which `headgate login` reads before anything else."""

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.core.issuers import Issuer, LoginToken
from headgate.core.policy import CompiledPolicy
from headgate.management.calls import Page
from headgate.management.records import Output


class WayBody(Output):
    """The device flow (RFC 8628) of an issuer. `token` is the member of its answer that counts."""

    name: str
    issuer: str
    client_id: str
    scopes: list[str]
    token: LoginToken


def ways_route(policy: Callable[[], CompiledPolicy], prefix: str) -> Route:
    """The list of all ways. It needs no login, and holds no secret."""

    async def answered(_request: Request) -> Response:
        bodies = [_body(one) for one in policy().issuers.values()]
        page = Page([body for body in bodies if body is not None])
        return Response(msgspec.json.encode(page), media_type="application/json")

    return Route(f"{prefix}/login", answered)


def _body(issuer: Issuer) -> WayBody | None:
    client = issuer.device_login
    if client is None:
        return None
    return WayBody(
        name=issuer.alias,
        issuer=issuer.url,
        client_id=client.client_id,
        scopes=list(client.scopes),
        token=client.token,
    )
