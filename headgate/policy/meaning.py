"""The meaning of a limit: two limits of a tenant with the same meaning are the same limit."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from headgate.core.amounts import weights_in_units
from headgate.core.prices import TokenWeights
from headgate.policy.document import YamlList, YamlMapping
from headgate.policy.limits import ConcurrentLimitEntry, LimitEntry, WeightsEntry, WindowLimitEntry

_PLAIN = TokenWeights()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitMeaning:
    """The meaning of a limit, in the words of the policy file.

    The number, the lease, the burst, the slice and the outage rule are no part of it.
    """

    count: str
    per: str | None = None
    smooth: bool = False
    each: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    shadow: bool = False
    weights: TokenWeights = _PLAIN

    @property
    def id(self) -> str:
        """The limit's name, such as `tokens.day.user`. It is part of the counter's key.

        A new number or a new place in the file therefore keeps the count, and a new meaning
        starts a new count. A shadow limit begins with `shadow`, which keeps its count apart from
        that of an enforced limit. A smooth limit says so after its period:
        `requests.minute.smooth`. Weights appear as the policy writes them, for input, cached
        input and output: `tokens.day.weights-1-0.1-4`. A limit of some users or models ends in
        12 hex digits of the digest of their names.
        """
        parts = ["shadow", self.count] if self.shadow else [self.count]
        if self.per is not None:
            parts.append(self.per)
        if self.smooth:
            parts.append("smooth")
        parts.extend(sorted(self.each))
        if (units := weights_in_units(self.weights)) is not None:
            parts.append("-".join(["weights", *(f"{unit}" for unit in units.values())]))
        if self.users or self.models:
            names = json.dumps([sorted(self.users), sorted(self.models)])
            parts.append(hashlib.sha256(names.encode()).hexdigest()[:12])
        return ".".join(parts)


def meaning_of(entry: LimitEntry) -> LimitMeaning:
    """The meaning of an entry that fits the schema."""
    own = entry if isinstance(entry, WindowLimitEntry) else None
    return LimitMeaning(
        count=entry.count,
        per=None if isinstance(entry, ConcurrentLimitEntry) else entry.per,
        smooth=own is not None and own.smooth,
        each=frozenset(entry.each),
        users=frozenset(entry.users),
        models=frozenset(entry.models),
        shadow=entry.shadow,
        weights=_PLAIN if own is None else _token_weights(own.weights),
    )


def written_meaning(limit: YamlMapping) -> LimitMeaning | None:
    """The meaning of an entry that may break the schema; None where its weights do."""
    weights = _written_weights(limit["weights"]) if "weights" in limit else _PLAIN
    if weights is None:
        return None
    each, per = limit.get("each"), limit.get("per")
    return LimitMeaning(
        count=str(limit.get("count")),
        per=None if per is None else str(per),
        smooth=limit.get("smooth") is True,
        each=frozenset([each] if isinstance(each, str) else _texts(each)),
        users=frozenset(_texts(limit.get("users"))),
        models=frozenset(_texts(limit.get("models"))),
        shadow=limit.get("shadow") is True,
        weights=weights,
    )


def _token_weights(entry: WeightsEntry) -> TokenWeights:
    """The weights in thousandths. Without a weight of its own, cached input weighs as input."""
    cached = entry.input if entry.cached_input is None else entry.cached_input
    return TokenWeights(*(int(weight * 1000) for weight in (entry.input, cached, entry.output)))


def _written_weights(weights: object) -> TokenWeights | None:
    if not isinstance(weights, dict):
        return None
    fresh = weights.get("input", 1)
    kinds = (fresh, weights.get("cached_input", fresh), weights.get("output", 1))
    thousandths = [weight * 1000 for weight in kinds if isinstance(weight, int | Decimal)]
    if len(thousandths) < len(kinds) or any(int(number) != number for number in thousandths):
        return None
    return TokenWeights(*map(int, thousandths))


def _texts(value: object) -> Iterator[str]:
    items = value if isinstance(value, YamlList) else []
    return (item for item in items if isinstance(item, str))
