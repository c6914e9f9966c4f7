"""The references of `auto` in a policy file. Like `references.py`, it reads the plain document."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from headgate.core.auto import AUTO
from headgate.policy.document import Path, YamlMapping, line_of
from headgate.policy.nodes import keys, mappings, texts
from headgate.policy.problems import PolicyRule, Problem, hint, shown

_TAKES = ("tools", "images")
_MODEL_ADVICE = "allowed: the names under models"


@dataclass(frozen=True, slots=True)
class AutoReferences:
    """The models that `auto` stands for, and the mistakes about them."""

    root: YamlMapping

    @property
    def models(self) -> list[str]:
        """The models of `auto`; empty without it."""
        return list(keys(self.root, AUTO))

    def met_by(self, tenant: YamlMapping) -> list[str]:
        """The models that a tenant may meet: those that it may name, and those of `auto`."""
        granted = [model for _, model in texts(tenant, "models")]
        if AUTO not in granted or not self.models:
            return granted
        return [*(name for name in granted if name != AUTO), *self.models]

    def ceilings(self) -> Iterator[tuple[Path, YamlMapping]]:
        """The ceilings of the tenants."""
        for name, tenant in mappings(self.root, "tenants"):
            ceiling = tenant.get("auto_ceiling")
            if isinstance(ceiling, YamlMapping):
                yield ("tenants", name, "auto_ceiling"), ceiling

    def problems(self) -> Iterator[Problem]:
        """The names that do not fit, the sizes out of order, and the ceilings below all models."""
        yield from self._names()
        yield from self._falling()
        yield from self._beyond_context()
        yield from self._too_low()

    def _names(self) -> Iterator[Problem]:
        names = keys(self.root, "models")
        if AUTO in names and AUTO in self.root:
            fault = "is the name that the top of the file gives to several models"
            advice = "give the model another name"
            yield self._problem(PolicyRule.AUTO_IS_MODEL, fault, advice, ("models", AUTO))
        for name in self.models:
            if names and name not in names:
                fault = f"is not a model in this file{hint(name, names)}"
                yield self._problem(PolicyRule.UNKNOWN_MODEL, fault, _MODEL_ADVICE, (AUTO, name))

    def _falling(self) -> Iterator[Problem]:
        for (small, first), (large, second) in pairwise(mappings(self.root, AUTO)):
            contexts = self._context(small), self._context(large)
            bounds = first.get("up_to", contexts[0]), second.get("up_to", contexts[1])
            refuses = any(
                first.get(key) is not False and second.get(key) is False for key in _TAKES
            )
            if refuses or _falls(*contexts) or _falls(*bounds):
                fault = f"takes less than {shown(small)} before it"
                advice = "list the sizes from the smallest to the largest"
                yield self._problem(PolicyRule.SIZES_FALL, fault, advice, (AUTO, large))

    def _beyond_context(self) -> Iterator[Problem]:
        for name, size in mappings(self.root, AUTO):
            context, up_to = self._context(name), size.get("up_to")
            if _falls(up_to, context):
                fault = f"is larger than the context of the model (value {shown(up_to)})"
                where = (AUTO, name, "up_to")
                yield self._problem(
                    PolicyRule.UP_TO_ABOVE_CONTEXT, fault, f"allowed: up to {context}", where
                )

    def _too_low(self) -> Iterator[Problem]:
        prices = [self._dearest(name) for name in self.models]
        for path, ceiling in self.ceilings():
            if prices and all(_is_above(each, ceiling) for each in prices):
                fault = "is below the prices of all models of auto"
                advice = "raise it, or remove it"
                yield self._problem(PolicyRule.CEILING_TOO_LOW, fault, advice, path)

    def _entry(self, name: str | int, key: str) -> YamlMapping | None:
        """The entry that says `key` of a model: its own, else its base's."""
        models = dict(mappings(self.root, "models"))
        entry = models.get(name)
        if entry is not None and key not in entry and "base" in entry:
            return models.get(str(entry["base"]))
        return entry

    def _context(self, name: str | int) -> object:
        entry = self._entry(name, "context_tokens")
        return None if entry is None else entry.get("context_tokens")

    def _dearest(self, name: str) -> dict[str, Decimal | int]:
        """The highest prices of a model in all periods and versions, by kind; empty of none."""
        entry = self._entry(name, "prices")
        if entry is None:
            return {}
        periods = list(_periods(entry))
        for _, version in mappings(entry, "versions"):
            periods += _periods(version)
        found: dict[str, Decimal | int] = {}
        for period in periods:
            for kind, price in period.items():
                if isinstance(price, int | Decimal):
                    found[kind] = max(price, found.get(kind, 0))
        return found

    def _problem(self, rule: PolicyRule, fault: str, advice: str, path: Path) -> Problem:
        line = line_of(self.root, path)
        return Problem(rule=rule, fault=fault, advice=advice, path=path, line=line)


def _periods(entry: YamlMapping) -> Iterable[YamlMapping]:
    prices = entry.get("prices")
    if isinstance(prices, YamlMapping):
        return [prices]
    return [period for _, period in mappings(entry, "prices")]


def _is_above(prices: dict[str, Decimal | int], ceiling: YamlMapping) -> bool:
    most = {kind: price for kind, price in ceiling.items() if isinstance(price, int | Decimal)}
    output = max(prices.get("output", 0), prices.get("reasoning", 0))
    return any(
        kind in most and price > most[kind]
        for kind, price in (("input", prices.get("input", 0)), ("output", output))
    )


def _falls(first: object, second: object) -> bool:
    return isinstance(first, int) and isinstance(second, int) and second < first
