"""The OpenAPI document, made from the table of endpoints and from the bodies."""

import re
from functools import cache
from typing import Any

import msgspec

import headgate
from headgate.management.endpoints import ENDPOINTS, PREFIX, Endpoint
from headgate.management.records import Problem

_REF = "#/components/schemas/{name}"
_TEXT = {"type": "string"}
_HEADERS = {"POST": ("Idempotency-Key", "If-Match"), "PATCH": ("If-Match",)}


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
            str(endpoint.status): _content(endpoint.summary, "application/json", body),
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
    in_headers = [
        name
        for name in _HEADERS.get(endpoint.method, ())
        if (name == "Idempotency-Key") == ("{tenant}" in endpoint.path)
    ]
    return [
        *({"name": name, "in": "path", "required": True, "schema": _TEXT} for name in in_path),
        *({"name": name, "in": "query", "schema": _TEXT} for name in in_query),
        *({"name": name, "in": "header", "schema": _TEXT} for name in in_headers),
    ]


def _content(description: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _ref(body: type) -> dict[str, Any]:
    return {"$ref": _REF.format(name=body.__name__)}


def _schemas() -> dict[str, Any]:
    bodies = {Problem, *(one.output for one in ENDPOINTS)}
    bodies |= {one.input for one in ENDPOINTS if one.input is not None}
    ordered = sorted(bodies, key=lambda body: body.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=_REF)
    return schemas
