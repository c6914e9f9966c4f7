"""Do the filters that ask our services fail closed and say what the services read?"""

from collections.abc import Iterator, Mapping, Sequence

from headgate.core.contract import (
    DOMAIN,
    OP,
    OP_RESERVE,
    OP_SETTLE,
    RESERVE_ENTRIES,
    SETTLE_ADMISSION_ENTRIES,
    SETTLE_LIMITS_ENTRIES,
    SETTLE_USAGE_ENTRIES,
    AdmissionKey,
    Namespace,
)
from headgate.istio_check.attachments import EXT_PROC, OURS, Patch, patches_of
from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh

RATELIMIT = "headgate.ratelimit"
BODY_LIMIT = "headgate.body_limit"
ESTIMATE = f"%DYNAMIC_METADATA({Namespace.ADMISSION}:{AdmissionKey.ESTIMATE})%"
REQUIRED = {
    OP_RESERVE: {str(key): str(Namespace.ADMISSION) for key in RESERVE_ENTRIES},
    OP_SETTLE: {
        **{str(key): str(Namespace.ADMISSION) for key in SETTLE_ADMISSION_ENTRIES},
        **{str(key): str(Namespace.LIMITS) for key in SETTLE_LIMITS_ENTRIES},
        **{str(key): str(Namespace.USAGE) for key in SETTLE_USAGE_ENTRIES},
    },
}
"""Each descriptor by its `op`: its entries, and the namespace that each is read from."""


def failure_modes(mesh: Mesh) -> Iterator[Finding]:
    """Nothing passes without a decision."""
    for one, path, config in _ours(mesh):
        name = str(config.get("@type", "")).rpartition(".")[2]
        allow = _key(config, "failure_mode_allow")
        if name in ("ExternalProcessor", "ExtAuthz") and config.get(allow) is True:
            what = "requests pass undecided while the service does not answer"
            yield found(Rule.FAILS_OPEN, one.manifest, (*path, allow), what, f"{allow}: false")
        deny = _key(config, "failure_mode_deny")
        if name == "RateLimit" and config.get(deny) in (None, False):
            what = "requests pass unlimited while the service does not answer"
            yield found(Rule.FAILS_OPEN, one.manifest, (*path, deny), what, f"{deny}: true")


def metadata(mesh: Mesh) -> Iterator[Finding]:
    """ext_proc's metadata reaches the other filters only by namespaces that its filter names."""
    for one, path, config in _ours(mesh):
        if one.name != EXT_PROC:
            continue
        options = mapping(_get(config, "metadata_options"))
        for key, needed in (
            ("forwarding_namespaces", (Namespace.CALLER, Namespace.REQUEST)),
            ("receiving_namespaces", (Namespace.ADMISSION,)),
        ):
            given = items(mapping(_get(options, key)).get("untyped"))
            for namespace in needed:
                if namespace not in given:
                    what = f"the namespace {namespace} is not among them"
                    where: KeyPath = (*path, "metadata_options", key, "untyped")
                    yield found(Rule.METADATA_NAMESPACE, one.manifest, where, what, str(namespace))


def ratelimit_domain(mesh: Mesh) -> Iterator[Finding]:
    """The service knows its limits by this domain."""
    for one, path, config in _ours(mesh):
        if one.name == RATELIMIT and config.get("domain") != DOMAIN:
            what = f"the services answer for no domain {config.get('domain')}: nothing is limited"
            yield found(Rule.RATELIMIT_DOMAIN, one.manifest, (*path, "domain"), what, DOMAIN)


def descriptors(mesh: Mesh) -> Iterator[Finding]:
    """What is reserved and settled, and that no entry can drop its descriptor."""
    for one, path, config in _ours(mesh):
        if one.name != RATELIMIT:
            continue
        key = _key(config, "rate_limits")
        seen = set()
        for at, limit in enumerate(map(mapping, items(config.get(key)))):
            where: KeyPath = (*path, key, at, "actions")
            actions = [mapping(action) for action in items(limit.get("actions"))]
            op = _op(actions)
            seen.add(op)
            yield from _entries(one, where, op, actions)
            yield from _default_values(one, where, actions)
            amount = text(mapping(_get(limit, "hits_addend")).get("format"))
            if op == OP_RESERVE and amount != ESTIMATE:
                place: KeyPath = (*path, key, at, "hits_addend", "format")
                what = f"{amount or 'one token'} is reserved for each request"
                yield found(Rule.DESCRIPTOR, one.manifest, place, what, ESTIMATE)
        for op in REQUIRED:
            if op not in seen:
                what = f"no descriptor has {OP}={op}"
                write = "the filter that `headgate render istio` prints"
                yield found(Rule.DESCRIPTOR, one.manifest, (*path, key), what, write)


def buffer_limits(mesh: Mesh) -> Iterator[Finding]:
    """A body that the proxy takes is one that it can hold and the services can read."""
    for one, path, config in _ours(mesh):
        if one.name != BODY_LIMIT:
            continue
        key = _key(config, "max_request_bytes")
        limit = whole(config.get(key)) or 0
        for other in _listener_limits(mesh):
            size = whole(_get(other.value, "per_connection_buffer_limit_bytes"))
            if size is not None and size > limit > 0:
                what = f"connections hold {size} bytes, bodies may have {limit}"
                where: KeyPath = (
                    *other.path,
                    "patch",
                    "value",
                    "per_connection_buffer_limit_bytes",
                )
                write = f"at most {limit}"
                yield found(Rule.BUFFER_LIMITS, other.manifest, where, what, write)
        if limit > mesh.largest_body_bytes:
            what = f"{limit} bytes: the services take messages of {mesh.largest_body_bytes}"
            write = f"at most {mesh.largest_body_bytes}"
            yield found(Rule.BUFFER_LIMITS, one.manifest, (*path, key), what, write)


def _ours(mesh: Mesh) -> Iterator[tuple[Patch, KeyPath, Mapping[str, object]]]:
    """Patches that bring or change a filter that asks our services, with their typed_config."""
    for manifest in mesh.kind("EnvoyFilter"):
        for one in patches_of(manifest):
            if one.name.startswith(OURS) or one.name == Namespace.CALLER:
                key = _key(one.value, "typed_config")
                path: KeyPath = (*one.path, "patch", "value", key)
                yield one, path, mapping(one.value.get(key))


def _listener_limits(mesh: Mesh) -> Iterator[Patch]:
    for manifest in mesh.kind("EnvoyFilter"):
        yield from (one for one in patches_of(manifest) if one.to == "LISTENER")


def _entries(
    one: Patch, path: KeyPath, op: str, actions: Sequence[Mapping[str, object]]
) -> Iterator[Finding]:
    required = REQUIRED.get(op)
    if required is None:
        what = f"the services know no {OP}={op or 'none'}"
        write = f"{OP} {' or '.join(REQUIRED)}, by a generic_key"
        yield found(Rule.DESCRIPTOR, one.manifest, path, what, write)
        return
    given = {}
    for action in actions:
        entry = mapping(action.get("metadata"))
        name = mapping(_get(entry, "metadata_key")).get("key")
        given[text(_get(entry, "descriptor_key"))] = text(name)
    for key, namespace in required.items():
        if given.get(key) != namespace:
            source = f"from {given[key]}" if key in given else "nowhere"
            what = (
                f"the entry {key} of {OP}={op} comes {source}; it belongs into it from {namespace}"
            )
            write = "the filter that `headgate render istio` prints"
            yield found(Rule.DESCRIPTOR, one.manifest, path, what, write)


def _default_values(
    one: Patch, path: KeyPath, actions: Sequence[Mapping[str, object]]
) -> Iterator[Finding]:
    for at, action in enumerate(actions):
        entry = mapping(action.get("metadata"))
        if entry and not text(_get(entry, "default_value")):
            name = text(_get(entry, "descriptor_key"))
            what = f"a request without {name} in its metadata loses its descriptor, and all limits"
            where: KeyPath = (*path, at, "metadata", "default_value")
            yield found(Rule.DEFAULT_VALUE, one.manifest, where, what, 'default_value: "-"')


def _op(actions: Sequence[Mapping[str, object]]) -> str:
    for action in actions:
        generic = mapping(_get(action, "generic_key"))
        if _get(generic, "descriptor_key") == OP:
            return text(_get(generic, "descriptor_value"))
    return ""


def _key(value: Mapping[str, object], snake: str) -> str:
    """The key as it is written: JSON takes the names of fields in both cases."""
    first, *rest = snake.split("_")
    camel = first + "".join(part.capitalize() for part in rest)
    return camel if camel in value else snake


def _get(value: Mapping[str, object], snake: str) -> object:
    return value.get(_key(value, snake))
