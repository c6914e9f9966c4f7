"""The decision of ext_proc about one request, without its transport."""

from collections.abc import Mapping

from msgspec.structs import replace

from extproc.adapters import NotLoadedError
from extproc.affinity import affinity, conversation, placing
from extproc.asked import RefusedError, read_whole
from extproc.cache.asked import caching_of
from extproc.estimate import Estimator, PromptSize, Subject, audio_estimate
from extproc.failover import failover_of
from extproc.holds import output_cap
from extproc.lookup import Inference, look_up
from extproc.types import Admit, Refuse, RequestDecision, RequestFacts, Value
from extproc.versions import pin
from headgate.core.adapters import NO_ADAPTERS, Adapters
from headgate.core.apis import Api, door_of
from headgate.core.contract import AdmissionKey, Header, RequestKey
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.policy import CompiledPolicy, Model, PerSecond
from headgate.core.settlement import Estimate
from headgate.core.versions import Versions

_MANY_PROMPTS = frozenset({Api.EMBEDDINGS, Api.COMPLETIONS, Api.CHAT_BATCH, Api.SCORE, Api.RERANK})
"""The APIs whose requests may hold a list of prompts, each with a context of its own."""


def decide(
    facts: RequestFacts,
    policy: CompiledPolicy,
    estimator: Estimator,
    reservation_id: str,
    keys: KeyRing = NO_KEYS,
    *,
    adapters: Adapters = NO_ADAPTERS,
) -> RequestDecision:
    """Looks up the request in the policy, estimates its tokens, and admits it.

    A request that the policy does not allow is refused; the two lists are answered here.
    """
    door = door_of(facts.path)
    try:
        request = look_up(facts, door, policy, keys, adapters=adapters)
    except NotLoadedError as refused:
        return Refuse(refused.error, door.shape, refused.version)
    except RefusedError as refused:
        return Refuse(refused.error, door.shape)
    if not isinstance(request, Inference):
        return request
    estimate = _estimate(request, facts, estimator)
    admit = _admit(request, facts.values, estimate, reservation_id)
    caching = caching_of(facts, request.api, request.tenant, request.model, request.asked.n)
    return admit if caching is None else replace(admit, caching=caching)


def _estimate(request: Inference, facts: RequestFacts, estimator: Estimator) -> Estimate:
    """The tokens to reserve: by the policy's price, or as learned from earlier requests."""
    model, asked = request.model, request.asked
    match request.price:
        case PerSecond(tokens=per_second):
            stream = facts.values.get(RequestKey.STREAM) is True
            return audio_estimate(
                facts.size_bytes, per_second, stream=stream, context_tokens=model.context_tokens
            )
        case int(tokens):
            return Estimate(tokens=tokens, prompt=tokens)
    caller = request.caller
    cap = None
    if asked.max_tokens is None:
        cap = output_cap(request.tenant.limits, caller, model.counted_as or model.name)
    return estimator.estimate(
        Subject(caller.tenant, caller.user, model.name),
        _prompt_size(facts, model),
        max_tokens=asked.max_tokens,
        n=asked.n * asked.prompts,
        context_tokens=model.context_tokens,
        many_prompts=request.api in _MANY_PROMPTS,
        output_cap=cap,
    )


def _prompt_size(facts: RequestFacts, model: Model) -> PromptSize:
    """The prompt as the request reader measured it; a body that it did not measure is all text."""
    text_bytes = read_whole(facts.values.get(RequestKey.TEXT_BYTES))
    if text_bytes is None:
        return PromptSize(facts.size_bytes)
    images = read_whole(facts.values.get(RequestKey.IMAGES)) or 0
    return PromptSize(text_bytes, images * model.image_tokens)


def _admit(
    request: Inference, values: Mapping[str, Value], estimate: Estimate, reservation_id: str
) -> Admit:
    key = affinity(request.caller, request.model, values)
    admit = Admit(
        headers=_headers(request, key),
        admission={**_admission(request, estimate, reservation_id), **_lesson(values)},
        rewrite=request.rewrite,
        chose_version=request.version is not None,
        placing=placing(request.caller, request.model, key, request.api),
        failover=failover_of(request.model, request.tenant),
    )
    versions = request.model.versions
    return admit if versions is None else _with_version(admit, versions, request, values)


def _headers(request: Inference, key: str) -> dict[Header, str]:
    caller, model = request.caller, request.model
    headers = {
        Header.TENANT: caller.tenant,
        Header.USER: caller.user,
        Header.MODEL: model.name,
        Header.BASE: model.base,
        Header.AFFINITY: key,
    }
    if model.adapter is not None:
        headers[Header.LORA] = model.adapter
    if request.tenant.tier is not None:
        headers[Header.TIER] = request.tenant.tier
    return headers


def _admission(
    request: Inference, estimate: Estimate, reservation_id: str
) -> dict[AdmissionKey, str]:
    """An absent value stays absent. The rate-limit actions have a default value for the adapter;
    without a price per second the counters leave audio unread."""
    caller, model = request.caller, request.model
    admission = {
        AdmissionKey.RESERVATION: reservation_id,
        AdmissionKey.API: request.api,
        AdmissionKey.CHOICES: str(request.asked.n),
        AdmissionKey.CLIENT_USAGE: request.asked.client_usage,
        AdmissionKey.ESTIMATE: str(estimate.tokens),
        AdmissionKey.ESTIMATE_PROMPT: str(estimate.prompt),
        AdmissionKey.TENANT: caller.tenant,
        AdmissionKey.USER: caller.user,
        AdmissionKey.KEY: caller.key,
        AdmissionKey.MODEL: model.name,
        AdmissionKey.BASE: model.base,
    }
    if estimate.per_second is not None:
        admission[AdmissionKey.PER_SECOND] = str(estimate.per_second)
    if model.served_as != model.name:
        admission[AdmissionKey.SERVED_AS] = model.served_as
    if model.adapter is not None:
        admission[AdmissionKey.ADAPTER] = model.adapter
    return admission


def _lesson(values: Mapping[str, Value]) -> dict[AdmissionKey, str]:
    """The bytes of text from which the access log will learn; none of a prompt with images."""
    text_bytes = read_whole(values.get(RequestKey.TEXT_BYTES))
    if text_bytes is None:
        return {}
    has_images = bool(read_whole(values.get(RequestKey.IMAGES)))
    return {AdmissionKey.TEXT_BYTES: "0" if has_images else str(text_bytes)}


def _with_version(
    admit: Admit, versions: Versions, request: Inference, values: Mapping[str, Value]
) -> Admit:
    """The admission on the version that the client chose, or on its conversation's version."""
    if request.version is not None:
        return replace(admit.with_version(request.version), failover=None)
    own = conversation(request.caller, values)
    wanted = pin(versions, request.caller, request.model.base, own)
    if len(versions.all) == 1:
        return admit.with_version(wanted.version)
    # Also remembered while one version has all the weight: a canary that begins then moves no
    # conversation.
    return replace(admit, pin=wanted)
