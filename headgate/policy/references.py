"""References between the entries of a policy: names must exist, and some must be unique.

These rules read the plain document and not the schema's models. They therefore also check a file
that has other mistakes, so that an operator sees all errors at once. Values of the wrong shape are
skipped here; `shape.py` reports them.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal

from headgate.core.auto import AUTO
from headgate.core.keys import default_id
from headgate.policy.auto_references import AutoReferences
from headgate.policy.caller_references import check_callers, origins_of_users
from headgate.policy.document import Path, YamlMapping, line_of
from headgate.policy.failover import check_failover
from headgate.policy.meaning import LimitMeaning, written_meaning
from headgate.policy.nodes import keys, mappings, texts
from headgate.policy.notice_references import check_notices
from headgate.policy.problems import PolicyRule, Problem, hint, path_text, shown
from headgate.policy.schema import BASE_RULE
from headgate.policy.showback_references import check_showback

MAX_TIERS = 20
_MODEL_ADVICE = "allowed: the names under models"
_USER_ADVICE = "allowed: a user with a key in this tenant"
_PRICES_ADVICE = (
    "add the price of a million tokens, as in {input: 0.20, output: 0.60},"
    " or {input: 0, output: 0} for a free model"
)


def check_references(root: YamlMapping) -> list[Problem]:
    """The references to entries that do not exist, and the entries that must be unique but are not.

    `root` is the top of the policy file.
    """
    return list(_References(root).problems())


@dataclass(slots=True)
class _References:
    root: YamlMapping
    _digests: dict[str, Path] = field(default_factory=dict)
    _unpriced: set[str] = field(default_factory=set)

    def problems(self) -> Iterator[Problem]:
        models = dict(mappings(self.root, "models"))
        for name, model in models.items():
            yield from self._base(str(name), model, models)
        names = keys(self.root, "models")
        auto = AutoReferences(self.root)
        grants = {**names, AUTO: None} if auto.models else names
        yield from auto.problems()
        for name, tenant in mappings(self.root, "tenants"):
            path = ("tenants", name)
            yield from self._tenant_models(path, tenant, grants)
            yield from self._tenant_keys(path, tenant)
            own = dict.fromkeys(auto.met_by(tenant))
            yield from self._limits(path, tenant, names, own)
        for ceiling, _ in auto.ceilings():
            yield from self._prices(ceiling, auto.models)
        yield from self._tiers()
        yield from check_callers(self.root)
        yield from check_failover(self.root)
        yield from check_showback(self.root)
        yield from check_notices(self.root)

    def _tiers(self) -> Iterator[Problem]:
        """Tiers become labels of metrics, so their number is bounded."""
        seen: set[str] = set()
        for name, tenant in mappings(self.root, "tenants"):
            tier = tenant.get("tier")
            if isinstance(tier, str) and tier not in seen:
                seen.add(tier)
                if len(seen) > MAX_TIERS:
                    fault = f"exceeds the maximum of {MAX_TIERS} tiers (value {shown(tier)})"
                    advice = "tiers become labels of metrics: give similar tenants the same tier"
                    path = ("tenants", name, "tier")
                    yield self._problem(PolicyRule.MANY_TIERS, fault, advice, path)

    def _base(
        self, name: str, model: YamlMapping, models: dict[str | int, YamlMapping]
    ) -> Iterator[Problem]:
        base = model.get("base")
        if not isinstance(base, str):
            return
        path: Path = ("models", name, "base")
        advice = f"allowed: {BASE_RULE}"
        bases = [str(other) for other, entry in models.items() if "upstream" in entry]
        if base not in keys(self.root, "models"):
            fault = f"is not a model in this file (value {shown(base)}){hint(base, bases)}"
            yield self._problem(PolicyRule.UNKNOWN_BASE, fault, advice, path)
        elif base in models and "base" in models[base]:
            fault = f"is itself an adapter (value {shown(base)})"
            yield self._problem(PolicyRule.BASE_IS_ADAPTER, fault, advice, path)

    def _tenant_models(
        self, path: Path, tenant: YamlMapping, names: dict[str, None]
    ) -> Iterator[Problem]:
        for index, model in texts(tenant, "models"):
            if names and model not in names:
                yield self._unknown_model((*path, "models", index), model, names)

    def _unknown_model(self, path: Path, model: str, names: dict[str, None]) -> Problem:
        fault = f"is not a model in this file (value {shown(model)}){hint(model, names)}"
        return self._problem(PolicyRule.UNKNOWN_MODEL, fault, _MODEL_ADVICE, path)

    def _tenant_keys(self, path: Path, tenant: YamlMapping) -> Iterator[Problem]:
        """A digest is unique in the file, and the id of a key in its tenant."""
        ids: dict[str, Path] = {}
        for index, key in mappings(tenant, "keys"):
            entry: Path = (*path, "keys", index)
            digest = key.get("sha256")
            digest = digest.lower() if isinstance(digest, str) and len(digest) == 64 else None
            if digest is not None:
                first = self._digests.setdefault(digest, entry)
                if first != entry:
                    fault = f"is also the digest of {path_text(first)}"
                    advice = "list each key once"
                    where = (*entry, "sha256")
                    yield self._problem(PolicyRule.SAME_DIGEST, fault, advice, where)
                    continue
            name = key.get("id", digest and _default_id(digest))
            if isinstance(name, str):
                first = ids.setdefault(name, entry)
                if first != entry:
                    fault = f"is also the id of {path_text(first)} (value {shown(name)})"
                    advice = "give each key of a tenant its own id"
                    yield self._problem(PolicyRule.SAME_KEY_ID, fault, advice, (*entry, "id"))

    def _limits(
        self, path: Path, tenant: YamlMapping, names: dict[str, None], own: dict[str, None]
    ) -> Iterator[Problem]:
        entries = (*mappings(tenant, "keys"), *mappings(tenant, "workloads"))
        users = {entry["user"]: None for _, entry in entries if _has_user(entry)}
        origins = origins_of_users(self.root, tenant)
        seen: dict[LimitMeaning, Path] = {}
        for index, limit in mappings(tenant, "limits"):
            entry: Path = (*path, "limits", index)
            yield from self._limit_users(entry, limit, users, origins)
            yield from self._limit_models(entry, limit, names, own)
            yield from self._slice(entry, limit)
            meaning = written_meaning(limit)
            first = entry if meaning is None else seen.setdefault(meaning, entry)
            if first != entry:
                fault = f"counts the same as {path_text(first)}"
                advice = "keep only the smaller limit: it decides alone"
                yield self._problem(PolicyRule.SAME_LIMIT, fault, advice, entry)
            if limit.get("count") == "cost":
                met = [model for _, model in texts(limit, "models")] or list(own)
                yield from self._prices(entry, met)

    def _limit_users(
        self, limit: Path, entry: YamlMapping, users: dict[str, None], origins: AbstractSet[str]
    ) -> Iterator[Problem]:
        for index, user in texts(entry, "users"):
            if user not in users and user.partition(":")[0] not in origins:
                fault = f"has no key in this tenant (value {shown(user)}){hint(user, users)}"
                path = (*limit, "users", index)
                yield self._problem(PolicyRule.UNKNOWN_USER, fault, _USER_ADVICE, path)

    def _limit_models(
        self, limit: Path, entry: YamlMapping, names: dict[str, None], own: dict[str, None]
    ) -> Iterator[Problem]:
        for index, model in texts(entry, "models"):
            path = (*limit, "models", index)
            if names and model not in names:
                yield self._unknown_model(path, model, names)
            elif model not in own:
                fault = f"is not a model of this tenant (value {shown(model)})"
                advice = "allowed: the models of the tenant, " + ", ".join(own)
                yield self._problem(PolicyRule.MODEL_NOT_OF_TENANT, fault, advice, path)

    def _prices(self, limit: Path, models: Iterable[str]) -> Iterator[Problem]:
        """Models of a cost limit without prices. Each is reported once, where prices belong."""
        entries = dict(mappings(self.root, "models"))
        for model in models:
            entry, name = entries.get(model), model
            if entry is not None and "prices" not in entry and "base" in entry:
                name = str(entry["base"])
                entry = entries.get(name)
            if entry is None or "prices" in entry or name in self._unpriced:
                continue
            self._unpriced.add(name)
            fault = f"is missing, but {path_text(limit)} limits the cost of this model"
            path = ("models", name, "prices")
            yield self._problem(PolicyRule.NO_PRICES, fault, _PRICES_ADVICE, path)

    def _slice(self, path: Path, limit: YamlMapping) -> Iterator[Problem]:
        amount, most = limit.get("slice"), limit.get("limit")
        where = (*path, "slice")
        if isinstance(amount, int | Decimal) and isinstance(most, int | Decimal) and amount > most:
            fault = f"is larger than the limit (value {shown(amount)})"
            advice = f"allowed: up to {most}"
            yield self._problem(PolicyRule.SLICE_ABOVE_LIMIT, fault, advice, where)
        if amount is not None and limit.get("shadow") is True:
            fault = "cannot be combined with shadow: true"
            advice = "remove one of them: a shadow limit counts each request in Redis"
            yield self._problem(PolicyRule.SLICE_OF_SHADOW, fault, advice, where)
        if amount is not None and limit.get("smooth") is True:
            fault = "cannot be combined with smooth: true"
            advice = "remove one of them: a smooth limit refills between requests"
            yield self._problem(PolicyRule.SLICE_OF_SMOOTH, fault, advice, where)

    def _problem(self, rule: PolicyRule, fault: str, advice: str, path: Path) -> Problem:
        line = line_of(self.root, path)
        return Problem(rule=rule, fault=fault, advice=advice, path=path, line=line)


def _has_user(key: YamlMapping) -> bool:
    return isinstance(key.get("user"), str)


def _default_id(digest: str) -> str | None:
    try:
        return default_id(bytes.fromhex(digest))
    except ValueError:
        return None
