"""Routes as rules read them, whether of a VirtualService or of an HTTPRoute."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from headgate.core.contract import Header
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh, full_host

Conditions: TypeAlias = frozenset[tuple[str, str]]
"""What one match asks for; all of it must hold. A route without a match has an empty one."""


_EVERY_PATH = {"type": "PathPrefix", "value": "/"}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a part of a route's requests goes. `port` is None where none is named."""

    path: KeyPath
    host: str
    written: str
    port: int | None
    subset: str
    weight: object
    is_mirror: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP route and where it stands. `exact` are the headers that its matches ask for exactly,
    with the path of each."""

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
    found = [route for one in mesh.kind("VirtualService") for route in _of_virtual_service(one)]
    found += [route for one in mesh.kind("HTTPRoute") for route in _of_http_route(one)]
    found += [route for one in mesh.kind("Canary", "flagger.app") for route in _of_canary(one)]
    return found


def _of_virtual_service(one: Manifest) -> Iterator[Route]:
    for index, http in enumerate(items(one.spec.get("http"))):
        body = mapping(http)
        path: KeyPath = ("spec", "http", index)
        destinations = [
            _destination(one, (*path, "route", at), mapping(entry))
            for at, entry in enumerate(items(body.get("route")))
        ]
        destinations += list(_mirrors(one, path, body))
        yield _route(one, path, body, destinations)


def _route(
    one: Manifest, path: KeyPath, body: Mapping[str, object], destinations: list[Destination]
) -> Route:
    matches, exact, headers = [], [], []
    for at, match in enumerate(items(body.get("match"))):
        conditions = set()
        for key, value in mapping(match).items():
            if key == "headers":
                for name, asked in mapping(value).items():
                    header: KeyPath = (*path, "match", at, "headers", name)
                    headers.append((header, name.lower()))
                    conditions.add((name.lower(), _canonical(asked)))
                    if "exact" in mapping(asked):
                        exact.append((header, name.lower(), text(mapping(asked)["exact"])))
            elif key != "name" and value != {"prefix": "/"}:
                conditions.add((f"/{key}", _canonical(value)))
        matches.append(frozenset(conditions))
    whole_match = tuple(matches) or (frozenset(),)
    return Route(one, path, whole_match, tuple(exact), tuple(headers), tuple(destinations), body)


def _destination(
    one: Manifest, path: KeyPath, entry: Mapping[str, object], *, is_mirror: bool = False
) -> Destination:
    destination = mapping(entry.get("destination"))
    written = text(destination.get("host"))
    port = whole(mapping(destination.get("port")).get("number"))
    return Destination(
        path,
        full_host(written, one.namespace),
        written,
        port,
        text(destination.get("subset")),
        entry.get("weight"),
        is_mirror,
    )


def _mirrors(one: Manifest, path: KeyPath, body: Mapping[str, object]) -> Iterator[Destination]:
    if mapping(body.get("mirror")):
        entry = {"destination": body["mirror"]}
        yield _destination(one, (*path, "mirror"), entry, is_mirror=True)
    for at, mirror in enumerate(items(body.get("mirrors"))):
        yield _destination(one, (*path, "mirrors", at), mapping(mirror), is_mirror=True)


def _of_canary(one: Manifest) -> Iterator[Route]:
    """Flagger writes the VirtualService itself, from the Canary's `service`."""
    path: KeyPath = ("spec", "service")
    body = mapping(one.spec.get("service"))
    name = text(body.get("name")) or text(mapping(one.spec.get("targetRef")).get("name"))
    host = f"{name}.{one.namespace}.svc.cluster.local"
    destination = Destination(path, host, host, whole(body.get("port")), "", None)
    yield _route(one, path, body, [destination])


def _of_http_route(one: Manifest) -> Iterator[Route]:
    for index, rule in enumerate(items(one.spec.get("rules"))):
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
                where: KeyPath = (*path, "matches", at, "headers", number)
                name, value = text(header.get("name")).lower(), text(header.get("value"))
                kind = text(header.get("type")) or "Exact"
                headers.append((where, name))
                conditions.add((name, _canonical({kind.lower(): value})))
                if kind == "Exact":
                    exact.append((where, name, value))
            matches.append(frozenset(conditions))
        destinations = tuple(_backends(one, path, body))
        whole_match = tuple(matches) or (frozenset(),)
        yield Route(one, path, whole_match, tuple(exact), tuple(headers), destinations, body)


def _backends(one: Manifest, path: KeyPath, body: Mapping[str, object]) -> Iterator[Destination]:
    """Those that are Services; others, such as an InferencePool, are not followed."""
    for at, entry in enumerate(map(mapping, items(body.get("backendRefs")))):
        if text(entry.get("kind")) in ("", "Service"):
            yield _backend(one, (*path, "backendRefs", at), entry)
    for at, part in enumerate(map(mapping, items(body.get("filters")))):
        mirror = mapping(mapping(part.get("requestMirror")).get("backendRef"))
        if mirror:
            where: KeyPath = (*path, "filters", at, "requestMirror", "backendRef")
            yield _backend(one, where, mirror, is_mirror=True)


def _backend(
    one: Manifest, path: KeyPath, entry: Mapping[str, object], *, is_mirror: bool = False
) -> Destination:
    namespace = text(entry.get("namespace")) or one.namespace
    host = f"{text(entry.get('name'))}.{namespace}.svc.cluster.local"
    port = whole(entry.get("port"))
    return Destination(path, host, host, port, "", entry.get("weight"), is_mirror)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
