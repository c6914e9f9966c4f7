"""The OpenAPI document, made from the table of endpoints and from the bodies."""

import re
from functools import cache
from typing import Any

import msgspec

import headgate
from headgate.adapters.rules import NAME as ADAPTER
from headgate.identity.keys import USER
from headgate.management.adapters import LARGEST_VERSION
from headgate.management.calls import IDEMPOTENCY_KEY, KEY_ID, LARGEST, MAX_CURSOR, MAX_PAGE
from headgate.management.endpoint import Endpoint
from headgate.management.endpoints import ENDPOINTS, PREFIX
from headgate.management.fields import whole
from headgate.management.records import IssuedKeyBody, Problem, RevocationBody

_REF = "#/components/schemas/{name}"
_NUMBER = {"type": "integer", "minimum": 1, "maximum": LARGEST}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "tenant": {"type": "string"},
    "user": {"type": "string", "pattern": whole(USER.pattern)},
    "key": {"type": "string", "pattern": whole(KEY_ID.pattern)},
    "month": {"type": "string", "pattern": whole("[0-9]{4}-(?:0[1-9]|1[0-2])")},
    "revocation": _NUMBER,
    "adapter": {"type": "string", "pattern": whole(ADAPTER.pattern)},
    "version": {"type": "integer", "minimum": 1, "maximum": LARGEST_VERSION},
    "number": _NUMBER,
    "hash": {"type": "string", "pattern": whole("[0-9a-fA-F]{64}")},
    "after": {"type": "string", "pattern": whole(f"[ -~]{{0,{MAX_CURSOR}}}")},
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    "Idempotency-Key": {"type": "string", "pattern": whole(IDEMPOTENCY_KEY.pattern)},
    "If-Match": {"type": "string", "pattern": whole(r'\*|"[0-9]{1,18}"')},
}
_TEXT = {"type": "string", "pattern": whole(r"[^\0]{1,512}")}
_TIME = {"type": "string", "format": "date-time"}
_FILTERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("tenant", "user", "key", "model", "refused_by", "request_id"), _TEXT),
    "ip": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    "status": {"type": "integer", "minimum": 100, "maximum": 999},
    **dict.fromkeys(("from", "to"), _TIME),
}
"""The schemas of a search, which finds nothing for a name that nobody has."""
_MADE: dict[type, tuple[str, str]] = {
    IssuedKeyBody: ("key", "$response.body#/key/id"),
    RevocationBody: ("revocation", "$response.body#/id"),
}
"""What a 201 has made: the name that paths give it, and where its id stands."""


@cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1. `x-headgate-role` is the least role of an operation.

    `x-headgate-own` says that the user of the key may use it without that role.
    """
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        operations = paths.setdefault(PREFIX + endpoint.path, {})
        operations[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headgate management API", "version": headgate.__version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    body = _ref(endpoint.output)
    if endpoint.is_list:
        page = {"data": {"type": "array", "items": body}, "next": {"type": ["string", "null"]}}
        body = {"type": "object", "required": ["data", "next"], "properties": page}
    operation: dict[str, Any] = {
        "operationId": endpoint.handle.__name__ + ("_of_tenant" if _both(endpoint) else ""),
        "summary": endpoint.summary,
        "x-headgate-role": endpoint.least,
        "x-headgate-own": endpoint.own,
        "parameters": list(_parameters(endpoint)),
        "responses": {
            str(endpoint.status): {
                **_content(endpoint.summary, "application/json", body),
                **_links(endpoint),
            },
            "default": _content("The problem", "application/problem+json", _ref(Problem)),
        },
    }
    if endpoint.input is not None:
        content = _content("", "application/json", _ref(endpoint.input))["content"]
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _both(endpoint: Endpoint) -> bool:
    """Whether the handler serves another path too, without the tenant."""
    same = [one for one in ENDPOINTS if one.handle is endpoint.handle]
    return len(same) > 1 and "{tenant}" in endpoint.path


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    in_path = re.findall(r"{(\w+)}", endpoint.path)
    in_query = (*endpoint.query, *(("after", "limit") if endpoint.is_list else ()))
    schemas = {**_PARAMETERS, **({"after": _NUMBER} if endpoint.is_numbered else {})}
    if endpoint.query:
        schemas |= {name: _FILTERS.get(name, schemas.get(name, {})) for name in endpoint.query}
    places = [("path", in_path), ("query", in_query), ("header", _headers(endpoint))]
    return [
        {"name": name, "in": place, "required": place == "path", "schema": schemas[name]}
        for place, names in places
        for name in names
    ]


def _headers(endpoint: Endpoint) -> list[str]:
    """A new key may have an Idempotency-Key, and a change of a key the version that was seen."""
    if endpoint.method == "GET":
        return []
    if endpoint.output is IssuedKeyBody and endpoint.status == 201:
        return ["Idempotency-Key"]
    return ["If-Match"] if "{key}" in endpoint.path else []


def _links(endpoint: Endpoint) -> dict[str, Any]:
    """The operations on what this one makes."""
    if endpoint.status != 201 or endpoint.output not in _MADE:
        return {}
    name, id = _MADE[endpoint.output]
    found = [one.handle.__name__ for one in ENDPOINTS if f"{{{name}}}" in one.path]
    return {"links": {one: {"operationId": one, "parameters": {name: id}} for one in found}}


def _content(description: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _ref(body: type) -> dict[str, Any]:
    return {"$ref": _REF.format(name=body.__name__)}


def _schemas() -> dict[str, Any]:
    bodies = {Problem, *(one.output for one in ENDPOINTS)}
    bodies |= {one.input for one in ENDPOINTS if one.input is not None}
    ordered = sorted(bodies, key=lambda body: body.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=_REF)
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schemas))
    return plain
