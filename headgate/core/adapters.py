"""The adapters that were registered at run time, as the hooks know them.

The policy file's adapters are not here: they are models like all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from headgate.core.policy import CompiledPolicy, Model
from headgate.core.versions import Sticky, Version, Versions

STICKY_S = 3600
"""A conversation keeps its version of an adapter until this many seconds after its last request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredAdapter:
    """An adapter under the name that clients use.

    `weights` are the shares of its versions in hundredths, in the order of their numbers. They add
    up to 100. vLLM knows a version as `version_name(name, number)`.
    """

    name: str
    base: str
    weights: tuple[tuple[int, int], ...]


class AdaptersUnavailableError(Exception):
    """It is not known here which adapters there are: the database has never answered."""


class Adapters(Protocol):
    """The registry and the places of its adapters, in this process' memory."""

    def find(self, name: str, tenant: str) -> RegisteredAdapter | None:
        """The adapter, if the tenant may use it.

        A foreign name and one that nobody has take the same step, and so the same time. Raises
        AdaptersUnavailableError.
        """
        ...

    def names_of(self, tenant: str) -> Sequence[str]:
        """The names that the tenant may use, sorted."""
        ...

    def base_of(self, name: str) -> str | None:
        """The base model of an adapter, also of one that was removed. None for another name."""
        ...

    def pods_of(self, version: str) -> tuple[str, ...]:
        """Where requests for a version may go, each as `ip:port`; empty while it is not loaded.

        The order is the same at every replica, and differs between versions.
        """
        ...


class NoAdapters:
    """The registry of a program without a database."""

    def find(self, name: str, tenant: str) -> RegisteredAdapter | None:  # noqa: ARG002
        """None for every name."""
        return None

    def names_of(self, tenant: str) -> Sequence[str]:  # noqa: ARG002
        """None for every tenant."""
        return ()

    def base_of(self, name: str) -> str | None:  # noqa: ARG002
        """None for every name."""
        return None

    def pods_of(self, version: str) -> tuple[str, ...]:  # noqa: ARG002
        """None for every version."""
        return ()


NO_ADAPTERS = NoAdapters()


class Uses(Protocol):
    """Notes which versions are used, for those who decide what stays loaded."""

    def began(self, version: str) -> None:
        """A request for the version was admitted."""
        ...

    def ended(self, version: str) -> None:
        """A request that was admitted has ended, whatever its answer."""
        ...

    def wanted(self, version: str) -> None:
        """A request for the version was refused, as no pod has it."""
        ...


class NoUses:
    """Notes nothing."""

    def began(self, version: str) -> None:
        """Does nothing."""

    def ended(self, version: str) -> None:
        """Does nothing."""

    def wanted(self, version: str) -> None:
        """Does nothing."""


NO_USES = NoUses()


def version_name(adapter: str, number: int) -> str:
    """The name of a version in vLLM, such as `acme-sql@7`. It is never given to other weights."""
    return f"{adapter}@{number}"


def model_of_adapter(adapter: RegisteredAdapter, policy: CompiledPolicy) -> Model | None:
    """The adapter as a model; None if the policy lacks its base.

    For limits, prices and metrics it is its base model: the policy file cannot name it.
    """
    base = policy.models.get(adapter.base)
    if base is None:
        return None
    names = [(version_name(adapter.name, number), weight) for number, weight in adapter.weights]
    served_as = next(name for name, weight in names if weight)
    versions = tuple(Version(name, weight, base.upstream) for name, weight in names)
    return replace(
        base,
        name=adapter.name,
        served_as=served_as,
        adapter=served_as,
        counted_as=base.name,
        adapter_versions=Versions(versions, Sticky.CONVERSATION, STICKY_S),
    )


def counted_as(name: str, policy: CompiledPolicy, adapters: Adapters) -> str:
    """The model of the policy under whose name requests for `name` count.

    It is the base model of a registered adapter. Every other name is its own.
    """
    if name in policy.models:
        return name
    return adapters.base_of(name) or name
