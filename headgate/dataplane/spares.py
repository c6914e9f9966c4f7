"""How Envoy turns to a model's spare version where the request's own one takes no connection.

The first two tries go to the own version, and the last one to the spare one. Only tries that failed
before vLLM can have begun are repeated (`RETRY_ON`), so no generation runs twice. Envoy logs the
cluster of the last try. Source: Envoy 1.39, `refresh_cluster_on_retry`.
"""

from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.route.v3 import ClusterSpecifierPlugin
from envoy_data_plane.envoy.extensions.router.cluster_specifiers.matcher.v3 import (
    ClusterAction,
    MatcherClusterSpecifier,
)
from envoy_data_plane.envoy.type.matcher.v3 import HttpRequestHeaderMatchInput
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig as Extension
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherTree,
    MatcherMatcherTreeMatchMap,
    MatcherOnMatch,
)

from headgate.dataplane.upstream import cluster_name

ATTEMPT_COUNT = "x-envoy-attempt-count"
_BEFORE_LAST = "2"
"""When Envoy chooses the cluster of a try, the header still counts the tries before it."""


def by_attempt(model: str, version: str, spare: str) -> ClusterSpecifierPlugin:
    """The cluster of each try of a request to this version."""
    return ClusterSpecifierPlugin(
        extension=TypedExtensionConfig(
            name="envoy.router.cluster_specifier_plugin.matcher",
            typed_config=Any.pack(
                _matcher(cluster_name(model, version), cluster_name(model, spare))
            ),
        )
    )


def _matcher(own: str, spare: str) -> MatcherClusterSpecifier:
    counts = MatcherMatcherTreeMatchMap(map={_BEFORE_LAST: MatcherOnMatch(action=_cluster(spare))})
    header = HttpRequestHeaderMatchInput(header_name=ATTEMPT_COUNT)
    tree = MatcherMatcherTree(
        input=Extension(name=ATTEMPT_COUNT, typed_config=Any.pack(header)),
        exact_match_map=counts,
    )
    return MatcherClusterSpecifier(
        cluster_matcher=Matcher(matcher_tree=tree, on_no_match=MatcherOnMatch(action=_cluster(own)))
    )


def _cluster(name: str) -> Extension:
    return Extension(name=name, typed_config=Any.pack(ClusterAction(cluster=name)))
