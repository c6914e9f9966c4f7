"""The rules of an adapter's life, from its registration to its end. Pure: no clock, no database."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headgate.adapters.source import SourceError, read_source
from headgate.core.policy import CompiledPolicy

MAX_COPIES = 64
MAX_SHARED = 1_000
MAX_LIVE_VERSIONS = 100
WHOLE = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""The name is a folder on the pods, a part of a header and of vLLM's name: no `/`, `@` or `..`."""


class AdapterRuleError(Exception):
    """A change that an adapter does not allow. `field` names the value at fault."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRequest:
    """An adapter that somebody registers, or the next version of one.

    `copies` is the number of pods that shall have it.
    """

    name: str
    tenant: str
    base: str
    source: str
    copies: int = 1
    shared_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterVersion:
    """A version as it is kept. `withdrawn_s` is None while pods may load it."""

    number: int
    source: str
    registered_s: float
    withdrawn_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter as it is kept, with all of its versions in their order."""

    name: str
    tenant: str
    base: str
    copies: int
    shared_with: tuple[str, ...] = ()
    weights: Mapping[int, int] = field(default_factory=dict)
    versions: tuple[AdapterVersion, ...] = ()
    removed_s: float | None = None

    @property
    def is_removed(self) -> bool:
        return self.removed_s is not None


def check_request(request: AdapterRequest, policy: CompiledPolicy) -> None:
    """Raises AdapterRuleError where the policy or the form of a value does not allow it."""
    if NAME.fullmatch(request.name) is None or ".." in request.name:
        rule = "1 to 100 letters, digits and . _ + -, without .., starting with a letter or digit"
        raise AdapterRuleError("name", f"allowed are {rule}")
    if request.name in policy.models:
        raise AdapterRuleError("name", "the policy has a model of this name")
    base = policy.models.get(request.base)
    if base is None or base.adapter is not None:
        raise AdapterRuleError("base", "the policy has no base model of this name")
    try:
        read_source(request.source)
    except SourceError as error:
        raise AdapterRuleError("source", str(error)) from None
    check_copies(request.copies)
    check_users((request.tenant, *request.shared_with), request.base, policy)


def check_copies(copies: int) -> None:
    """Raises AdapterRuleError."""
    if not 1 <= copies <= MAX_COPIES:
        raise AdapterRuleError("copies", f"allowed is a whole number from 1 to {MAX_COPIES}")


def check_users(tenants: Sequence[str], base: str, policy: CompiledPolicy) -> None:
    """Raises AdapterRuleError for a tenant that may not use the base model."""
    if len(tenants) > MAX_SHARED:
        raise AdapterRuleError("shared_with", f"at most {MAX_SHARED} tenants share an adapter")
    for name in tenants:
        tenant = policy.tenants.get(name)
        if tenant is None or base not in tenant.models:
            raise AdapterRuleError("tenant", f"the tenant '{name}' may not use the model '{base}'")


def with_version(adapter: Adapter | None, request: AdapterRequest, now_s: float) -> Adapter:
    """The adapter with the requested version. The first version has all of the weight.

    A later one has none, so that its pods load it before clients meet it. Raises AdapterRuleError.
    """
    if adapter is None:
        first = AdapterVersion(number=1, source=request.source, registered_s=now_s)
        return Adapter(
            name=request.name,
            tenant=request.tenant,
            base=request.base,
            copies=request.copies,
            shared_with=tuple(sorted(set(request.shared_with) - {request.tenant})),
            weights={1: WHOLE},
            versions=(first,),
        )
    # Only an operator registers, so the answer tells no tenant about another.
    if adapter.is_removed:
        raise AdapterRuleError("name", "it was removed; its records stay under this name")
    if (adapter.tenant, adapter.base) != (request.tenant, request.base):
        raise AdapterRuleError("name", "it is taken by another tenant or on another base model")
    if len(live_numbers(adapter)) >= MAX_LIVE_VERSIONS:
        raise AdapterRuleError("name", f"it has {MAX_LIVE_VERSIONS} versions: withdraw some first")
    number = adapter.versions[-1].number + 1
    added = AdapterVersion(number=number, source=request.source, registered_s=now_s)
    return replace(
        adapter,
        versions=(*adapter.versions, added),
        weights={**adapter.weights, number: 0},
        copies=request.copies,
    )


def weighed(adapter: Adapter, weights: Mapping[int, int], loaded: Iterable[int] | None) -> Adapter:
    """The adapter with these weights in hundredths, and 0 for versions that are not named.

    `loaded` are the versions that a pod has; None where Headgate does not load them. Raises
    AdapterRuleError.
    """
    numbers = live_numbers(adapter)
    if unknown := sorted(weights.keys() - set(numbers)):
        raise AdapterRuleError("weights", f"there is no version {unknown[0]}, or it was withdrawn")
    if min(weights.values(), default=0) < 0 or sum(weights.values()) != WHOLE:
        raise AdapterRuleError("weights", f"they are not 0 or more, or do not add up to {WHOLE}")
    had = {number for number, weight in adapter.weights.items() if weight}
    new = {number for number, weight in weights.items() if weight} - had
    if loaded is not None and (missing := sorted(new - set(loaded))):
        raise AdapterRuleError("weights", f"no pod has loaded the version {missing[0]} yet")
    return replace(adapter, weights={number: weights.get(number, 0) for number in numbers})


def withdrawn(adapter: Adapter, number: int, now_s: float) -> Adapter:
    """The adapter without a version, which pods then unload. Raises AdapterRuleError."""
    if number not in live_numbers(adapter):
        raise AdapterRuleError("version", f"there is no version {number}, or it was withdrawn")
    if adapter.weights.get(number):
        raise AdapterRuleError("version", "it has a weight: give it to another version first")
    versions = tuple(
        replace(one, withdrawn_s=now_s) if one.number == number else one for one in adapter.versions
    )
    weights = {name: weight for name, weight in adapter.weights.items() if name != number}
    return replace(adapter, versions=versions, weights=weights)


def removed(adapter: Adapter, now_s: float) -> Adapter:
    """The adapter that nobody may use any more. One that was removed stays as it is."""
    if adapter.is_removed:
        return adapter
    versions = tuple(
        one if one.withdrawn_s is not None else replace(one, withdrawn_s=now_s)
        for one in adapter.versions
    )
    return replace(adapter, versions=versions, removed_s=now_s)


def live_numbers(adapter: Adapter) -> tuple[int, ...]:
    """The versions that were not withdrawn."""
    return tuple(one.number for one in adapter.versions if one.withdrawn_s is None)
