"""Do the filters that call our services fail closed, and send the fields the services read?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headgate.core.answer_cache import OFFER_METADATA
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
from headgate.dataplane.box import MAX_BODY_LIMIT_BYTES, MIN_BODY_LIMIT_BYTES
from headgate.dataplane.lean_filters import EDIT_ROOM_BYTES
from headgate.istio_check.attachments import EXT_PROC, OURS, SLOT_SETTLER, Patch, all_patches
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh
from headgate.policy.answer_cache import caching_models

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
"""The entries of each descriptor, by its `op`, and the namespace that each is read from."""
_OUR_FILTER = "the filter that `headgate render istio` prints"
_BUFFER_LIMIT = "per_connection_buffer_limit_bytes"


@dataclass(frozen=True, slots=True)
class _Filter:
    """A patch that adds or changes a filter that calls our services.

    `config` is the filter's `typed_config`, and `path` is the path of it in the object.
    """

    patch: Patch
    path: KeyPath
    config: Mapping[str, object]

    def adds(self, name: str) -> bool:
        """Whether the patch adds the filter of this name."""
        return self.patch.adds and self.patch.name == name

    def finding(self, rule: MeshRule, below: KeyPath, message: str, remedy: str) -> Finding:
        """A finding about the value at the path `below` the configuration."""
        return finding_at(rule, self.patch.manifest, (*self.path, *below), message, remedy)


def failure_modes(mesh: Mesh) -> Iterator[Finding]:
    """No request passes without a decision."""
    for ours in _our_filters(mesh):
        kind = str(ours.config.get("@type", "")).rpartition(".")[2]
        allow = _key(ours.config, "failure_mode_allow")
        if kind in ("ExternalProcessor", "ExtAuthz") and ours.config.get(allow) is True:
            message = "requests pass without a decision while the service does not answer"
            yield ours.finding(MeshRule.FAILS_OPEN, (allow,), message, f"{allow}: false")
        deny = _key(ours.config, "failure_mode_deny")
        unsafe = (None, False) if ours.patch.adds else (False,)
        if kind == "RateLimit" and ours.config.get(deny) in unsafe:
            message = "requests pass without limits while the service does not answer"
            yield ours.finding(MeshRule.FAILS_OPEN, (deny,), message, f"{deny}: true")


def metadata(mesh: Mesh) -> Iterator[Finding]:
    """ext_proc's filter names the metadata namespaces that it exchanges with other filters."""
    for ours in _our_filters(mesh):
        if not ours.adds(EXT_PROC):
            continue
        options = mapping(_get(ours.config, "metadata_options"))
        for key, needed in (
            ("forwarding_namespaces", (Namespace.CALLER, Namespace.REQUEST)),
            ("receiving_namespaces", (Namespace.ADMISSION,)),
        ):
            given = items(mapping(_get(options, key)).get("untyped"))
            for namespace in needed:
                if namespace not in given:
                    message = f"the namespace {namespace} is missing"
                    below: KeyPath = ("metadata_options", key, "untyped")
                    remedy = str(namespace)
                    yield ours.finding(MeshRule.METADATA_NAMESPACE, below, message, remedy)


def ratelimit_domain(mesh: Mesh) -> Iterator[Finding]:
    """The service knows its limits by this domain."""
    for ours in _our_filters(mesh):
        domain = ours.config.get("domain")
        if ours.adds(RATELIMIT) and domain != DOMAIN:
            message = f"the services know no domain {domain}, so they limit nothing"
            yield ours.finding(MeshRule.RATELIMIT_DOMAIN, ("domain",), message, DOMAIN)


def descriptors(mesh: Mesh) -> Iterator[Finding]:
    """The descriptors of reservation and settlement are complete, and no entry can drop one."""
    for ours in _our_filters(mesh):
        if not ours.adds(RATELIMIT):
            continue
        key = _key(ours.config, "rate_limits")
        seen = set()
        for at, limit in enumerate(map(mapping, items(ours.config.get(key)))):
            actions = [mapping(action) for action in items(limit.get("actions"))]
            op = _op(actions)
            seen.add(op)
            yield from _entries(ours, (key, at, "actions"), op, actions)
            yield from _default_values(ours, (key, at, "actions"), actions)
            amount = text(mapping(_get(limit, "hits_addend")).get("format"))
            if op == OP_RESERVE and amount != ESTIMATE:
                message = f"each request reserves {amount or 'one token'}"
                below: KeyPath = (key, at, "hits_addend", "format")
                yield ours.finding(MeshRule.DESCRIPTOR, below, message, ESTIMATE)
        for op in REQUIRED:
            if op not in seen:
                message = f"no descriptor has {OP}={op}"
                yield ours.finding(MeshRule.DESCRIPTOR, (key,), message, _OUR_FILTER)


def buffer_limits(mesh: Mesh) -> Iterator[Finding]:
    """The proxy can hold, and the services can read, every body that the proxy admits."""
    for ours in _our_filters(mesh):
        if not ours.adds(BODY_LIMIT):
            continue
        key = _key(ours.config, "max_request_bytes")
        limit = _body_limit(ours.config) or 0
        yield from _listener_limits(mesh, limit)
        if limit > mesh.largest_body_bytes:
            largest = mesh.largest_body_bytes
            message = f"bodies may have {limit} bytes, but the services take {largest}"
            yield ours.finding(MeshRule.BUFFER_LIMITS, (key,), message, f"at most {largest}")


def answer_cache(mesh: Mesh) -> Iterator[Finding]:
    """The proxy can serve the answer cache, if a model and a tenant of the policy want it."""
    models = caching_models(mesh.policy.compiled)
    for ours in _our_filters(mesh) if models else ():
        if ours.adds(SLOT_SETTLER):
            message = "the EnvoyFilters are of the lean path, which keeps no answer"
            remedy = "the EnvoyFilters of the standard path, or remove it"
            for model in models:
                path: KeyPath = ("models", model, "answer_cache")
                document = mesh.policy.document
                yield finding_at(MeshRule.CACHE_NOT_OFFERED, document, path, message, remedy)
        elif ours.adds(EXT_PROC) and OFFER_METADATA not in _initial_metadata(ours.config):
            name, value = OFFER_METADATA
            message = f"the filter does not offer the answer cache of {models[0]}: nothing is kept"
            below: KeyPath = (_key(ours.config, "grpc_service"), "initial_metadata")
            remedy = f"{{key: {name}, value: '{value}'}}, as `headgate render istio` prints"
            yield ours.finding(MeshRule.CACHE_NOT_OFFERED, below, message, remedy)


def body_limits(mesh: Mesh) -> frozenset[int]:
    """The limits of bodies that the mesh's own filters set, as far as Headgate renders such."""
    sizes = (
        _body_limit(ours.config) for ours in _our_filters(mesh) if ours.patch.name == BODY_LIMIT
    )
    return frozenset(
        size for size in sizes if size and MIN_BODY_LIMIT_BYTES <= size <= MAX_BODY_LIMIT_BYTES
    )


def _initial_metadata(config: Mapping[str, object]) -> set[tuple[str, str]]:
    """The metadata that a filter sends with each call."""
    entries = items(_get(mapping(_get(config, "grpc_service")), "initial_metadata"))
    return {(text(entry.get("key")), text(entry.get("value"))) for entry in map(mapping, entries)}


def _body_limit(config: Mapping[str, object]) -> int | None:
    """The limit of a body filter. On the lean path it is within a matcher, with room for edits."""
    within = mapping(_get(mapping(_get(config, "extension_config")), "typed_config"))
    size = whole(_get(within or config, "max_request_bytes"))
    return size - EDIT_ROOM_BYTES if within and size else size


def _listener_limits(mesh: Mesh, limit: int) -> Iterator[Finding]:
    for patch in all_patches(mesh):
        size = whole(_get(patch.value, _BUFFER_LIMIT))
        if patch.apply_to == "LISTENER" and size is not None and size > limit > 0:
            message = f"connections hold {size} bytes, but bodies may have only {limit}"
            path: KeyPath = (*patch.path, "patch", "value", _BUFFER_LIMIT)
            remedy = f"at most {limit}"
            yield finding_at(MeshRule.BUFFER_LIMITS, patch.manifest, path, message, remedy)


def _our_filters(mesh: Mesh) -> Iterator[_Filter]:
    for patch in all_patches(mesh):
        name = patch.name or patch.anchor
        if name.startswith(OURS) or name == Namespace.CALLER:
            key = _key(patch.value, "typed_config")
            path: KeyPath = (*patch.path, "patch", "value", key)
            yield _Filter(patch, path, mapping(patch.value.get(key)))


def _entries(
    ours: _Filter, below: KeyPath, op: str, actions: Sequence[Mapping[str, object]]
) -> Iterator[Finding]:
    required = REQUIRED.get(op)
    if required is None:
        message = f"the services know no {OP}={op or 'none'}"
        remedy = f"{OP} {' or '.join(REQUIRED)}, by a generic_key"
        yield ours.finding(MeshRule.DESCRIPTOR, below, message, remedy)
        return
    given = {}
    for action in actions:
        entry = mapping(action.get("metadata"))
        namespace = mapping(_get(entry, "metadata_key")).get("key")
        given[text(_get(entry, "descriptor_key"))] = text(namespace)
    for key, expected in required.items():
        if key not in given:
            message = f"{OP}={op} has no entry {key}; it must come from {expected}"
        elif given[key] != expected:
            message = f"the entry {key} of {OP}={op} comes from {given[key]}, not {expected}"
        else:
            continue
        yield ours.finding(MeshRule.DESCRIPTOR, below, message, _OUR_FILTER)


def _default_values(
    ours: _Filter, below: KeyPath, actions: Sequence[Mapping[str, object]]
) -> Iterator[Finding]:
    for at, action in enumerate(actions):
        entry = mapping(action.get("metadata"))
        if entry and not text(_get(entry, "default_value")):
            name = text(_get(entry, "descriptor_key"))
            message = (
                f"a request without {name} in its metadata loses its descriptor, and all limits"
            )
            entry_path: KeyPath = (*below, at, "metadata", "default_value")
            yield ours.finding(MeshRule.DEFAULT_VALUE, entry_path, message, 'default_value: "-"')


def _op(actions: Sequence[Mapping[str, object]]) -> str:
    for action in actions:
        generic = mapping(_get(action, "generic_key"))
        if _get(generic, "descriptor_key") == OP:
            return text(_get(generic, "descriptor_value"))
    return ""


def _key(value: Mapping[str, object], snake: str) -> str:
    """The key as the YAML has it: Envoy's JSON takes field names in both cases."""
    first, *rest = snake.split("_")
    camel = first + "".join(part.capitalize() for part in rest)
    return camel if camel in value else snake


def _get(value: Mapping[str, object], snake: str) -> object:
    return value.get(_key(value, snake))
