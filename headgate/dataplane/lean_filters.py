"""The filters of the lean path: the body is read first, then one call of ext_authz decides all."""

from envoy_data_plane.envoy.config.core.v3 import HeaderValue
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig as ExtensionConfig
from envoy_data_plane.envoy.extensions.common.matching.v3 import ExtensionWithMatcher
from envoy_data_plane.envoy.extensions.filters.common.matcher.action.v3 import SkipFilter
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import Buffer
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import HttpRequestHeaderMatchInput
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherList,
    MatcherMatcherListFieldMatcher,
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicatePredicateList,
    MatcherMatcherListPredicateSinglePredicate,
    MatcherOnMatch,
    RegexMatcher,
    RegexMatcherGoogleRe2,
    StringMatcher,
)

from headgate.core.contract import (
    CHECKED_HEADERS,
    CREDENTIAL_HEADERS,
    VERSION_HEADER,
    Namespace,
)
from headgate.core.lean_contract import PATH_METADATA, REQUEST_ID
from headgate.dataplane.filters import (
    check_call,
    large_body_reader,
    lua,
    reader_source,
    request_reader,
    router,
    tap_source,
    usage_tap,
)
from headgate.dataplane.hook_calls import http_filter
from headgate.dataplane.quota_filters import LARGE_BODY, admission_guard, slot_settler

EDIT_ROOM_BYTES = 16 * 1024
"""For the edits of a body: a name, a salt and the options of a stream."""
ASKED_HEADERS = (*CHECKED_HEADERS, REQUEST_ID, VERSION_HEADER)


def lean_filters(services: str, body_limit_bytes: int) -> list[HttpFilter]:
    """The whole chain, in the order of the request path; the router comes last."""
    return [
        large_body_reader(body_limit_bytes, _head()),
        credential_body_limit(body_limit_bytes),
        request_reader(_reader_source(body_limit_bytes)),
        lean_check(services),
        usage_tap(f"{tap_source()}\n{lua('body_editor.lua')}"),
        admission_guard(),
        slot_settler(services),
        router(),
    ]


def lean_check(services: str) -> HttpFilter:
    """Asks for the whole decision: with the body's fields, and with the word that says so."""
    call = check_call(services, ASKED_HEADERS)
    call.clear_route_cache = True
    call.metadata_context_namespaces = [Namespace.REQUEST]
    key, value = PATH_METADATA
    if call.grpc_service is not None:
        call.grpc_service.initial_metadata = [HeaderValue(key=key, value=value)]
    return http_filter(Namespace.CALLER, call)


def credential_body_limit(size_bytes: int) -> HttpFilter:
    """`filters.body_limit`, skipped without a credential: such a request ends at its headers.

    The filter waits for the body, and no key means no wait. The edits may make a body larger, and
    Envoy then holds all of it. The request reader holds to the exact limit.
    """
    limit = Buffer(max_request_bytes=size_bytes + EDIT_ROOM_BYTES)
    skip = MatcherOnMatch(
        action=TypedExtensionConfig(name="skip", typed_config=Any.pack(SkipFilter()))
    )
    no_credential = MatcherMatcherListPredicate(
        not_matcher=MatcherMatcherListPredicate(
            or_matcher=MatcherMatcherListPredicatePredicateList(
                predicate=[_has_header(name) for name in CREDENTIAL_HEADERS]
            )
        )
    )
    matcher = Matcher(
        matcher_list=MatcherMatcherList(
            matchers=[MatcherMatcherListFieldMatcher(predicate=no_credential, on_match=skip)]
        )
    )
    config = ExtensionWithMatcher(
        xds_matcher=matcher,
        extension_config=ExtensionConfig(
            name="envoy.filters.http.buffer", typed_config=Any.pack(limit)
        ),
    )
    return http_filter("headgate.body_limit", config)


def _has_header(name: str) -> MatcherMatcherListPredicate:
    any_value = StringMatcher(
        safe_regex=RegexMatcher(google_re2=RegexMatcherGoogleRe2(), regex="(?s).*")
    )
    return MatcherMatcherListPredicate(
        single_predicate=MatcherMatcherListPredicateSinglePredicate(
            input=TypedExtensionConfig(
                name="header", typed_config=Any.pack(HttpRequestHeaderMatchInput(header_name=name))
            ),
            value_match=any_value,
        )
    )


def _head() -> str:
    names = ", ".join(f'"{name}"' for name in CREDENTIAL_HEADERS)
    source = lua("lean_request.lua").replace("{ CREDENTIALS }", f"{{ {names} }}")
    return source.replace('"LARGE_BODY"', f'"{LARGE_BODY}"')


def _reader_source(body_limit_bytes: int) -> str:
    return reader_source(_head()).replace("LIMIT_BYTES", str(body_limit_bytes))
