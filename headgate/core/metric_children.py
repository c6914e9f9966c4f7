"""The children of a metric, one for each set of labels, remembered."""

from functools import cache
from typing import TypeVar

from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound=MetricWrapperBase)


def remembering(metric: M) -> M:
    """The metric itself, whose `labels` looks up each child once.

    The look-up takes microseconds, and each hook needs some children. There are few, as labels come
    from closed sets.
    """
    vars(metric)["labels"] = cache(metric.labels)
    return metric
