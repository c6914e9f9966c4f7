"""Whether a request has to do with the cache, by what is known before its body. Pure."""

from extproc.cache.directives import directives_of
from extproc.types import Caching, RequestFacts
from headgate.core.apis import Api
from headgate.core.policy import Model, Tenant

CACHED_APIS = frozenset({Api.CHAT, Api.COMPLETIONS, Api.MESSAGES, Api.EMBEDDINGS})
"""The APIs whose answers depend on the request alone. A response (/v1/responses) is remembered by
vLLM under its id, and the next request refers to it."""


def caching_of(
    facts: RequestFacts, api: Api, tenant: Tenant, model: Model, choices: int
) -> Caching | None:
    """How the request uses the cache. None if its body must not come here for it.

    The tenant and the model have both opted in, one answer is asked for, and the client does not
    keep its request out.
    """
    own, kept = tenant.answer_cache, model.answer_cache
    if own is None or kept is None or api not in CACHED_APIS or choices != 1:
        return None
    if model.failover is not None:  # the spare version's answer would be taken for its own
        return None
    asked = directives_of(facts.cache_control)
    if asked.keeps_out:
        return None
    return Caching(
        path=facts.path.partition("?")[0],
        api=api,
        tenant=tenant.name,
        ttl_s=kept.ttl_s,
        max_bytes=kept.max_bytes,
        tenant_max_bytes=own.max_bytes,
        max_age_s=asked.max_age_s,
    )
