"""The names that only the lean path has, besides those of `headgate.core.contract`."""

from enum import StrEnum


class HookPath(StrEnum):
    """How Envoy asks the services about a request. Set in its filters, for a whole deployment."""

    STANDARD = "standard"
    """By four hooks: ext_authz, ext_proc, and the rate-limit service at the start and the end."""
    LEAN = "lean"
    """By one call of ext_authz for everything, once the body has been read in the proxy."""


PATH_METADATA = ("x-headgate-path", HookPath.LEAN.value)
"""The metadata that Envoy's ext_authz filter sends with each call on the lean path. The service has
no setting of its own."""

PEER_HEADER = "x-headgate-peer"
"""The SPIFFE id of the connection's certificate, from Envoy. It decides only whether the body of a
request is waited for, as Envoy's own input for it has no verdict on a connection without TLS."""

EDITS_HEADER = "x-headgate-edits"
"""An answer with edits adds this header to the request. Envoy's matchers of filters see no dynamic
metadata in Istio's builds. The body editor removes it."""


class PlaceKey(StrEnum):
    """`Namespace.REQUEST`: what the services need to edit a body that they do not get."""

    PLACES = "places"
    """Where a JSON body has what a rewrite may change (`headgate/dataplane/place_reader.lua`)."""
    SALT = "salt"
    """The client's own `cache_salt`, as the body has it in JSON."""
    BOUNDARY = "boundary"
    """A form's boundary."""
    INCLUDE_USAGE_END = "include_usage_end"
    CONTINUOUS_USAGE_END = "continuous_usage_end"
    """In a form: where the values of these two fields end."""


class LeanKey(StrEnum):
    """`Namespace.ADMISSION`: what only an answer of the lean path has."""

    SLOT = "slot"
    """`SLOT_HELD` if the request holds a slot, so that its end is told at once; else absent."""
    DETAILS = "details"
    """Why the request ended here, for its record; Envoy itself says `ext_authz_denied` of all."""
    EDITS = "edits"
    """The changes to the body, three values for each: where it begins and ends in the body, in
    bytes from 0, and the text to put there. In the answer only: the admission has texts."""


SLOT_HELD = "1"
