"""The part of the Kubernetes API that istiod uses: it stores objects and streams their changes.

It validates nothing, knows no user and starts no pod. An unmodified istiod lists and watches the
objects here as in a cluster, and alone derives configuration from them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.patience import wait_until

Object = dict[str, Any]
Key = tuple[str, str, str, str]
"""Group, resource, namespace ("" for none), name."""

CLUSTER_WIDE = {
    "namespaces", "nodes", "customresourcedefinitions", "gatewayclasses",
    "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
}  # fmt: skip
_KINDS = {
    "AuthorizationPolicy", "BackendTLSPolicy", "ConfigMap", "CustomResourceDefinition",
    "DestinationRule", "EndpointSlice", "EnvoyFilter", "GatewayClass", "GRPCRoute",
    "HorizontalPodAutoscaler", "HTTPRoute",
    "Ingress", "IngressClass", "ListenerSet", "MutatingWebhookConfiguration", "NetworkPolicy",
    "PeerAuthentication", "PodDisruptionBudget", "ProxyConfig", "ReferenceGrant",
    "RequestAuthentication",
    "ServiceAccount", "ServiceEntry", "StatefulSet", "Telemetry", "TCPRoute", "TLSRoute",
    "TrafficExtension", "ValidatingWebhookConfiguration", "VirtualService", "WasmPlugin",
    "WorkloadEntry", "WorkloadGroup", "XBackendTrafficPolicy", "XListenerSet",
}  # fmt: skip
"""Kinds whose name is not their resource's without the s."""
_VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"}
_METADATA = "as=PartialObjectMetadata"


def plural(kind: str) -> str:
    """The resource of a kind, as in `virtualservices`."""
    word = kind.lower()
    if word.endswith("s"):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") and not word.endswith("way") else f"{word}s"


def key_of(value: Mapping[str, Any]) -> Key:
    """The key under which an object is stored."""
    group, _, _ = value["apiVersion"].rpartition("/")
    resource = plural(value["kind"])
    metadata = value["metadata"]
    namespace = "" if resource in CLUSTER_WIDE else metadata.get("namespace", "default")
    return group, resource, namespace, metadata["name"]


class Objects:
    """The stored objects, and the events of their changes."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}
        self._version = 1
        self._events: list[tuple[str, Key, Object]] = []
        self._changed = asyncio.Event()

    @property
    def version(self) -> str:
        return str(self._version)

    def apply(self, value: Object) -> Object:
        """Adds the object, or puts it in the place of the one with its name."""
        key = key_of(value)
        known = self._objects.get(key)
        self._version += 1
        kept = json.loads(json.dumps(value))
        metadata = kept["metadata"]
        metadata["resourceVersion"] = self.version
        old = known["metadata"] if known else {}
        metadata["uid"] = old.get("uid", f"uid-{self._version}")
        metadata["creationTimestamp"] = old.get("creationTimestamp", "2026-01-01T00:00:00Z")
        metadata["generation"] = old.get("generation", 0) + 1
        self._objects[key] = kept
        self._record("MODIFIED" if known else "ADDED", key, kept)
        return kept

    def delete(self, key: Key) -> Object | None:
        known = self._objects.pop(key, None)
        if known is not None:
            self._version += 1
            known["metadata"]["resourceVersion"] = self.version
            self._record("DELETED", key, known)
        return known

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def listed(self, group: str, resource: str, namespace: str) -> list[Object]:
        wanted = (group, resource, namespace)
        return [value for key, value in self._objects.items() if _is_in(key, wanted)]

    def _record(self, kind: str, key: Key, value: Object) -> None:
        self._events.append((kind, key, value))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def events(
        self, group: str, resource: str, namespace: str, since: int
    ) -> AsyncIterator[tuple[str, Object]]:
        """The changes after the version `since`, and every later change."""
        at = 0
        while True:
            changed = self._changed
            while at < len(self._events):
                kind, key, value = self._events[at]
                at += 1
                is_new = int(value["metadata"]["resourceVersion"]) > since
                if is_new and _is_in(key, (group, resource, namespace)):
                    yield kind, value
            await changed.wait()


def _is_in(key: Key, wanted: tuple[str, str, str]) -> bool:
    return key[:2] == wanted[:2] and wanted[2] in ("", key[2])


class KubeApi:
    """The server, in its own thread: it answers istiod's lists, watches and writes.

    istiod writes leases and config maps. The methods are for the other threads.
    """

    def __init__(self) -> None:
        self.port = 0
        self._objects = Objects()
        self._loop = asyncio.new_event_loop()
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._run)

    def start(self) -> None:
        """Listens on a free port of 127.0.0.1."""
        self._thread.start()
        wait_until(lambda: self._server.started, "the stand-in of the Kubernetes API")
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Ends it, watches that run included."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve())

    def apply(self, *values: Object) -> None:
        """Adds these objects, or puts them in the place of those with their names."""
        for value in values:
            self._call(self._objects.apply, value)

    def delete(self, value: Object) -> None:
        """Removes the object of this kind and name."""
        self._call(self._objects.delete, key_of(value))

    def _call(self, function: Callable[[Any], Any], argument: Any) -> None:
        async def call() -> None:
            function(argument)

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def kubeconfig(self) -> str:
        """A kubeconfig for this server, as a client reads it."""
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        head = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
        user = {"name": "u", "user": {}}
        return json.dumps({**head, "clusters": [cluster], "contexts": [context], "users": [user]})

    async def _answer(self, request: Request) -> Response:
        parts = request.path_params["path"].strip("/").split("/")
        if parts[0] == "version":
            return JSONResponse(_VERSION)
        if parts[0] not in ("api", "apis") or len(parts) < (2 if parts[0] == "api" else 3):
            return JSONResponse(_discovery(parts))
        group = "" if parts[0] == "api" else parts[1]
        version, rest = (parts[1], parts[2:]) if not group else (parts[2], parts[3:])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if not rest:
            return JSONResponse(_discovery(parts))
        where = (group, rest[0], namespace)
        name = rest[1] if len(rest) > 1 else ""
        if request.method != "GET":
            return await self._write(request, where, name, is_status=len(rest) > 2)
        if name:
            value = self._objects.get((group, rest[0], namespace, name))
            return JSONResponse(value) if value else _not_found(name)
        return self._read(request, where, f"{group}/{version}" if group else version)

    def _read(self, request: Request, where: tuple[str, str, str], api_version: str) -> Response:
        only_metadata = _METADATA in request.headers.get("accept", "")
        query = request.query_params
        if query.get("watch") in ("1", "true"):
            starts = query.get("sendInitialEvents") == "true"
            since = 0 if starts else int(query.get("resourceVersion") or 0)
            events = self._stream(where, since, starts, only_metadata, api_version)
            return StreamingResponse(events, media_type="application/json")
        items = [_shown(value, only_metadata) for value in self._objects.listed(*where)]
        kind = "PartialObjectMetadata" if only_metadata else _kind(where[1])
        shown_version = "meta.k8s.io/v1" if only_metadata else api_version
        metadata = {"resourceVersion": self._objects.version}
        head = {"kind": f"{kind}List", "apiVersion": shown_version, "metadata": metadata}
        return JSONResponse({**head, "items": items})

    async def _stream(
        self,
        where: tuple[str, str, str],
        since: int,
        starts: bool,
        only_metadata: bool,
        api_version: str,
    ) -> AsyncIterator[bytes]:
        if starts:
            since = int(self._objects.version)
            for value in self._objects.listed(*where):
                yield _event("ADDED", _shown(value, only_metadata))
            mark = {"k8s.io/initial-events-end": "true"}
            metadata = {"resourceVersion": str(since), "annotations": mark}
            kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            if not only_metadata:
                kind = {"kind": _kind(where[1]), "apiVersion": api_version}
            yield _event("BOOKMARK", {**kind, "metadata": metadata})
        async for word, value in self._objects.events(*where, since):
            yield _event(word, _shown(value, only_metadata))

    async def _write(
        self, request: Request, where: tuple[str, str, str], name: str, *, is_status: bool
    ) -> Response:
        group, resource, namespace = where
        key = (group, resource, namespace, name)
        if request.method == "DELETE":
            self._objects.delete(key)
            return JSONResponse({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        body = await request.json()
        if resource == "tokenreviews":
            return JSONResponse(_reviewed(body), status_code=201)
        known = self._objects.get(key)
        if request.method == "PATCH" or is_status:
            if known is None:
                return _not_found(name)
            return JSONResponse(known)  # istiod writes status only, which nobody here reads
        body.setdefault("metadata", {}).setdefault("namespace", namespace)
        return JSONResponse(self._objects.apply(body), status_code=200 if known else 201)


def _reviewed(review: Object) -> Object:
    """A token is here the plain name of its service account."""
    name = review["spec"]["token"]
    user = {"username": name, "groups": ["system:serviceaccounts"]}
    status = {"authenticated": True, "user": user, "audiences": review["spec"]["audiences"]}
    known = name.startswith("system:serviceaccount:")
    return {**review, "status": status if known else {"authenticated": False}}


def _shown(value: Object, only_metadata: bool) -> Object:
    if not only_metadata:
        return value
    head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {**head, "metadata": value["metadata"]}


def _event(word: str, value: Object) -> bytes:
    return json.dumps({"type": word, "object": value}).encode() + b"\n"


def _not_found(name: str) -> Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound"}
    return JSONResponse({**status, "code": 404, "message": f"{name} not found"}, status_code=404)


def _kind(resource: str) -> str:
    named = {plural(kind): kind for kind in _KINDS}
    return named.get(resource) or resource.removesuffix("s").capitalize()


def _discovery(parts: list[str]) -> Object:
    """The API groups: none, as istiod relies on custom resource definitions instead."""
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["apis"]:
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
    return {"kind": "APIResourceList", "groupVersion": "/".join(parts[1:]), "resources": []}
