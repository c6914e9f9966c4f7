"""The headers by which people follow one request."""

REQUEST_ID = "x-request-id"
"""Envoy's own, as a client's is removed. It identifies the usage record. On the lean path it is
also the reservation's id, so that a repeated call reserves once."""
REQUEST_ID_ENTRY = "request_id"
"""The entry of the reserve descriptor with that id. Proxies of older configurations lack it."""
TRACEPARENT = "traceparent"
"""The header of the W3C trace context. Envoy sends it with the access log."""
