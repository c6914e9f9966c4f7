"""Which version of a model answers? A hash of the conversation against the weights of the policy.

The hash gives every replica the same choice. It is remembered (`Pin`), or a conversation would
change its version each time that weights do.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from headgate.core.policy import Caller
from headgate.core.versions import Sticky, Versions

_SCALE = 1_000_000


@dataclass(frozen=True, slots=True)
class Pin:
    """What is to be remembered: `key` keeps `version` until `kept_s` after its last request.

    One that is remembered already holds while it is among `live`, the versions with a weight: a
    weight of 0 moves everybody at once.
    """

    key: str
    version: str
    live: tuple[str, ...]
    kept_s: int


@dataclass(frozen=True, slots=True)
class Kept:
    """The version that a pin has, and whether it was remembered (None: nobody could tell)."""

    version: str
    remembered: bool | None


class Pins(Protocol):
    """Remembers pins, on all replicas alike."""

    async def keep(self, pin: Pin) -> Kept:
        """The version of the pin's key: the one remembered, or else the pin's own, from now on.

        Never raises: where the memory cannot be asked the pin's own version stands.
        """
        ...


def pin(versions: Versions, caller: Caller, base: str, conversation: str) -> Pin:
    """The pin of one request, with the version that the hash chooses.

    `conversation` tells those of one tenant apart, and is the same for all requests of one.
    """
    match versions.sticky:
        case Sticky.CONVERSATION:
            who = f"c\0{caller.tenant}\0{conversation}"
        case Sticky.USER:
            who = f"u\0{caller.tenant}\0{caller.user}"
        case Sticky.TENANT:
            who = f"t\0{caller.tenant}"
    key = hashlib.sha256(f"{base}\0{who}".encode()).hexdigest()
    return Pin(key, _choose(versions, key), versions.live, versions.sticky_s)


def _choose(versions: Versions, key: str) -> str:
    """The version in whose share the key falls; shares stand in the order of the policy."""
    place = int(key[:16], 16) % _SCALE
    for version in versions.all:
        place -= version.weight * _SCALE // 100
        if place < 0:
            return version.name
    raise AssertionError("weights are 100 together")
