"""The handlers of adapters that are registered at run time."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from headgate.adapters.rules import Adapter, AdapterRequest
from headgate.core.issuers import Role
from headgate.management.adapter_records import (
    AdapterBody,
    AdapterEdit,
    NewAdapter,
    adapter_body,
)
from headgate.management.calls import Answer, Call, Page, whole_number
from headgate.management.endpoint import Endpoint
from headgate.management.problems import ProblemError

LARGEST_VERSION = 1_000_000_000


async def list_adapters(call: Call[None]) -> Answer:
    """A page of the adapters by name; in a tenant those that it may use."""
    found = await call.desk.adapters.page(call.tenant or None, call.after, call.limit)
    data = await _bodies(call, found)
    return Answer(Page(data, found[-1].name if len(found) == call.limit else None))


async def register_adapter(call: Call[NewAdapter]) -> Answer:
    """The adapter with its new version, which pods load from now on."""
    body = call.body
    request = AdapterRequest(
        name=body.name,
        tenant=body.tenant,
        base=body.base,
        source=body.source,
        copies=body.copies,
        shared_with=tuple(body.shared_with),
    )
    return await _answer(call, await call.desk.adapters.register(request, call.policy, call.by))


async def get_adapter(call: Call[None]) -> Answer:
    """The adapter of the path, with the places of its versions."""
    return await _answer(call, await call.desk.adapters.get(call.path["adapter"]))


async def edit_adapter(call: Call[AdapterEdit]) -> Answer:
    """The adapter of the path, with what is changed."""
    body = call.body
    edited = await call.desk.adapters.edit(
        call.path["adapter"],
        call.policy,
        call.by,
        weights=None if body.weights is None else _numbers(body.weights),
        shared_with=body.shared_with,
        copies=body.copies,
    )
    return await _answer(call, edited)


async def withdraw_version(call: Call[None]) -> Answer:
    """The adapter of the path without a version, which pods unload once nobody uses it."""
    number = whole_number(call.path, "version", 0, LARGEST_VERSION)
    name = call.path["adapter"]
    return await _answer(call, await call.desk.adapters.withdraw(name, number, call.by))


async def remove_adapter(call: Call[None]) -> Answer:
    """The adapter of the path, which nobody may use any more."""
    return await _answer(call, await call.desk.adapters.remove(call.path["adapter"], call.by))


async def _answer(call: Call[Any], adapter: Adapter) -> Answer:
    [body] = await _bodies(call, [adapter])
    return Answer(body)


async def _bodies(call: Call[Any], adapters: Sequence[Adapter]) -> list[AdapterBody]:
    """The bodies, without what a tenant must not see of an adapter that is shared with it."""
    places = await call.desk.adapters.places(adapters)
    return [adapter_body(one, places, is_own=call.tenant in ("", one.tenant)) for one in adapters]


def _numbers(weights: Mapping[str, int]) -> dict[int, int]:
    """The weights by number. Raises ProblemError."""
    if not all(re.fullmatch(r"[1-9][0-9]{0,8}", name) for name in weights):
        raise ProblemError(422, "name versions by their numbers", "weights")
    return {int(name): weight for name, weight in weights.items()}


ADAPTER_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/tenants/{tenant}/adapters",
        summary="The adapters that a tenant may use",
        handle=list_adapters,
        least=Role.USER,
        output=AdapterBody,
        is_list=True,
    ),
    Endpoint(
        method="GET",
        path="/adapters",
        summary="All adapters that are registered at run time",
        handle=list_adapters,
        least=Role.OPERATOR,
        output=AdapterBody,
        is_list=True,
    ),
    Endpoint(
        method="POST",
        path="/adapters",
        summary="Register an adapter, or the next version of one",
        handle=register_adapter,
        least=Role.OPERATOR,
        input=NewAdapter,
        output=AdapterBody,
        status=201,
    ),
    Endpoint(
        method="GET",
        path="/adapters/{adapter}",
        summary="One adapter, with its versions and the pods that have them",
        handle=get_adapter,
        least=Role.OPERATOR,
        output=AdapterBody,
    ),
    Endpoint(
        method="PATCH",
        path="/adapters/{adapter}",
        summary="Give an adapter other weights, tenants or copies",
        handle=edit_adapter,
        least=Role.OPERATOR,
        input=AdapterEdit,
        output=AdapterBody,
    ),
    Endpoint(
        method="POST",
        path="/adapters/{adapter}/versions/{version}/withdraw",
        summary="Unload a version for good, once nobody uses it",
        handle=withdraw_version,
        least=Role.OPERATOR,
        output=AdapterBody,
    ),
    Endpoint(
        method="POST",
        path="/adapters/{adapter}/remove",
        summary="End an adapter with all of its versions",
        handle=remove_adapter,
        least=Role.OPERATOR,
        output=AdapterBody,
    ),
)
