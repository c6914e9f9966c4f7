"""The `answer_cache` of a model and of a tenant in a policy file."""

from typing import Annotated, TypeAlias

from pydantic import Field

from headgate.core.answer_cache import ModelCache, TenantCache
from headgate.core.policy import CompiledPolicy
from headgate.policy.fields import Entry

MAX_TTL_S = 30 * 86_400
MAX_ANSWER_BYTES = 8 * 1024**2
MAX_TENANT_BYTES = 1024**4


class ModelCacheEntry(Entry):
    """How answers of a model are kept."""

    ttl_s: int = Field(
        default=600, ge=1, le=MAX_TTL_S, description="a whole number of seconds, up to 30 days"
    )
    max_bytes: int = Field(
        default=1024**2,
        ge=1,
        le=MAX_ANSWER_BYTES,
        description=f"a whole number of bytes from 1 to {MAX_ANSWER_BYTES}",
    )


class TenantCacheEntry(Entry):
    """A tenant whose answers are kept."""

    max_bytes: int = Field(
        default=64 * 1024**2,
        ge=1,
        le=MAX_TENANT_BYTES,
        description=f"a whole number of bytes from 1 to {MAX_TENANT_BYTES}",
    )


CacheOfModel: TypeAlias = Annotated[
    ModelCacheEntry | None, Field(description="a mapping with the keys ttl_s, max_bytes, or {}")
]
CacheOfTenant: TypeAlias = Annotated[
    TenantCacheEntry | None, Field(description="a mapping with the key max_bytes, or {}")
]


def model_cache_of(entry: ModelCacheEntry | None) -> ModelCache | None:
    """The settings of a checked entry; None for a model without a cache."""
    return None if entry is None else ModelCache(entry.ttl_s, entry.max_bytes)


def tenant_cache_of(entry: TenantCacheEntry | None) -> TenantCache | None:
    """The settings of a checked entry; None for a tenant without a cache."""
    return None if entry is None else TenantCache(entry.max_bytes)


def caching_models(policy: CompiledPolicy) -> list[str]:
    """The base models whose answers are kept for some tenant, as far as the policy decides it."""
    if not any(tenant.answer_cache for tenant in policy.tenants.values()):
        return []
    return [
        model.name
        for model in policy.models.values()
        if model.base == model.name and model.answer_cache and model.failover is None
    ]
