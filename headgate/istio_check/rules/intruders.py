"""Do filters of others leave the request path as it is?"""

import re
from collections.abc import Iterator, Mapping

from headgate.istio_check.attachments import (
    EXT_AUTHZ,
    Patch,
    generated_chain,
    our_attachments,
    patched_chain,
)
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, items, mapping, text
from headgate.istio_check.mesh import Mesh

_BUFFERS = frozenset({"Buffer", "GrpcJsonTranscoder"})
"""Filters that hold whole request bodies."""
_LUA_REQUEST = re.compile(
    r"function\s+envoy_on_request\b(.*?)(?=\bfunction\s+envoy_on_response\b|\Z)", re.DOTALL
)
_LUA_BODY = re.compile(r":\s*body(?:Chunks)?\s*\(")
_PER_FILTER = ("typed_per_filter_config", "typedPerFilterConfig")
_MAX_DEPTH = 30


_AFFINITY_READER = "headgate.affinity_reader"
"""It reads no body that the request reader of the lean path has not read before."""


def bodies_before_the_key(mesh: Mesh) -> Iterator[Finding]:
    """No filter reads the body of a request whose key nobody has checked."""
    for attached in our_attachments(mesh):
        chain, _ = patched_chain(generated_chain(mesh, attached), attached.patches)
        if EXT_AUTHZ not in chain:
            continue
        early = chain[: chain.index(EXT_AUTHZ)]
        for patch in attached.patches:
            is_early = patch.apply_to == "HTTP_FILTER" and patch.name in early
            is_ours = patch.name in (*mesh.chain, _AFFINITY_READER)
            if is_early and not is_ours and _reads_bodies(patch.value):
                message = f"{patch.name} reads bodies before ext_authz has checked the key:"
                message += " anybody can send it work"
                remedy = "INSERT_BEFORE with the subFilter envoy.filters.http.router"
                path: KeyPath = (*patch.path, "patch", "operation")
                yield finding_at(MeshRule.BODY_BEFORE_KEY, patch.manifest, path, message, remedy)


def filters_disabled(mesh: Mesh) -> Iterator[Finding]:
    """No patch turns a step of the request path off, for all requests or for some routes."""
    for attached in our_attachments(mesh):
        for patch in attached.patches:
            for path, name in _disabled(mesh, patch):
                message = f"{name} is turned off here: requests pass without it"
                full_path: KeyPath = (*patch.path, "patch", "value", *path)
                rule, remedy = MeshRule.FILTER_DISABLED, "remove it"
                yield finding_at(rule, patch.manifest, full_path, message, remedy)


def _reads_bodies(value: Mapping[str, object]) -> bool:
    kind, config = _configuration(value)
    if kind == "ExternalProcessor":
        mode = _get(mapping(_get(config, "processing_mode")), "request_body_mode")
        return mode not in (None, "NONE", 0) or _get(config, "allow_mode_override") is True
    if kind == "ExtAuthz":
        return bool(mapping(_get(config, "with_request_body")))
    if kind == "JsonToMetadata":
        return bool(mapping(_get(config, "request_rules")))
    if kind == "AwsRequestSigning":
        return _get(config, "use_unsigned_payload") is not True
    if kind == "Lua":
        return any(_LUA_BODY.search(part) for part in _LUA_REQUEST.findall(_source(config)))
    return kind in _BUFFERS


def _configuration(value: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """The name of a filter's type without its package, and its fields."""
    config = mapping(_get(value, "typed_config"))
    kind = text(config.get("@type"))
    if kind.endswith(".TypedStruct"):
        kind, config = text(_get(config, "type_url")), mapping(config.get("value"))
    if kind.endswith(".ExtensionWithMatcher"):
        return _configuration(mapping(_get(config, "extension_config")))
    return kind.rpartition(".")[2], config


def _source(config: Mapping[str, object]) -> str:
    default = mapping(_get(config, "default_source_code"))
    return text(_get(config, "inline_code")) or text(_get(default, "inline_string"))


def _disabled(mesh: Mesh, patch: Patch) -> Iterator[tuple[KeyPath, str]]:
    """The path and the name of each step of the request path that a patch turns off."""
    steps = {EXT_AUTHZ, *mesh.chain}
    name = patch.name or patch.anchor
    if patch.apply_to == "HTTP_FILTER" and name in steps and patch.value.get("disabled") is True:
        yield ("disabled",), name
    for path, settings in _mappings(patch.value):
        by_filter = [key for key in path if key in _PER_FILTER]
        if by_filter and settings.get("disabled") is True:
            step = str(path[path.index(by_filter[0]) + 1])
            if step in steps:
                yield (*path, "disabled"), step


def _mappings(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
    """The path of every mapping within a value."""
    if len(path) > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from _mappings(inner, (*path, key))
    for at, item in enumerate(items(value)):
        yield from _mappings(item, (*path, at))


def _get(value: Mapping[str, object], snake: str) -> object:
    """A field by its name: Envoy's JSON takes names in both cases."""
    first, *rest = snake.split("_")
    camel = first + "".join(part.capitalize() for part in rest)
    return value.get(snake, value.get(camel))
