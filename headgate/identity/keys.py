"""The rules of a key's life, from issue to end. Pure: no clock, no database."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headgate.core.key_ring import RUN_TIME_MARK
from headgate.core.policy import CompiledPolicy, Count, Tenant
from headgate.identity.limits import KeyLimit, problem_of

MAX_LABELS = 16
_ID_BYTES = 8
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+|/%-]{0,255}")
LABEL = re.compile(r"[a-z][a-z0-9_]{0,31}")
LABEL_VALUE = re.compile(r"[ -~]{1,128}")


class KeyRuleError(Exception):
    """A change that a key does not allow. `field` names the value at fault; `str()` says why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A key that somebody asks for.

    `models` None means all of the tenant's models. `labels` are for reports, such as a cost centre.
    `expires_s` is in seconds since the Unix epoch; None for a key without an end.
    """

    tenant: str
    user: str
    models: tuple[str, ...] | None = None
    limits: tuple[KeyLimit, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    expires_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept. All times are in seconds since the Unix epoch.

    `version` is the number of its last change.
    """

    id: str
    request: KeyRequest
    created_s: float
    revoked_s: float | None = None
    last_used_s: float | None = None
    version: int = 0

    def is_live(self, now_s: float) -> bool:
        """Whether the key is neither revoked nor expired."""
        end_s = self.request.expires_s
        return self.revoked_s is None and (end_s is None or now_s < end_s)


@dataclass(frozen=True, slots=True)
class Secret:
    """One of the secrets of a key, by its digest, with its own end if it has one."""

    digest: bytes
    created_s: float
    expires_s: float | None = None


def new_id(random_bytes: Callable[[int], bytes]) -> str:
    """The id of a new key. It outlives each of the key's secrets."""
    return RUN_TIME_MARK + random_bytes(_ID_BYTES).hex()


def check_request(request: KeyRequest, policy: CompiledPolicy, now_s: float) -> None:
    """Raises KeyRuleError unless the policy's tenant may have such a key."""
    tenant = policy.tenants.get(request.tenant)
    if tenant is None:
        raise KeyRuleError("tenant", f"the policy has no tenant '{request.tenant}'")
    check_user(request.user)
    if request.models is not None:
        _check_models(request.models, tenant.models)
    _check_limits(request, tenant, policy)
    _check_labels(request.labels)
    _check_end(request.expires_s, now_s)


def check_user(user: str) -> None:
    """Raises KeyRuleError for a text that is no name of a user."""
    if USER.fullmatch(user) is None:
        raise KeyRuleError("user", "must be 1 to 256 letters, digits and . _ @ : + | / % -")


def rotated(
    key: Key, secrets: Sequence[Secret], fresh: Secret, overlap_s: float
) -> tuple[Secret, ...]:
    """The secrets after a rotation: the older ones end `overlap_s` after the fresh one began.

    None lives longer than before. Raises KeyRuleError for a key that has ended.
    """
    if not key.is_live(fresh.created_s):
        raise KeyRuleError("key", f"{key.id} has ended; issue a new key")
    if overlap_s < 0:
        raise KeyRuleError("overlap", "is not a number of seconds from 0")
    end_s = fresh.created_s + overlap_s
    older = (replace(one, expires_s=_earlier(one.expires_s, end_s)) for one in secrets)
    return (*older, fresh)


def edited(key: Key, request: KeyRequest, policy: CompiledPolicy, now_s: float) -> Key:
    """The live key with other models, limits, labels or another end.

    Its models are checked only if they change: the policy may have taken one away meanwhile. Raises
    KeyRuleError.
    """
    if not key.is_live(now_s):
        raise KeyRuleError("key", f"{key.id} has ended; issue a new key")
    same_models = request.models == key.request.models
    check_request(replace(request, models=None) if same_models else request, policy, now_s)
    return replace(key, request=request)


def revoked(key: Key, now_s: float) -> Key:
    """The key without any right from now on. A revoked key stays as it was."""
    return key if key.revoked_s is not None else replace(key, revoked_s=now_s)


def _earlier(one_s: float | None, other_s: float) -> float:
    return other_s if one_s is None else min(one_s, other_s)


def _check_end(expires_s: float | None, now_s: float) -> None:
    if expires_s is not None and expires_s <= now_s:
        raise KeyRuleError("expires", "is not in the future")


def _check_limits(request: KeyRequest, tenant: Tenant, policy: CompiledPolicy) -> None:
    for limit in request.limits:
        if problem := problem_of(limit):
            raise KeyRuleError("limits", problem)
        if limit.count is Count.COST:
            _check_prices(tenant.models if request.models is None else request.models, policy)


def _check_prices(models: Iterable[str], policy: CompiledPolicy) -> None:
    known = (policy.models.get(name) for name in sorted(models))
    for model in known:
        if model is not None and not model.prices.all_periods:
            problem = f"the policy has no prices of '{model.name}', so its cost has no limit"
            raise KeyRuleError("limits", f"{problem}; leave that model out")


def _check_models(models: Sequence[str], allowed: frozenset[str]) -> None:
    if not models:
        raise KeyRuleError("models", "is empty; leave it out for all models of the tenant")
    if unknown := sorted(set(models) - allowed):
        known = ", ".join(sorted(allowed))
        raise KeyRuleError("models", f"the tenant may not use '{unknown[0]}'; allowed: {known}")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise KeyRuleError("labels", f"has more than {MAX_LABELS} labels")
    for name, value in labels.items():
        if LABEL.fullmatch(name) is None:
            raise KeyRuleError("labels", "a name is a letter a-z and up to 31 of a-z, 0-9 and _")
        if LABEL_VALUE.fullmatch(value) is None:
            raise KeyRuleError("labels", f"'{name}' must be 1 to 128 printable ASCII characters")
