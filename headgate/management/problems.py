"""The refusals of the management API."""

from http import HTTPStatus

import msgspec
from starlette.responses import Response

from headgate.management.records import Problem


class ProblemError(Exception):
    """A request that gets an error: its status, and why. `field` names the value at fault."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field


def problem_response(error: ProblemError) -> Response:
    """The answer for an error."""
    title = HTTPStatus(error.status).phrase
    body = Problem(title=title, status=error.status, detail=error.detail, field=error.field)
    headers = {"cache-control": "no-store"}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 429:
        headers["retry-after"] = "60"
    if error.status == 503:
        headers["retry-after"] = "1"
    return Response(
        msgspec.json.encode(body), error.status, headers, media_type="application/problem+json"
    )
