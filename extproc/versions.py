"""Chooses the version of a model that answers, by a hash of the conversation and the weights.

The hash gives every replica the same choice. The choice is remembered (`Pin`), because otherwise a
conversation would change its version whenever the weights change.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from extproc.types import Pin, SizePin
from headgate.core.policy import Caller
from headgate.core.versions import Sticky, Versions

_SCALE = 1_000_000


@dataclass(frozen=True, slots=True)
class PinnedVersion:
    """The version of a pin, and whether it was remembered (None: the memory did not answer)."""

    version: str
    remembered: bool | None


class Pins(Protocol):
    """Remembers pins for all replicas."""

    async def keep(self, pin: Pin) -> PinnedVersion:
        """The remembered version of the pin's key. Without one, remembers the pin's own version.

        Never raises: if the memory does not answer, the pin's own version is used.
        """
        ...

    async def largest(self, pin: SizePin) -> str:
        """The larger of the remembered size and the pin's own, which is remembered from now on.

        Never raises: if the memory does not answer, this replica's own memory counts.
        """
        ...


def pin(versions: Versions, caller: Caller, base: str, conversation: str) -> Pin:
    """The pin of one request, with the version that the hash chooses.

    `conversation` is the same for all requests of a conversation, and differs between the
    conversations of a tenant.
    """
    match versions.sticky:
        case Sticky.CONVERSATION:
            scope = f"c\0{caller.tenant}\0{conversation}"
        case Sticky.USER:
            scope = f"u\0{caller.tenant}\0{caller.user}"
        case Sticky.TENANT:
            scope = f"t\0{caller.tenant}"
    key = hashlib.sha256(f"{base}\0{scope}".encode()).hexdigest()
    return Pin(key, _choose(versions, key), versions.live, versions.sticky_s)


def _choose(versions: Versions, key: str) -> str:
    """The version whose share contains the key. The shares are in the order of the policy."""
    position = int(key[:16], 16) % _SCALE
    for version in versions.all:
        position -= version.weight * _SCALE // 100
        if position < 0:
            return version.name
    raise AssertionError("the weights do not add up to 100")
