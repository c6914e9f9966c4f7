"""Looks up a request in the policy: its caller, its API, its model, and the work that it asks."""

from collections.abc import Mapping

from msgspec import Struct

from extproc.adapters import adapter_model, on_version, version_pin
from extproc.affinity import conversation
from extproc.asked import (
    Asked,
    RefusedError,
    hidden_field,
    read_asked,
    read_model_name,
    refuse_not_served,
)
from extproc.faults import compressed_body, large_body, unread_body
from extproc.field_rules import refuse_fields
from extproc.limits import asked_model
from extproc.models import asked_model_id, list_body, model_body, model_of
from extproc.own_keys import key_call
from extproc.rewrite import NO_FORM, rewrite_plan
from extproc.sizes import auto_model, is_auto, size_pin
from extproc.types import (
    Answer,
    FormRewrite,
    KeyCall,
    Peek,
    Pin,
    RequestFacts,
    Rewrite,
    SizePin,
    Value,
)
from headgate.core.adapters import NO_ADAPTERS, Adapters
from headgate.core.apis import FORM_APIS, WITHOUT_USAGE, Api, Door, door_of
from headgate.core.auto import AUTO
from headgate.core.contract import BODY_FORM, BODY_READ, VERSION_HEADER, RequestKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.key_ring import NO_KEYS, KeyRing, KeysUnavailableError, tenant_of
from headgate.core.policy import Caller, CompiledPolicy, Model, PerSecond, Tenant


class Inference(Struct, frozen=True, kw_only=True, gc=False):
    """A request for vLLM that passed every check: who asks for what, at which price.

    `price` is the policy's price of an API without usage: a number of tokens, a price for each
    second, or None for an estimate. `version` is the version that the client chose, None if it
    chose none.
    """

    caller: Caller
    tenant: Tenant
    api: Api
    model: Model
    asked: Asked
    price: int | PerSecond | None
    rewrite: Rewrite | FormRewrite | None
    version: str | None


def look_up(
    facts: RequestFacts,
    door: Door,
    policy: CompiledPolicy,
    keys: KeyRing = NO_KEYS,
    *,
    adapters: Adapters = NO_ADAPTERS,
) -> Inference | Answer | Peek | KeyCall:
    """The request in the policy's terms. Lists and keys are answered without vLLM.

    `keys` narrow the tenant for a key that was issued at run time. `adapters` are more models.
    Raises RefusedError for the first check that fails.
    """
    caller, tenant = _identify(facts.caller, policy, keys)
    api = _served_api(door, policy)
    if api is Api.MODELS:
        return _model_list(facts.path, tenant, policy, adapters)
    if api in (Api.LIMITS, Api.USAGE):
        return Peek(tenant, caller, _own_model(facts.path, tenant, policy, adapters), api)
    if api is Api.OWN_KEYS:
        return key_call(facts, caller, tenant, policy)
    _require_body(api, facts.values)
    named = _model(api, facts, tenant, policy, adapters)
    is_plain = named.adapter_versions is None
    model = named if is_plain else on_version(named, facts.adapter_version, adapters)
    refuse_fields(api, facts.values, (policy.fields, model.fields, tenant.fields))
    price = policy.without_usage.get(api)
    per_second = isinstance(price, PerSecond)
    asked = read_asked(api, facts.values, model.context_tokens, counts_audio=per_second)
    return Inference(
        caller=caller,
        tenant=tenant,
        api=api,
        model=model,
        asked=asked,
        price=price,
        rewrite=rewrite_plan(api, model, asked.client_usage, tenant, facts.values),
        version=_chosen_version(facts.version, tenant, model) if facts.version else None,
    )


def size_to_keep(
    facts: RequestFacts, policy: CompiledPolicy, keys: KeyRing = NO_KEYS
) -> SizePin | None:
    """The size that the conversation of a request for `auto` has at least from now on.

    None if there is none to remember. `look_up` refuses what is wrong with the request.
    """
    try:
        caller, tenant = _identify(facts.caller, policy, keys)
        model = _model(_served_api(door_of(facts.path), policy), facts, tenant, policy, NO_ADAPTERS)
    except RefusedError:
        return None
    return size_pin(model, facts, caller, tenant) if is_auto(facts, tenant) else None


def version_to_keep(
    facts: RequestFacts, policy: CompiledPolicy, keys: KeyRing, adapters: Adapters
) -> Pin | None:
    """The version of an adapter that a conversation has from this request on.

    None if there is none to remember. `look_up` refuses what is wrong with the request.
    """
    name = facts.values.get(RequestKey.MODEL)
    if not isinstance(name, str):
        return None
    try:
        caller, tenant = _identify(facts.caller, policy, keys)
        model = adapter_model(name, tenant, policy, adapters)
    except RefusedError:
        return None
    return None if model is None else version_pin(model, caller, conversation(caller, facts.values))


def _identify(
    caller: Caller | None, policy: CompiledPolicy, keys: KeyRing
) -> tuple[Caller, Tenant]:
    try:
        tenant = tenant_of(caller, policy, keys) if caller is not None else None
    except KeysUnavailableError:
        raise RefusedError(_UNKNOWN_SCOPE) from None
    if caller is None or tenant is None:
        raise RefusedError(_NO_CALLER)
    return caller, tenant


def _served_api(door: Door, policy: CompiledPolicy) -> Api:
    if door.endpoint is None:
        raise RefusedError(_UNKNOWN_PATH)
    api = door.endpoint.api
    if api in WITHOUT_USAGE and api not in policy.without_usage:
        raise RefusedError(_UNKNOWN_PATH)
    return api


def _model_list(path: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters) -> Answer:
    name = asked_model_id(path)
    if name is None:
        return Answer(Api.MODELS, list_body(tenant, policy, adapters))
    body = model_body(name, tenant, policy, adapters)
    if body is None:
        raise _unknown_model(name)
    return Answer(Api.MODELS, body)


def _own_model(path: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters) -> str | None:
    """The model whose limits are asked for; None for those of all, of which `auto` may be any."""
    name = asked_model(path)
    if name is None or (name == AUTO and tenant.has_auto):
        return None
    model = _named(name, tenant, policy, adapters)
    return model.counted_as or model.name


def _require_body(api: Api, values: Mapping[str, Value]) -> None:
    body = values.get(RequestKey.BODY)
    if values.get(RequestKey.FAULT) == "large":
        raise RefusedError(large_body(values))
    if values.get(RequestKey.FAULT) == "encoding":
        raise RefusedError(compressed_body(values))
    if api in FORM_APIS:
        if body != BODY_FORM:
            raise RefusedError(NO_FORM)
        refuse_not_served(values)
    elif body != BODY_READ:
        raise RefusedError(unread_body(values))
    if values.get(RequestKey.HIDDEN) is not None:
        raise hidden_field(values)


def _model(
    api: Api, facts: RequestFacts, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters
) -> Model:
    if is_auto(facts, tenant):
        return auto_model(api, facts, tenant, policy)
    return _find_model(read_model_name(facts.values), tenant, policy, adapters)


def _named(name: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters) -> Model:
    model = model_of(name, tenant, policy) or adapter_model(name, tenant, policy, adapters)
    if model is None:
        raise _unknown_model(name)
    return model


def _find_model(name: str, tenant: Tenant, policy: CompiledPolicy, adapters: Adapters) -> Model:
    """Names come only from the policy and the registry: vLLM would follow `../` into its files."""
    other = policy.models.get(name)
    if other is not None and name in tenant.models:
        return other
    if other is None or other.adapter is not None:
        # Another tenant's adapter must look exactly like one that does not exist.
        return _named(name, tenant, policy, adapters)
    who = "key" if name in policy.tenants[tenant.name].models else "tenant"
    raise RefusedError(
        ApiError(
            Refusal.FORBIDDEN_MODEL,
            f"Your {who} may not use the model '{name}'. GET /v1/models lists the models that"
            " it may use.",
            RequestKey.MODEL,
        )
    )


def _chosen_version(version: str, tenant: Tenant, model: Model) -> str | None:
    """The client's choice, if its tenant may choose. A version without a weight counts, too."""
    if not tenant.chooses_version or model.versions is None:
        return None
    if version in model.versions.names:
        return version
    raise RefusedError(
        ApiError(
            Refusal.BAD_REQUEST,
            f"The model '{model.name}' has no version '{version[:32]}'. Its versions are"
            f" {', '.join(model.versions.names)}.",
            VERSION_HEADER,
        )
    )


def _unknown_model(name: str) -> RefusedError:
    message = f"The model '{name[:100]}' does not exist. GET /v1/models lists your models."
    return RefusedError(ApiError(Refusal.UNKNOWN_MODEL, message, RequestKey.MODEL))


_NO_CALLER = ApiError(Refusal.NO_KEY, "This request carries no known identity.")
_UNKNOWN_SCOPE = ApiError(
    Refusal.UNAVAILABLE, "The gateway does not know yet what this API key may do. Try again."
)
_UNKNOWN_PATH = ApiError(Refusal.UNKNOWN_PATH, "Headgate does not serve this path.")
