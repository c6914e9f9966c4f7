"""The part of a model's entry that splits its requests between versions."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from headgate.policy.fields import Entry, invalid
from headgate.policy.pods import PODS_RULE, Pods
from headgate.policy.prices import PRICES_RULE, PriceList
from headgate.policy.problems import PolicyRule
from headgate.policy.urls import UPSTREAM_RULE, Upstream

VERSION_RULE = (
    "1 to 32 lower-case letters, digits and -, starting and ending with a letter or digit"
)
WHOLE = 100


class VersionEntry(Entry):
    """One version: its share of the conversations, its own prices, its pods and, in one box, its
    URL."""

    weight: int = Field(ge=0, le=WHOLE, description=f"a whole number from 0 to {WHOLE}")
    upstream: Upstream | None = Field(default=None, description=UPSTREAM_RULE)
    pods: Pods | None = Field(default=None, description=PODS_RULE)
    prices: PriceList | None = Field(default=None, description=PRICES_RULE)


def _check_weights(versions: dict[str, VersionEntry]) -> dict[str, VersionEntry]:
    total = sum(version.weight for version in versions.values())
    if total != WHOLE:
        raise invalid(PolicyRule.WEIGHT_SUM, f"has weights that add up to {total}, not {WHOLE}")
    return versions


# A version is a subset of a DestinationRule and a label of pods: a DNS label, kept short.
VersionName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", description=VERSION_RULE)
]
Versions: TypeAlias = Annotated[
    dict[VersionName, VersionEntry], Field(min_length=1), AfterValidator(_check_weights)
]
StickyWord = Literal["conversation", "user", "tenant"]
