"""How the entries of a policy refer to each other: names that must exist, and may stand once.

These rules read the plain document rather than the schema's models, so that they also
speak of a file that has other mistakes: every error at once. What has the wrong shape
is skipped here; `shape.py` tells of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from headgate.core.keys import default_id
from headgate.policy.document import Path, YamlList, YamlMapping, line_of
from headgate.policy.meaning import LimitMeaning, written_meaning
from headgate.policy.problems import Problem, Rule, hint, path_text, shown

MAX_TIERS = 20


def check_references(root: YamlMapping) -> list[Problem]:
    """Every reference to something that does not exist, and everything that stands twice."""
    return list(_References(root).problems())


@dataclass(slots=True)
class _References:
    root: YamlMapping
    _digests: dict[str, Path] = field(default_factory=dict)
    _unpriced: set[str] = field(default_factory=set)

    def problems(self) -> Iterator[Problem]:
        models = dict(_mappings(self.root, "models"))
        for name, model in models.items():
            yield from self._base(str(name), model, models)
        names = _keys(self.root, "models")
        for name, tenant in _mappings(self.root, "tenants"):
            path = ("tenants", name)
            yield from self._tenant_models(path, tenant, names)
            yield from self._keys(path, tenant)
            yield from self._limits(path, tenant, names)
        yield from self._tiers()

    def _tiers(self) -> Iterator[Problem]:
        """Tiers become labels of metrics, which must stay few."""
        seen: set[str] = set()
        for name, tenant in _mappings(self.root, "tenants"):
            tier = tenant.get("tier")
            if isinstance(tier, str) and tier not in seen:
                seen.add(tier)
                if len(seen) > MAX_TIERS:
                    what = f"is one tier more than {MAX_TIERS} (value {shown(tier)})"
                    advice = "tiers are labels of metrics: give tenants alike the same one"
                    yield self._problem(Rule.MANY_TIERS, what, advice, ("tenants", name, "tier"))

    def _base(
        self, name: str, model: YamlMapping, models: dict[str | int, YamlMapping]
    ) -> Iterator[Problem]:
        base = model.get("base")
        if not isinstance(base, str):
            return
        path: Path = ("models", name, "base")
        bases = [str(other) for other, entry in models.items() if "upstream" in entry]
        if base not in _keys(self.root, "models"):
            what = f"names no model of this file (value {shown(base)}){hint(base, bases)}"
            yield self._problem(Rule.UNKNOWN_BASE, what, "allowed: a model with upstream", path)
        elif base in models and "base" in models[base]:
            what = f"is itself an adapter (value {shown(base)})"
            yield self._problem(Rule.BASE_IS_ADAPTER, what, "allowed: a model with upstream", path)

    def _tenant_models(
        self, path: Path, tenant: YamlMapping, names: dict[str, None]
    ) -> Iterator[Problem]:
        for place, model in _texts(tenant, "models"):
            if names and model not in names:
                yield self._unknown_model((*path, "models", place), model, names)

    def _unknown_model(self, path: Path, model: str, names: dict[str, None]) -> Problem:
        what = f"is not a model of this file (value {shown(model)}){hint(model, names)}"
        return self._problem(Rule.UNKNOWN_MODEL, what, "allowed: the keys below models", path)

    def _keys(self, path: Path, tenant: YamlMapping) -> Iterator[Problem]:
        ids: dict[str, Path] = {}
        for place, key in _mappings(tenant, "keys"):
            entry: Path = (*path, "keys", place)
            digest = key.get("sha256")
            digest = digest.lower() if isinstance(digest, str) and len(digest) == 64 else None
            if digest is not None:
                first = self._digests.setdefault(digest, entry)
                if first != entry:
                    what = f"is the digest of {path_text(first)} too"
                    advice = "every key stands once in a file"
                    yield self._problem(Rule.SAME_DIGEST, what, advice, (*entry, "sha256"))
                    continue
            name = key.get("id", digest and _default_id(digest))
            if isinstance(name, str):
                first = ids.setdefault(name, entry)
                if first != entry:
                    what = f"is the id of {path_text(first)} too (value {shown(name)})"
                    advice = "give each key of a tenant its own id"
                    yield self._problem(Rule.SAME_KEY_ID, what, advice, (*entry, "id"))

    def _limits(self, path: Path, tenant: YamlMapping, names: dict[str, None]) -> Iterator[Problem]:
        users = {key["user"]: None for _, key in _mappings(tenant, "keys") if _has_user(key)}
        own = {model: None for _, model in _texts(tenant, "models")}
        seen: dict[LimitMeaning, Path] = {}
        for place, limit in _mappings(tenant, "limits"):
            entry: Path = (*path, "limits", place)
            for at, user in _texts(limit, "users"):
                if user not in users:
                    what = f"has no key in this tenant (value {shown(user)}){hint(user, users)}"
                    advice = "allowed: a user of one of its keys"
                    yield self._problem(Rule.UNKNOWN_USER, what, advice, (*entry, "users", at))
            for at, model in _texts(limit, "models"):
                if names and model not in names:
                    yield self._unknown_model((*entry, "models", at), model, names)
                elif model not in own:
                    what = f"is not a model of this tenant (value {shown(model)})"
                    advice = "allowed: its own models, " + ", ".join(own)
                    where = (*entry, "models", at)
                    yield self._problem(Rule.MODEL_NOT_OF_TENANT, what, advice, where)
            yield from self._slice(entry, limit)
            meaning = written_meaning(limit)
            first = entry if meaning is None else seen.setdefault(meaning, entry)
            if first != entry:
                what = f"counts the same as {path_text(first)}"
                advice = "keep one of them: the smaller limit decides alone"
                yield self._problem(Rule.SAME_LIMIT, what, advice, entry)
            if limit.get("count") == "cost":
                met = [model for _, model in _texts(limit, "models")] or list(own)
                yield from self._prices(entry, met)

    def _prices(self, limit: Path, models: Iterable[str]) -> Iterator[Problem]:
        """Models of a cost limit that nobody gave prices: told once, where they would stand."""
        entries = dict(_mappings(self.root, "models"))
        for model in models:
            entry, name = entries.get(model), model
            if entry is not None and "prices" not in entry and "base" in entry:
                name = str(entry["base"])
                entry = entries.get(name)
            if entry is None or "prices" in entry or name in self._unpriced:
                continue
            self._unpriced.add(name)
            what = f"is missing, and {path_text(limit)} counts what the model costs"
            advice = (
                "write what a million tokens cost, as in {input: 0.20, output: 0.60},"
                " or {input: 0, output: 0} for a free model"
            )
            yield self._problem(Rule.NO_PRICES, what, advice, ("models", name, "prices"))

    def _slice(self, path: Path, limit: YamlMapping) -> Iterator[Problem]:
        amount, most = limit.get("slice"), limit.get("limit")
        where = (*path, "slice")
        if isinstance(amount, int | Decimal) and isinstance(most, int | Decimal) and amount > most:
            what = f"is more than the limit (value {shown(amount)})"
            yield self._problem(Rule.SLICE_ABOVE_LIMIT, what, f"allowed: up to {most}", where)
        if amount is not None and limit.get("shadow") is True:
            what = "does not go with shadow: true"
            advice = "a shadow limit counts each request in Redis; remove one of them"
            yield self._problem(Rule.SLICE_OF_SHADOW, what, advice, where)
        if amount is not None and limit.get("smooth") is True:
            what = "does not go with smooth: true"
            advice = "a smooth limit refills between requests; remove one of them"
            yield self._problem(Rule.SLICE_OF_SMOOTH, what, advice, where)

    def _problem(self, rule: Rule, what: str, allowed: str, path: Path) -> Problem:
        return Problem(rule, what, allowed, path, line_of(self.root, path))


def _has_user(key: YamlMapping) -> bool:
    return isinstance(key.get("user"), str)


def _default_id(digest: str) -> str | None:
    try:
        return default_id(bytes.fromhex(digest))
    except ValueError:
        return None


def _keys(node: YamlMapping, key: str) -> dict[str, None]:
    inner = node.get(key)
    return dict.fromkeys(inner) if isinstance(inner, YamlMapping) else {}


def _mappings(node: YamlMapping, key: str) -> Iterator[tuple[str | int, YamlMapping]]:
    """The mappings below `key`, by their names or indices; whatever else is there is skipped."""
    inner = node.get(key)
    entries: list[tuple[str | int, object]] = []
    if isinstance(inner, YamlMapping):
        entries = list(inner.items())
    elif isinstance(inner, YamlList):
        entries = list(enumerate(inner))
    return ((at, entry) for at, entry in entries if isinstance(entry, YamlMapping))


def _texts(node: YamlMapping, key: str) -> Iterator[tuple[int, str]]:
    inner = node.get(key)
    items = inner if isinstance(inner, YamlList) else []
    return ((at, item) for at, item in enumerate(items) if isinstance(item, str))
