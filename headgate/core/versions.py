"""The versions of a model, between which its requests are split."""

from dataclasses import dataclass
from enum import StrEnum


class Sticky(StrEnum):
    """The unit that keeps its version while weights change."""

    CONVERSATION = "conversation"
    USER = "user"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model: its share of the conversations in hundredths, and its vLLM's URL.

    `pods` are as those of a model.
    """

    name: str
    weight: int
    upstream: str
    pods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """The split of a model's requests. The weights add up to 100.

    Each `sticky` unit keeps its version until `sticky_s` seconds after its last request.
    """

    all: tuple[Version, ...]
    sticky: Sticky
    sticky_s: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(version.name for version in self.all)

    @property
    def live(self) -> tuple[str, ...]:
        """The names of the versions that get new conversations by their weight."""
        return tuple(version.name for version in self.all if version.weight)
