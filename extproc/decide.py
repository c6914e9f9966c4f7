"""What is asked? The decision of ext_proc, without its transport."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from extproc.asked import (
    ClientUsage,
    RefusedError,
    Value,
    read_asked,
    read_model_name,
    refuse_hidden,
    refuse_not_served,
)
from extproc.estimate import Estimator, audio_estimate
from extproc.form import FormRewrite, UsageFields
from extproc.limits import asked_model
from extproc.models import asked_model_id, list_body, model_body, model_of
from extproc.splice import Rewrite
from extproc.versions import Pin, pin
from headgate.core.apis import (
    FORM_APIS,
    WITHOUT_USAGE,
    Api,
    ErrorShape,
    endpoint_of,
    error_shape_of,
)
from headgate.core.contract import (
    BODY_FORM,
    BODY_READ,
    CACHE_SALT,
    PLATFORM_FIELDS,
    VERSION_HEADER,
    AdmissionKey,
    Header,
    RequestKey,
)
from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Caller, CompiledPolicy, Model, PerSecond, Tenant
from headgate.core.settlement import Estimate


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What Envoy tells of one request.

    `caller` comes from ext_authz's metadata only, never from a header. `values` are the body's
    fields by `RequestKey`. `size_bytes` is the body's size, None where it is not known. `version`
    is what the client's `VERSION_HEADER` says.
    """

    path: str
    caller: Caller | None
    values: Mapping[str, Value]
    size_bytes: int | None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Admit:
    """The request goes on, with these headers and this metadata, once `rewrite` is done.

    With a `pin` its version is that of the pin, which is to be kept first. `chose_version` says
    that its client has chosen.
    """

    headers: Mapping[Header, str]
    admission: Mapping[AdmissionKey, str]
    rewrite: Rewrite | FormRewrite | None
    pin: Pin | None = None
    chose_version: bool = False

    def with_version(self, version: str) -> "Admit":
        """The same, on this version."""
        return replace(
            self,
            headers={**self.headers, Header.VERSION: version},
            admission={**self.admission, AdmissionKey.VERSION: version},
            pin=None,
        )


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request ends here with an error, in the shape of its API."""

    error: ApiError
    shape: ErrorShape


@dataclass(frozen=True, slots=True)
class Answer:
    """The request ends here with 200 and this JSON body."""

    api: Api
    body: bytes


@dataclass(frozen=True, slots=True)
class Peek:
    """The request ends here with what is left of the caller's limits, on `model` (None: on all)."""

    tenant: Tenant
    caller: Caller
    model: str | None


Decision = Admit | Refuse | Answer | Peek


def decide(
    facts: RequestFacts, policy: CompiledPolicy, estimator: Estimator, reservation_id: str
) -> Decision:
    """Answers the lists; for inference finds the model and what the request may cost."""
    try:
        caller, tenant = _identify(facts, policy)
        api = _api_of(facts.path, policy)
        if api is Api.MODELS:
            return _model_list(facts.path, tenant, policy)
        if api is Api.LIMITS:
            return Peek(tenant, caller, _own_model(asked_model(facts.path), tenant, policy))
        _need_body(api, facts.values)
        refuse_hidden(facts.values)
        model = _find_model(read_model_name(facts.values), tenant, policy)
        counted = isinstance(policy.without_usage.get(api), PerSecond)
        asked = read_asked(api, facts.values, model.context_tokens, counts_audio=counted)
        rewrite = _rewrite(api, model, asked.client_usage, tenant, facts.values)
        chosen = _chosen_version(facts.version, tenant, model)
    except RefusedError as refused:
        return Refuse(refused.error, error_shape_of(facts.path))
    estimate = _priced(api, facts, model, policy) or estimator.estimate(
        caller.tenant,
        model.name,
        facts.size_bytes,
        max_tokens=asked.max_tokens,
        n=asked.n * asked.prompts,
        context_tokens=model.context_tokens,
        many_prompts=api in _MANY_PROMPTS,
    )
    admit = Admit(
        headers=_headers(caller, tenant, model, facts.values),
        admission={
            AdmissionKey.RESERVATION: reservation_id,
            AdmissionKey.API: api,
            AdmissionKey.CHOICES: str(asked.n),
            AdmissionKey.CLIENT_USAGE: asked.client_usage,
            AdmissionKey.ESTIMATE: str(estimate.tokens),
            AdmissionKey.ESTIMATE_PROMPT: str(estimate.prompt),
            **_per_second(estimate),
            **_who_and_what(caller, model),
        },
        rewrite=rewrite,
        chose_version=chosen is not None,
    )
    return _on_version(admit, model, caller, chosen)


def _on_version(admit: Admit, model: Model, caller: Caller, chosen: str | None) -> Admit:
    """The request on the version that its client has chosen, or on that of its conversation."""
    if model.versions is None:
        return admit
    if chosen is not None:
        return admit.with_version(chosen)
    wanted = pin(model.versions, caller, model.base, admit.headers[Header.AFFINITY])
    if len(model.versions.all) == 1:
        return admit.with_version(wanted.version)
    # Remembered also while one version has all the weight: a canary that begins moves nobody.
    return replace(admit, pin=wanted)


def _chosen_version(asked: str | None, tenant: Tenant, model: Model) -> str | None:
    """The client's word, where its tenant has one: also for a version without a weight."""
    if not asked or not tenant.chooses_version or model.versions is None:
        return None
    if asked in model.versions.names:
        return asked
    raise RefusedError(
        ApiError(
            Refusal.BAD_REQUEST,
            f"The model '{model.name}' has no version '{asked[:32]}': it has"
            f" {', '.join(model.versions.names)}.",
            VERSION_HEADER,
        )
    )


def _identify(facts: RequestFacts, policy: CompiledPolicy) -> tuple[Caller, Tenant]:
    tenant = policy.tenants.get(facts.caller.tenant) if facts.caller is not None else None
    if facts.caller is None or tenant is None:
        raise RefusedError(_NO_CALLER)
    return facts.caller, tenant


def _api_of(path: str, policy: CompiledPolicy) -> Api:
    endpoint = endpoint_of(path)
    if endpoint is None:
        raise RefusedError(_UNKNOWN_PATH)
    if endpoint.api in WITHOUT_USAGE and endpoint.api not in policy.without_usage:
        raise RefusedError(_UNKNOWN_PATH)
    return endpoint.api


def _priced(api: Api, facts: RequestFacts, model: Model, policy: CompiledPolicy) -> Estimate | None:
    """What the policy charges for one request of an API without usage, None for its estimate."""
    price = policy.without_usage.get(api)
    if isinstance(price, PerSecond):
        stream = facts.values.get(RequestKey.STREAM) is True
        return audio_estimate(
            facts.size_bytes, price.tokens, stream=stream, context_tokens=model.context_tokens
        )
    return None if price is None else Estimate(tokens=price, prompt=price)


def _per_second(estimate: Estimate) -> dict[AdmissionKey, str]:
    """Absent where there is no such price, so that the counters leave audio unread."""
    if estimate.per_second is None:
        return {}
    return {AdmissionKey.PER_SECOND: str(estimate.per_second)}


def _need_body(api: Api, values: Mapping[str, Value]) -> None:
    body = values.get(RequestKey.BODY)
    if api in FORM_APIS:
        if body != BODY_FORM:
            raise RefusedError(_NO_FORM)
        refuse_not_served(values)
    elif body != BODY_READ:
        raise RefusedError(_NO_BODY if body is None else _NOT_JSON)


def _model_list(path: str, tenant: Tenant, policy: CompiledPolicy) -> Answer:
    name = asked_model_id(path)
    if name is None:
        return Answer(Api.MODELS, list_body(tenant, policy))
    model = model_of(name, tenant, policy)
    if model is None:
        raise _unknown_model(name)
    return Answer(Api.MODELS, model_body(model))


def _own_model(name: str | None, tenant: Tenant, policy: CompiledPolicy) -> str | None:
    if name is not None and model_of(name, tenant, policy) is None:
        raise _unknown_model(name)
    return name


def _find_model(name: str, tenant: Tenant, policy: CompiledPolicy) -> Model:
    """Names come from the policy only: vLLM would follow `../` into its file system."""
    model = model_of(name, tenant, policy)
    if model is not None:
        return model
    other = policy.models.get(name)
    if other is None or other.adapter is not None:
        # Somebody else's adapter and one that does not exist must look the same.
        raise _unknown_model(name)
    raise RefusedError(
        ApiError(
            Refusal.FORBIDDEN_MODEL,
            f"Your tenant may not use the model '{name}'. GET /v1/models lists those it may.",
            RequestKey.MODEL,
        )
    )


def _headers(
    caller: Caller, tenant: Tenant, model: Model, values: Mapping[str, Value]
) -> dict[Header, str]:
    headers = {
        Header.TENANT: caller.tenant,
        Header.USER: caller.user,
        Header.MODEL: model.name,
        Header.BASE: model.base,
        Header.AFFINITY: _affinity(caller, values),
    }
    if model.adapter is not None:
        headers[Header.LORA] = model.adapter
    if tenant.tier is not None:
        headers[Header.TIER] = tenant.tier
    return headers


def _affinity(caller: Caller, values: Mapping[str, Value]) -> str:
    """What keeps requests on one pod: the client's cache key, hashed (it may hold any text, and
    tenants must not meet on it by choice), else the user.
    """
    key = values.get(RequestKey.PROMPT_CACHE_KEY)
    if not isinstance(key, str) or not key:
        return caller.user
    return hashlib.sha256(f"{caller.tenant}\0{key}".encode()).hexdigest()[:32]


def _who_and_what(caller: Caller, model: Model) -> dict[AdmissionKey, str]:
    """An absent adapter stays absent: the rate-limit actions' default value says so."""
    values = {
        AdmissionKey.TENANT: caller.tenant,
        AdmissionKey.USER: caller.user,
        AdmissionKey.KEY: caller.key,
        AdmissionKey.MODEL: model.name,
        AdmissionKey.BASE: model.base,
    }
    if model.adapter is not None:
        values[AdmissionKey.ADAPTER] = model.adapter
    return values


def _rewrite(
    api: Api,
    model: Model,
    client_usage: ClientUsage,
    tenant: Tenant,
    values: Mapping[str, Value],
) -> Rewrite | FormRewrite | None:
    """Nothing to rewrite is the usual case: then the body never leaves the proxy."""
    name = model.served_as if model.served_as != model.name else None
    # An aborted stream can only be charged by its tokens when each chunk carries usage.
    lacks_usage = client_usage in (ClientUsage.NONE, ClientUsage.FINAL)
    force_usage = lacks_usage and not model.forces_usage
    if api in FORM_APIS:
        return _form_rewrite(model, name, force_usage, values)
    sent = str(values.get(RequestKey.PLATFORM) or "").split(",")
    drop = tuple(field for field in PLATFORM_FIELDS if field in sent and field != CACHE_SALT)
    # A client's own salt is kept apart by tenant too: it could be another's.
    salted = tenant.name if tenant.cache_salt or CACHE_SALT in sent else None
    if name is None and not force_usage and not drop and salted is None:
        return None
    return Rewrite(name, force_usage, drop, salted)


def _form_rewrite(
    model: Model, name: str | None, force_usage: bool, values: Mapping[str, Value]
) -> FormRewrite | None:
    if name is None and not force_usage:
        return None
    at = values.get(RequestKey.MODEL_AT)
    if not isinstance(at, int | float):
        raise RefusedError(_NO_FORM)
    usage = None
    if force_usage:
        include, continuous = RequestKey.INCLUDE_USAGE_AT, RequestKey.CONTINUOUS_USAGE_AT
        usage = UsageFields(_place(values, include), _place(values, continuous))
    return FormRewrite(int(at), model.name.encode(), (name or model.name).encode(), usage)


def _place(values: Mapping[str, Value], key: RequestKey) -> int | None:
    at = values.get(key)
    return int(at) if isinstance(at, int | float) else None


def _unknown_model(name: str) -> RefusedError:
    message = f"The model '{name[:100]}' does not exist. GET /v1/models lists yours."
    return RefusedError(ApiError(Refusal.UNKNOWN_MODEL, message, RequestKey.MODEL))


_MANY_PROMPTS = frozenset({Api.EMBEDDINGS, Api.COMPLETIONS, Api.CHAT_BATCH, Api.SCORE, Api.RERANK})
"""The APIs whose one request may hold a list of prompts, each with a context of its own."""

_NO_CALLER = ApiError(Refusal.NO_KEY, "This request carries no known identity.")
_UNKNOWN_PATH = ApiError(Refusal.UNKNOWN_PATH, "This path is not served here.")
_NO_BODY = ApiError(
    Refusal.BAD_REQUEST,
    "A JSON body is needed, with the header `content-type: application/json`.",
)
_NO_FORM = ApiError(
    Refusal.BAD_REQUEST,
    "A multipart form is needed: its header `content-type: multipart/form-data; boundary=...`, the"
    " model once, and in each part one content-disposition as HTTP libraries write it.",
)
# The filter also says `unreadable` of a body that comes under another content type.
_NOT_JSON = ApiError(
    Refusal.BAD_REQUEST,
    "The body is not a JSON object, or its header `content-type` is not `application/json`.",
)
