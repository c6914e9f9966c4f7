"""Adapters that were registered at run time, as models of a request. Pure.

A caller that may use the base model may use the tenant's adapters on it. So the limits and the
prices of the base model hold for them. A key with a list of models needs no other rule.
"""

from dataclasses import replace

from extproc.asked import RefusedError
from extproc.types import Pin
from extproc.versions import pin
from headgate.core.adapters import (
    Adapters,
    AdaptersUnavailableError,
    RegisteredAdapter,
    model_of_adapter,
)
from headgate.core.contract import RequestKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Caller, CompiledPolicy, Model, Tenant


class NotLoadedError(RefusedError):
    """No pod has the version that a request needs. Its name is `version`."""

    def __init__(self, name: str, version: str) -> None:
        message = f"The model '{name}' is being loaded. Try again."
        super().__init__(ApiError(Refusal.MODEL_NOT_LOADED, message, RequestKey.MODEL))
        self.version = version


def find_adapter(
    name: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters
) -> RegisteredAdapter | None:
    """The adapter of this name, if the tenant may use it. A model of the policy goes first.

    Every foreign name and one that nobody has take the same steps, and so the same time. Raises
    RefusedError while it is not known which adapters there are.
    """
    try:
        adapter = adapters.find(name, tenant.name)
    except AdaptersUnavailableError:
        raise RefusedError(_UNKNOWN_REGISTRY) from None
    if adapter is None or name in policy.models or adapter.base not in tenant.models:
        return None
    return adapter


def adapter_model(
    name: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters
) -> Model | None:
    """The adapter as a model, before one of its versions is chosen. Raises RefusedError."""
    adapter = find_adapter(name, tenant, policy, adapters)
    return None if adapter is None else model_of_adapter(adapter, policy)


def on_version(model: Model, version: str | None, adapters: Adapters) -> Model:
    """The model on this version; with None or one without a weight, on the first that has one.

    Where Headgate loads adapters, its pods are those that have it. Raises NotLoadedError if there
    are none.
    """
    versions = model.adapter_versions
    if versions is None:
        return model
    if version in versions.live:
        model = replace(model, served_as=version, adapter=version)
    if model.adapter_pool is None:
        return model
    pods = adapters.pods_of(model.served_as)
    if not pods:
        raise NotLoadedError(model.name, model.served_as)
    return replace(model, pods=pods)


def version_pin(model: Model, caller: Caller, conversation: str) -> Pin | None:
    """The version to remember for the conversation; None for a model with one version at most."""
    versions = model.adapter_versions
    if versions is None or len(versions.all) == 1:
        return None
    return pin(versions, caller, model.name, conversation)


_UNKNOWN_REGISTRY = ApiError(
    Refusal.UNAVAILABLE, "The gateway does not know yet which models you have. Try again."
)
