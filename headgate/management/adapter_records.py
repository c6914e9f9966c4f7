"""The bodies of adapters in the management API, as JSON."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import msgspec

from headgate.adapters.rules import MAX_COPIES, MAX_SHARED, NAME, Adapter, AdapterVersion
from headgate.adapters.source import MAX_SOURCE
from headgate.adapters.store import Place
from headgate.core.adapters import version_name
from headgate.management.fields import described, whole
from headgate.management.records import Input, Output

AdapterName: TypeAlias = Annotated[str, described(pattern=whole(NAME.pattern))]
Source: TypeAlias = Annotated[str, described(minLength=1, maxLength=MAX_SOURCE)]
Copies: TypeAlias = Annotated[int, described(minimum=1, maximum=MAX_COPIES)]
Sharers: TypeAlias = Annotated[list[str], described(maxItems=MAX_SHARED)]


class NewAdapter(Input):
    """An adapter to register, or the next version of one.

    `source` is a folder below the root of the agents, and `copies` the number of pods to load it.
    """

    name: AdapterName
    tenant: str
    base: str
    source: Source
    copies: Copies = 1
    shared_with: Sharers = msgspec.field(default_factory=list)


class AdapterEdit(Input):
    """An edit of an adapter. A field that is left out, or null, stays.

    `weights` are the shares of versions in hundredths, by number, and add up to 100. A version that
    is not named gets 0.
    """

    weights: dict[str, int] | None = None
    shared_with: Sharers | None = None
    copies: Copies | None = None


class PlaceBody(Output):
    """A version on a pod. `step` is how far its load is, and `error` what went wrong last.

    A load that has failed for good is not tried again.
    """

    pod: str
    step: str
    gets_requests: bool
    error: str | None
    has_failed: bool
    changed_at: datetime


class VersionBody(Output):
    """A version, and where it is. `name` is its name in vLLM.

    `source` is null, and `places` are empty, for a tenant with which the adapter is shared.
    """

    number: int
    name: str
    weight: int
    source: str | None
    registered_at: datetime
    withdrawn_at: datetime | None
    places: list[PlaceBody]


class AdapterBody(Output):
    """An adapter. `shared_with` is empty for a tenant with which it is shared."""

    name: str
    tenant: str
    base: str
    copies: int
    shared_with: list[str]
    versions: list[VersionBody]
    removed_at: datetime | None


def adapter_body(adapter: Adapter, places: Iterable[Place], *, is_own: bool) -> AdapterBody:
    """An adapter for its reader. `is_own`: for its owner, or for an operator."""
    known = list(places) if is_own else []
    return AdapterBody(
        name=adapter.name,
        tenant=adapter.tenant,
        base=adapter.base,
        copies=adapter.copies,
        shared_with=list(adapter.shared_with) if is_own else [],
        versions=[_version(adapter, one, known, is_own=is_own) for one in adapter.versions],
        removed_at=_time(adapter.removed_s),
    )


def _version(
    adapter: Adapter, one: AdapterVersion, places: Iterable[Place], *, is_own: bool
) -> VersionBody:
    name = version_name(adapter.name, one.number)
    return VersionBody(
        number=one.number,
        name=name,
        weight=adapter.weights.get(one.number, 0),
        source=one.source if is_own else None,
        registered_at=datetime.fromtimestamp(one.registered_s, UTC),
        withdrawn_at=_time(one.withdrawn_s),
        places=[_place(place) for place in places if place.version == name],
    )


def _place(place: Place) -> PlaceBody:
    return PlaceBody(
        pod=place.pod,
        step=place.step,
        gets_requests=place.is_open,
        error=place.error or None,
        has_failed=place.is_permanent,
        changed_at=datetime.fromtimestamp(place.changed_s, UTC),
    )


def _time(at_s: float | None) -> datetime | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC)
