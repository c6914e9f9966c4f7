"""Keys as rows of the database and as values of the change log. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from headgate.core.policy import Count, Per
from headgate.identity.keys import Key, KeyRequest
from headgate.identity.limits import KeyLimit


def logged(key: Key, person: str) -> dict[str, object]:
    """The key for the change log: the person by id, and numbers as text, which never change."""
    request = key.request
    return {
        "tenant": request.tenant,
        "person": person,
        "models": None if request.models is None else sorted(request.models),
        "limits": [
            {name: None if value is None else str(value) for name, value in asdict(limit).items()}
            for limit in request.limits
        ],
        "labels": dict(request.labels),
        "expires_s": text(request.expires_s),
    }


def difference(before: Key, after: Key) -> tuple[dict[str, object], dict[str, object]]:
    """The values that an edit has changed, for the change log, before and after it."""
    old, new = logged(before, ""), logged(after, "")
    changed = [name for name in old if old[name] != new[name]]
    return {name: old[name] for name in changed}, {name: new[name] for name in changed}


def text(seconds: float | None) -> str | None:
    """A time for the change log."""
    return None if seconds is None else str(seconds)


def read_key(row: tuple[Any, ...]) -> Key:
    """A key as the queries of the store select it."""
    id, tenant, user, models, limits, labels, created_s, expires_s, revoked_s, used_s, version = row
    request = KeyRequest(
        tenant=tenant,
        user=user,
        models=None if models is None else tuple(models),
        limits=tuple(map(read_limit, limits)),
        labels=labels,
        expires_s=expires_s,
    )
    return Key(
        id=id,
        request=request,
        created_s=created_s,
        revoked_s=revoked_s,
        last_used_s=used_s,
        version=version,
    )


def read_limit(values: Mapping[str, Any]) -> KeyLimit:
    """A limit as `_add` has written it."""
    per = values["per"]
    return KeyLimit(Count(values["count"]), values["limit"], None if per is None else Per(per))
