"""GPUs that the provider may take back: by chance, and many at once."""

import random
from dataclasses import dataclass

from bench.scaling.trace import HOUR_S

PRICE = 0.4
"""The price of a spot GPU as a share of the full one, assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A share of the pods runs on GPUs that can be reclaimed."""

    share: float
    """Of the pods, from 0 to 1. A new pod goes to spot while the share has room for it."""
    mean_hours: float = 6.0
    """The mean time until a GPU is reclaimed."""
    wave_hour: float = 11.0
    """At this hour, half of them are reclaimed at once."""
    notice_s: float = 120.0
    drains: bool = True
    """The pod leaves the endpoints at the notice. Otherwise it takes requests to its end."""

    def takes(self, now_s: float, step_s: float, chance: random.Random) -> bool:
        """Whether one GPU is reclaimed in this step."""
        if 0 <= now_s - self.wave_hour * HOUR_S < step_s:
            return chance.random() < 0.5
        return chance.random() < step_s / (self.mean_hours * HOUR_S)


NO_SPOT = Spot(share=0.0)
