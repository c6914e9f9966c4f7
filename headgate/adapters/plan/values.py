"""The values that the planner reads, and those that it decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

IDLE_S = 60.0
"""A version that was used later than this keeps its place, whoever else wants it."""
RARE_S = 600.0
"""A version that was used later than this keeps its only place, if another wants a second one."""
GRACE_S = 60.0
"""A version is unloaded this long after its last use. Replicas learn of a change in a second."""
LONGEST_S = 3600.0
"""No request runs longer. Older counts of requests in flight are those of lost log entries."""
GONE_S = 30.0
"""A pod that does not answer for this long has lost its places. A shorter restart moves nothing."""


class Spot(NamedTuple):
    """A version on a pod."""

    pod: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A version in the registry.

    `copies` is the number of pods that shall have it, 0 for one that was withdrawn. `used_s` is its
    last use, or its registration. `in_flight` are its requests that have not ended.
    """

    version: str
    copies: int
    used_s: float
    in_flight: int = 0

    def is_busy(self, now_s: float) -> bool:
        """Whether a request of it may run or wait."""
        return self.in_flight > 0 and now_s - self.used_s < LONGEST_S

    def is_idle(self, now_s: float, for_s: float) -> bool:
        """Whether it was not used for this long, and no request of it runs or waits."""
        return not self.is_busy(now_s) and now_s - self.used_s >= for_s


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPod:
    """A pod as it was seen. `listed` is the root of each adapter that it lists, by name.

    `listed` is None while the pod does not answer. `silent_s` is how long it has not.
    """

    address: str
    listed: Mapping[str, str] | None
    silent_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The pods of one base model, and what each may hold.

    `live` versions of a pod get requests, and it keeps up to `listed` adapters loaded.
    """

    live: int
    listed: int
    pods: tuple[SeenPod, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The decisions of earlier rounds, and their failures.

    `places` are the spots of versions. The versions of `failed` could not be loaded for good: they
    keep what is loaded and get no more. `delayed` are the spots where it is not tried yet again.
    """

    places: frozenset[Spot] = frozenset()
    failed: frozenset[str] = frozenset()
    delayed: frozenset[Spot] = frozenset()


@dataclass(frozen=True, slots=True)
class Load:
    """Load the version on the pod."""

    spot: Spot


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload the version from the pod."""

    spot: Spot


Action: TypeAlias = Load | Unload


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`places` are the spots that versions have from now on, and `open` those that get requests.

    At most one action is for each pod: a load stops its streams.
    """

    places: frozenset[Spot]
    open: frozenset[Spot]
    actions: tuple[Action, ...] = field(default=())
