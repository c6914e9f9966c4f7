"""The model list of one tenant, in OpenAI's shape (GET /v1/models and /v1/models/{id})."""

import json
from urllib.parse import unquote

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


def list_body(tenant: Tenant, policy: CompiledPolicy) -> bytes:
    """The models that the tenant may use, sorted by name.

    vLLM's own list is not shown. It names every tenant's adapters and the server's file paths.
    """
    models = (model_of(name, tenant, policy) for name in sorted(tenant.models))
    data = [_entry(model) for model in models if model is not None]
    return json.dumps({"object": "list", "data": data}).encode()


def model_body(model: Model) -> bytes:
    """One entry of the list."""
    return json.dumps(_entry(model)).encode()


def _entry(model: Model) -> dict[str, str | int]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "headgate",
        "max_model_len": model.context_tokens,
    }
