"""The rules by which the users of a tenant make keys for themselves."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnKeyRules:
    """A user may have `most` live keys at run time, each for at most `hours`."""

    most: int
    hours: int
