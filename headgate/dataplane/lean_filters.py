"""The filters of the lean path: the body is read first, then one call of ext_authz decides all."""

from envoy_data_plane.envoy.config.core.v3 import DataSource, HeaderValue
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig as ExtensionConfig
from envoy_data_plane.envoy.extensions.common.matching.v3 import ExtensionWithMatcher
from envoy_data_plane.envoy.extensions.filters.common.matcher.action.v3 import SkipFilter
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
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
from headgate.core.lean_contract import EDITS_HEADER, PATH_METADATA, PEER_HEADER
from headgate.dataplane.filters import (
    body_limit,
    check_call,
    large_body_reader,
    lua,
    reader_source,
    request_reader,
    router,
    tap_source,
)
from headgate.dataplane.hook_calls import http_filter
from headgate.dataplane.quota_filters import LARGE_BODY, lean_admission_guard, slot_settler

EDIT_ROOM_BYTES = 16 * 1024
"""For the edits of a body: a name, a salt and the options of a stream."""
ASKED_HEADERS = (*CHECKED_HEADERS, VERSION_HEADER)


def lean_filters(services: str, body_limit_bytes: int) -> list[HttpFilter]:
    """The whole chain, in the order of the request path; the router comes last."""
    return [
        large_body_dropper(body_limit_bytes),
        credential_body_limit(body_limit_bytes),
        request_reader(_reader_and_tap(body_limit_bytes)),
        lean_check(services),
        body_editor(),
        lean_admission_guard(),
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


def large_body_dropper(limit_bytes: int) -> HttpFilter:
    """`filters.large_body_reader`, only for lengths with as many digits as the limit's."""
    digits = f"[0-9]{{{len(str(limit_bytes))},}}"
    return _only_with(
        [_header_matches("content-length", digits)], large_body_reader(limit_bytes, _head())
    )


def credential_body_limit(size_bytes: int) -> HttpFilter:
    """`filters.body_limit`, skipped without a credential: such a request ends at its headers.

    The filter waits for the body, and no key means no wait. The certificate of a workload is a
    credential too. The edits may make a body larger, and Envoy then holds all of it. The request
    reader holds to the exact limit.
    """
    names = (*CREDENTIAL_HEADERS, PEER_HEADER)
    credentials = [_header_matches(name, "(?s).*") for name in names]
    return _only_with(credentials, body_limit(size_bytes + EDIT_ROOM_BYTES))


def body_editor() -> HttpFilter:
    """Makes the edits of the answer. It is skipped without them, as nearly every request is."""
    source = DataSource(inline_string=lua("body_editor.lua"))
    edits = _header_matches(EDITS_HEADER, ".+")
    return _only_with([edits], http_filter("headgate.body_editor", Lua(default_source_code=source)))


def _only_with(any_of: list[MatcherMatcherListPredicate], wrapped: HttpFilter) -> HttpFilter:
    """The filter, skipped for a request that matches nothing of `any_of`."""
    matched = any_of[0]
    if len(any_of) > 1:
        either = MatcherMatcherListPredicatePredicateList(predicate=any_of)
        matched = MatcherMatcherListPredicate(or_matcher=either)
    unmatched = MatcherMatcherListPredicate(not_matcher=matched)
    skip = MatcherOnMatch(
        action=TypedExtensionConfig(name="skip", typed_config=Any.pack(SkipFilter()))
    )
    rule = MatcherMatcherListFieldMatcher(predicate=unmatched, on_match=skip)
    config = ExtensionWithMatcher(
        xds_matcher=Matcher(matcher_list=MatcherMatcherList(matchers=[rule])),
        extension_config=ExtensionConfig(name=wrapped.name, typed_config=wrapped.typed_config),
    )
    return http_filter(wrapped.name, config)


def _header_matches(name: str, regex: str) -> MatcherMatcherListPredicate:
    header = Any.pack(HttpRequestHeaderMatchInput(header_name=name))
    matcher = RegexMatcher(google_re2=RegexMatcherGoogleRe2(), regex=regex)
    return MatcherMatcherListPredicate(
        single_predicate=MatcherMatcherListPredicateSinglePredicate(
            input=TypedExtensionConfig(name="header", typed_config=header),
            value_match=StringMatcher(safe_regex=matcher),
        )
    )


def _head() -> str:
    names = ", ".join(f'"{name}"' for name in CREDENTIAL_HEADERS)
    source = lua("lean_request.lua").replace("{ CREDENTIALS }", f"{{ {names} }}")
    return source.replace('"LARGE_BODY"', f'"{LARGE_BODY}"')


def _reader_and_tap(body_limit_bytes: int) -> str:
    """One script for both directions, as two filters cost more.

    Lua allows 200 local variables in a block, so each part has its own.
    """
    reader = reader_source(_head()).replace("LIMIT_BYTES", str(body_limit_bytes))
    return f"do\n{reader}\nend\ndo\n{tap_source(Namespace.CALLER)}\nend"
