"""Envoy's access log service: usage records, and the settlement of each request."""

PART_OF = "headgate"
"""Tells this package from others of its name; see `headgate.core.packages`."""
