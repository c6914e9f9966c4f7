"""How full the limits of whole tenants are, as a metric."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import ClassVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ratelimit.answers import LimitStatus

_MOST_LIMITS = 50_000


class Fullness(Collector):
    """Keeps the last status of each tenant's limits that this process decided by.

    A limit with `each` is left out, because it has a counter for each user, key or model. A limit
    whose window is over is empty. Beyond `_MOST_LIMITS` the one that was met longest ago is
    forgotten.
    """

    GAUGE_MODES: ClassVar = {"headgate_limit_used_ratio": "max"}
    """How the values of several workers become one: with slices each knows its own."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._statuses: OrderedDict[tuple[str, str], LimitStatus] = OrderedDict()

    def note(self, tenant: str, statuses: Iterable[LimitStatus]) -> None:
        """Keeps what a decision found."""
        for status in statuses:
            if not status.rule.each:
                self._keep((tenant, status.id), status)

    def note_slots(self, tenant: str, statuses: Iterable[LimitStatus]) -> None:
        """Keeps what a settlement left of the slots, which no window empties."""
        self.note(tenant, (status for status in statuses if status.resets_at_s is None))

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The used part of each limit, from 0 to 1."""
        family = GaugeMetricFamily(
            "headgate_limit_used_ratio",
            "The used and held part of each limit of a whole tenant, from 0 to 1, as this replica"
            " last saw it.",
            labels=("tenant", "limit"),
        )
        now_s = self._now_s()
        for labels, status in self._statuses.items():
            family.add_metric(labels, _used_ratio(status, now_s))
        yield family

    def _keep(self, labels: tuple[str, str], status: LimitStatus) -> None:
        self._statuses[labels] = status
        self._statuses.move_to_end(labels)
        if len(self._statuses) > _MOST_LIMITS:
            self._statuses.popitem(last=False)


def _used_ratio(status: LimitStatus, now_s: float) -> float:
    if status.limit <= 0:
        return 1.0
    if status.resets_at_s is not None and status.resets_at_s <= now_s:
        return 0.0
    return min(1.0, max(0.0, 1 - status.remaining / status.limit))
