"""The model list of one tenant, in OpenAI's shape (GET /v1/models and /v1/models/{id})."""

import json
from urllib.parse import unquote

from extproc.adapters import adapter_model
from headgate.core.adapters import Adapters
from headgate.core.auto import AUTO
from headgate.core.policy import CompiledPolicy, Model, Tenant

_PREFIX = "/v1/models/"


def asked_model_id(path: str) -> str | None:
    """The id in a path of the model list; None for the list itself.

    Clients escape the slashes of an id (`org%2Fmodel`). It is decoded once, and only looked up
    among the names of the policy: `%252F` and `..` are in no name.
    """
    bare = path.partition("?")[0]
    return (unquote(bare[len(_PREFIX) :]) or None) if bare.startswith(_PREFIX) else None


def model_of(name: str, tenant: Tenant, policy: CompiledPolicy) -> Model | None:
    """The model of this name, if the tenant may use it."""
    return policy.models.get(name) if name in tenant.models else None


def list_body(tenant: Tenant, policy: CompiledPolicy, adapters: Adapters) -> bytes:
    """The models that the tenant may use, sorted by name. Raises RefusedError.

    vLLM's own list is not shown. It names every tenant's adapters and the server's file paths.
    """
    names = sorted({*tenant.models, *adapters.names_of(tenant.name)})
    entries = (_entry_of(name, tenant, policy, adapters) for name in names)
    data = [entry for entry in entries if entry is not None]
    return json.dumps({"object": "list", "data": data}).encode()


def model_body(
    name: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters
) -> bytes | None:
    """One entry of the list; None if the tenant may not use such a model. Raises RefusedError."""
    entry = _entry_of(name, tenant, policy, adapters)
    return None if entry is None else json.dumps(entry).encode()


def _entry_of(
    name: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters
) -> dict[str, str | int] | None:
    if name == AUTO and tenant.has_auto:
        return _entry(AUTO, policy.models[tenant.sizes[-1].model].context_tokens)
    model = model_of(name, tenant, policy) or adapter_model(name, tenant, policy, adapters)
    return None if model is None else _entry(model.name, model.context_tokens)


def _entry(name: str, context_tokens: int) -> dict[str, str | int]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "headgate",
        "max_model_len": context_tokens,
    }
