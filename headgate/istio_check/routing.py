"""Routes as the rules read them, of a VirtualService, an HTTPRoute or a Canary alike."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from headgate.core.contract import Header
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh, canary_service, full_host

Conditions: TypeAlias = frozenset[tuple[str, str]]
"""The conditions of one match, all of which must hold; empty for a route without a match."""

_EVERY_PATH = {"type": "PathPrefix", "value": "/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The destination of a part of a route's requests.

    `written` is the host as the YAML has it. `port` is None if none is named.
    """

    path: KeyPath
    host: str
    written: str
    port: int | None
    subset: str
    weight: object
    is_mirror: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One HTTP route, and its path in the object.

    `exact` holds path, name and value of each header that a match compares exactly; `headers`
    holds path and name of every header in a match.
    """

    manifest: Manifest
    path: KeyPath
    matches: tuple[Conditions, ...]
    exact: tuple[tuple[KeyPath, str, str], ...]
    headers: tuple[tuple[KeyPath, str], ...]
    destinations: tuple[Destination, ...]
    body: Mapping[str, object]

    @property
    def models(self) -> dict[str, KeyPath]:
        """The base models whose requests it takes."""
        return {value: path for path, name, value in self.exact if name == Header.BASE}

    @property
    def versions(self) -> set[str]:
        return {value for _, name, value in self.exact if name == Header.VERSION}


def routes(mesh: Mesh) -> list[Route]:
    """Every HTTP route, in the order of each object."""
    return [
        *(
            each
            for manifest in mesh.kind("VirtualService")
            for each in _of_virtual_service(manifest)
        ),
        *(each for manifest in mesh.kind("HTTPRoute") for each in _of_http_route(manifest)),
        *(_of_canary(manifest) for manifest in mesh.kind("Canary", "flagger.app")),
    ]


def gateways_of(manifest: Manifest) -> Iterator[str]:
    """The gateways of a route, each as `namespace/name`."""
    for name in map(text, items(manifest.spec.get("gateways"))):
        if name != "mesh":
            yield name if "/" in name else f"{manifest.namespace}/{name}"
    for parent in map(mapping, items(manifest.spec.get("parentRefs"))):
        if text(parent.get("kind")) in ("", "Gateway"):
            namespace = text(parent.get("namespace")) or manifest.namespace
            yield f"{namespace}/{text(parent.get('name'))}"


def _of_virtual_service(manifest: Manifest) -> Iterator[Route]:
    for index, http in enumerate(items(manifest.spec.get("http"))):
        body = mapping(http)
        path: KeyPath = ("spec", "http", index)
        destinations = [
            _destination(manifest, (*path, "route", at), mapping(entry))
            for at, entry in enumerate(items(body.get("route")))
        ]
        destinations += _mirrors(manifest, path, body)
        yield _route(manifest, path, body, destinations)


def _of_canary(manifest: Manifest) -> Route:
    """Flagger writes the VirtualService itself, from the Canary's `service`."""
    path: KeyPath = ("spec", "service")
    name, body = canary_service(manifest)
    host = f"{name}.{manifest.namespace}.svc.cluster.local"
    port = whole(body.get("port"))
    destination = Destination(path=path, host=host, written=host, port=port, subset="", weight=None)
    return _route(manifest, path, body, [destination])


def _route(
    manifest: Manifest, path: KeyPath, body: Mapping[str, object], destinations: list[Destination]
) -> Route:
    """A route whose body has `match` as a VirtualService has it."""
    matches, exact, headers = [], [], []
    for at, match in enumerate(map(mapping, items(body.get("match")))):
        conditions = {
            (f"/{key}", _canonical(value))
            for key, value in match.items()
            if key not in ("headers", "name") and value != {"prefix": "/"}
        }
        for written, comparison in mapping(match.get("headers")).items():
            header_path: KeyPath = (*path, "match", at, "headers", written)
            name = written.lower()
            headers.append((header_path, name))
            conditions.add((name, _canonical(comparison)))
            if "exact" in mapping(comparison):
                exact.append((header_path, name, text(mapping(comparison)["exact"])))
        matches.append(frozenset(conditions))
    return Route(
        manifest=manifest,
        path=path,
        matches=tuple(matches) or (frozenset(),),
        exact=tuple(exact),
        headers=tuple(headers),
        destinations=tuple(destinations),
        body=body,
    )


def _destination(
    manifest: Manifest, path: KeyPath, entry: Mapping[str, object], *, is_mirror: bool = False
) -> Destination:
    destination = mapping(entry.get("destination"))
    host = text(destination.get("host"))
    return Destination(
        path=path,
        host=full_host(host, manifest.namespace),
        written=host,
        port=whole(mapping(destination.get("port")).get("number")),
        subset=text(destination.get("subset")),
        weight=entry.get("weight"),
        is_mirror=is_mirror,
    )


def _mirrors(
    manifest: Manifest, path: KeyPath, body: Mapping[str, object]
) -> Iterator[Destination]:
    if mapping(body.get("mirror")):
        entry = {"destination": body["mirror"]}
        yield _destination(manifest, (*path, "mirror"), entry, is_mirror=True)
    for at, mirror in enumerate(items(body.get("mirrors"))):
        mirror_path: KeyPath = (*path, "mirrors", at)
        yield _destination(manifest, mirror_path, mapping(mirror), is_mirror=True)


def _of_http_route(manifest: Manifest) -> Iterator[Route]:
    for index, rule in enumerate(items(manifest.spec.get("rules"))):
        body = mapping(rule)
        path: KeyPath = ("spec", "rules", index)
        matches, exact, headers = [], [], []
        for at, match in enumerate(map(mapping, items(body.get("matches")))):
            conditions = {
                (f"/{key}", _canonical(value))
                for key, value in match.items()
                if key != "headers" and value != _EVERY_PATH
            }
            for number, header in enumerate(map(mapping, items(match.get("headers")))):
                header_path: KeyPath = (*path, "matches", at, "headers", number)
                name, value = text(header.get("name")).lower(), text(header.get("value"))
                comparison = text(header.get("type")) or "Exact"
                headers.append((header_path, name))
                conditions.add((name, _canonical({comparison.lower(): value})))
                if comparison == "Exact":
                    exact.append((header_path, name, value))
            matches.append(frozenset(conditions))
        yield Route(
            manifest=manifest,
            path=path,
            matches=tuple(matches) or (frozenset(),),
            exact=tuple(exact),
            headers=tuple(headers),
            destinations=tuple(_backends(manifest, path, body)),
            body=body,
        )


def _backends(
    manifest: Manifest, path: KeyPath, body: Mapping[str, object]
) -> Iterator[Destination]:
    """The backends that are Services; others, such as an InferencePool, are not followed."""
    for at, entry in enumerate(map(mapping, items(body.get("backendRefs")))):
        if text(entry.get("kind")) in ("", "Service"):
            yield _backend(manifest, (*path, "backendRefs", at), entry)
    for at, route_filter in enumerate(map(mapping, items(body.get("filters")))):
        mirror = mapping(mapping(route_filter.get("requestMirror")).get("backendRef"))
        if mirror:
            mirror_path: KeyPath = (*path, "filters", at, "requestMirror", "backendRef")
            yield _backend(manifest, mirror_path, mirror, is_mirror=True)


def _backend(
    manifest: Manifest, path: KeyPath, entry: Mapping[str, object], *, is_mirror: bool = False
) -> Destination:
    namespace = text(entry.get("namespace")) or manifest.namespace
    host = f"{text(entry.get('name'))}.{namespace}.svc.cluster.local"
    return Destination(
        path=path,
        host=host,
        written=host,
        port=whole(entry.get("port")),
        subset="",
        weight=entry.get("weight"),
        is_mirror=is_mirror,
    )


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
