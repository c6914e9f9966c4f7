"""Prices records again, each by the code that priced it first. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from accesslog.costs import cost_of
from headgate.core.policy import CompiledPolicy
from headgate.core.prices import Price
from headgate.core.settlement import Charge, Source, Usage
from headgate.ledger.repricing.values import BilledRecord, RepricedLine, RepricingError

_NAMED_MODELS = 10


@dataclass(slots=True)
class _Sums:
    requests: int = 0
    charged_nanos: int = 0
    new_nanos: int = 0


class Repricer:
    """Adds up what records would have cost by the price book of a policy, and what they did.

    `registered` are adapters of run time: they are not in the policy, and cost as their base.
    """

    def __init__(self, policy: CompiledPolicy, registered: Collection[str]) -> None:
        self._models = policy.models
        self._registered = registered
        self._sums: dict[tuple[str, str, str, str, str], _Sums] = {}
        self._unknown: set[str] = set()

    def add(self, record: BilledRecord) -> None:
        """Prices one record."""
        price = self._price(record)
        if price is None:
            self._unknown.add(record.model)
            return
        key = (
            record.tenant, record.person, record.model, record.charged_version, price.version or "",
        )  # fmt: skip
        sums = self._sums.setdefault(key, _Sums())
        sums.requests += 1
        sums.charged_nanos += record.charged_nanos
        sums.new_nanos += nanos_of(record, price)

    def lines(self) -> tuple[RepricedLine, ...]:
        """The lines, in order. Raises RepricingError for models that the policy does not have."""
        if self._unknown:
            named = ", ".join(sorted(self._unknown)[:_NAMED_MODELS])
            raise RepricingError(
                f"the policy has no prices for models that were charged: {named}; give a policy"
                " file that has all models of the month"
            )
        return tuple(
            RepricedLine(
                tenant=tenant,
                person=person,
                model=model,
                charged_version=charged,
                new_version=new,
                requests=sums.requests,
                charged_nanos=sums.charged_nanos,
                new_nanos=sums.new_nanos,
            )
            for (tenant, person, model, charged, new), sums in sorted(self._sums.items())
        )

    def _price(self, record: BilledRecord) -> Price | None:
        """The price in force at the request's end; None for an unknown model."""
        is_registered = record.model not in self._models and record.model in self._registered
        model = self._models.get(record.base if is_registered else record.model)
        if model is None:
            return None
        return model.prices.at(record.ended_at.timestamp(), record.version)


def nanos_of(record: BilledRecord, price: Price) -> int:
    """The cost of a record at a price, in nanos, by the function that records use."""
    charged = Charge(
        record.prompt,
        record.completion,
        Source(record.source),
        min(record.cached, record.prompt),
        record.audio_seconds,
    )
    usage = Usage(reasoning=record.reasoning)
    cost = cost_of(usage, charged, price, record.is_from_cache)
    assert cost is not None, "there is a charge and a price"  # noqa: S101
    return int(cost.scaleb(9))
