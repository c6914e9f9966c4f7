"""Routes from `x-headgate-base` to model clusters: the part that a reload changes."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TypeAlias

from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    RouteMatchConnectMatcher,
    VirtualHost,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from headgate.core.contract import Header
from headgate.core.errors import OperatorError, Refusal
from headgate.dataplane.box import OneBox, render, replace_file
from headgate.dataplane.spares import by_attempt
from headgate.dataplane.upstream import cluster_name, model_cluster, parse_upstream

ROUTES_NAME = "models"
RETRY_ON = "connect-failure,refused-stream,reset-before-request"
"""Only failures before vLLM can have started: a generation never runs twice."""


VersionUrls: TypeAlias = Mapping[str, Mapping[str, str]]
"""By base model, the URL of each of its versions."""
NO_VERSIONS: VersionUrls = MappingProxyType({})


Pods: TypeAlias = Mapping[str, Sequence[str]]
"""By cluster, the pods of the models that have some in the policy."""
NO_PODS: Pods = MappingProxyType({})


Spares: TypeAlias = Mapping[str, str]
"""By base model, its spare version."""
NO_SPARES: Spares = MappingProxyType({})


def write_dynamic(
    box: OneBox,
    upstreams: Mapping[str, str],
    versions: VersionUrls = NO_VERSIONS,
    pods: Pods = NO_PODS,
    spares: Spares = NO_SPARES,
) -> None:
    """Writes clusters and routes for these upstreams; a running Envoy applies them at once.

    `upstreams` maps base model names to URLs. A new cluster is written before the route that needs
    it. Raises BadUpstream before it writes anything, and OperatorError for the first pods of a box
    whose filters cannot choose between pods.
    """
    if pods and not box.pods:
        raise OperatorError("no model had `pods` when the box started: start it again")
    urls = {cluster_name(model): url for model, url in upstreams.items()}
    for model, of_versions in versions.items():
        urls |= {cluster_name(model, version): url for version, url in of_versions.items()}
    clusters = [
        model_cluster(name, url, box.upstream_ca, pods.get(name, ())) for name, url in urls.items()
    ]
    resources = [Any.pack(cluster) for cluster in clusters]
    routes = DiscoveryResponse(resources=[Any.pack(route_table(upstreams, versions, spares))])
    replace_file(box.clusters_file, render(DiscoveryResponse(resources=resources)))
    replace_file(box.routes_file, render(routes))


def route_table(
    upstreams: Mapping[str, str],
    versions: VersionUrls = NO_VERSIONS,
    spares: Spares = NO_SPARES,
) -> RouteConfiguration:
    """Routes for the versions of base models, then for the models, and 404 for all other requests.

    Those of a version with a spare one come first, as they match one header more.

    Every request needs a route, because ext_authz does not check a request without one. CONNECT
    has a route of its own, because a prefix does not match it.
    """
    host = VirtualHost(
        name=ROUTES_NAME,
        domains=["*"],
        include_request_attempt_count=bool(spares),  # `by_attempt` matches it
        routes=[
            *(
                _model_route(model, url, version, spares[model])
                for model, urls in versions.items()
                for version, url in urls.items()
                if _has_spare(urls, version, spares.get(model))
            ),
            *(
                _model_route(model, url, version)
                for model, urls in versions.items()
                for version, url in urls.items()
            ),
            *(_model_route(model, url) for model, url in upstreams.items()),
            _no_route(RouteMatch(prefix="/")),
            _no_route(RouteMatch(connect_matcher=RouteMatchConnectMatcher())),
        ],
    )
    return RouteConfiguration(name=ROUTES_NAME, virtual_hosts=[host])


def _model_route(
    model: str, url: str, version: str | None = None, spare: str | None = None
) -> Route:
    parts = parse_upstream(url)
    matchers = [HeaderMatcher(name=Header.BASE, string_match=StringMatcher(exact=model))]
    if version is not None:
        by_version = StringMatcher(exact=version)
        matchers.append(HeaderMatcher(name=Header.VERSION, string_match=by_version))
    prefix = parts.path.rstrip("/")
    action = RouteAction(
        prefix_rewrite=f"{prefix}/" if prefix else "",
        timeout=timedelta(0),
        retry_policy=RetryPolicy(retry_on=RETRY_ON, num_retries=2),
    )
    if version is None or spare is None:
        action.cluster, action.host_rewrite_literal = cluster_name(model, version), parts.netloc
    else:
        _end_at_spare(action, model, version, spare)
        allowed = StringMatcher(exact=spare)
        matchers.append(HeaderMatcher(name=Header.SPARE, string_match=allowed))
    return Route(match=RouteMatch(prefix="/", headers=matchers), route=action)


def _end_at_spare(action: RouteAction, model: str, version: str, spare: str) -> None:
    """The last try of a request goes to the spare version, with the host of its URL."""
    action.inline_cluster_specifier_plugin = by_attempt(model, version, spare)
    action.auto_host_rewrite = True
    if action.retry_policy is not None:
        action.retry_policy.refresh_cluster_on_retry = True


def _has_spare(urls: Mapping[str, str], version: str, spare: str | None) -> bool:
    """Whether Envoy can ask the spare version as it asks this one: below the same path."""
    if spare is None or spare == version:
        return False
    paths = (parse_upstream(urls[each]).path.rstrip("/") for each in (version, spare))
    return len(set(paths)) == 1


def _no_route(match: RouteMatch) -> Route:
    """Its body is one of `replies`."""
    status = Refusal.UNKNOWN_MODEL.status
    return Route(match=match, direct_response=DirectResponseAction(status=status))
