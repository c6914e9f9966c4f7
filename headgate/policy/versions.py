"""The part of a model's entry that splits its requests between versions."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from headgate.policy.fields import Entry, wrong
from headgate.policy.problems import Rule
from headgate.policy.urls import UPSTREAM_RULE, Upstream

VERSION_RULE = "1 to 32 lower-case letters, digits and -, a letter or digit first and last"
WHOLE = 100


class VersionEntry(Entry):
    """One version: its share of the conversations, and in one box where it is."""

    weight: int = Field(ge=0, le=WHOLE, description=f"a whole number from 0 to {WHOLE}")
    upstream: Upstream | None = Field(default=None, description=UPSTREAM_RULE)


def _whole(versions: dict[str, VersionEntry]) -> dict[str, VersionEntry]:
    total = sum(version.weight for version in versions.values())
    if total != WHOLE:
        raise wrong(Rule.WEIGHT_SUM, f"has weights that are {total} together, not {WHOLE}")
    return versions


# A version is a subset of a DestinationRule and a label of pods: a DNS label, kept short.
VersionName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", description=VERSION_RULE)
]
Versions: TypeAlias = Annotated[
    dict[VersionName, VersionEntry], Field(min_length=1), AfterValidator(_whole)
]
StickyWord = Literal["conversation", "user", "tenant"]
