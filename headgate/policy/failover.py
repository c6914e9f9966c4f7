"""The part of a model's entry that names its spare version, and what a tenant may pay for it."""

from collections.abc import Iterator

from pydantic import Field

from headgate.core.failover import Failover
from headgate.core.prices import Prices, TokenWeights
from headgate.policy.auto import CeilingEntry
from headgate.policy.document import Path, YamlMapping, line_of
from headgate.policy.fields import Entry
from headgate.policy.nodes import keys, mappings
from headgate.policy.problems import PolicyRule, Problem, hint, shown

MAX_QUEUE = 10_000
FAILOVER_RULE = "a mapping with the keys to, queue_over"
_TO_RULE = "a version of the model with the weight 0"


class FailoverEntry(Entry):
    """The version that answers where another one cannot."""

    to: str = Field(description=_TO_RULE)
    queue_over: int | None = Field(
        default=None,
        ge=0,
        le=MAX_QUEUE,
        description=f"a whole number of requests from 0 to {MAX_QUEUE}",
    )


def failover_of(entry: FailoverEntry | None) -> Failover | None:
    """The spare version of a checked file."""
    return None if entry is None else Failover(entry.to, entry.queue_over)


def ceiling_of(entry: CeilingEntry | None) -> TokenWeights | None:
    """The ceiling as weights of tokens, to compare with those of a version."""
    return None if entry is None else Prices(input=entry.input, output=entry.output).per_token


def check_failover(root: YamlMapping) -> Iterator[Problem]:
    """Spare versions that do not exist or have a weight, and queues that nobody counts.

    Like `references.py`, it reads the plain document.
    """
    for name, model in mappings(root, "models"):
        failover = model.get("failover")
        if isinstance(failover, YamlMapping):
            path: Path = ("models", name, "failover")
            for rule, fault, advice, key in _faults(model, failover):
                at = (*path, key)
                yield Problem(
                    rule=rule, fault=fault, advice=advice, path=at, line=line_of(root, at)
                )


def _faults(
    model: YamlMapping, failover: YamlMapping
) -> Iterator[tuple[PolicyRule, str, str, str]]:
    versions = dict(mappings(model, "versions"))
    to = failover.get("to")
    if isinstance(to, str) and to not in versions:
        fault = f"is not a version of this model (value {shown(to)})"
        fault += hint(to, keys(model, "versions"))
        yield PolicyRule.UNKNOWN_VERSION, fault, f"allowed: {_TO_RULE}", "to"
    elif isinstance(to, str) and versions[to].get("weight") not in (0, None):
        fault = f"has a weight of its own (value {shown(to)})"
        advice = "give that version the weight 0: it is there for when another one cannot answer"
        yield PolicyRule.SPARE_HAS_WEIGHT, fault, advice, "to"
    own = (version for name, version in versions.items() if name != to)
    is_counted = "pods" in model or any("pods" in version for version in own)
    if failover.get("queue_over") is not None and not is_counted:
        fault = "needs pods: without them nobody counts the requests of a version"
        advice = "list the pods of the model or of its versions, or remove queue_over"
        yield PolicyRule.QUEUE_WITHOUT_PODS, fault, advice, "queue_over"
