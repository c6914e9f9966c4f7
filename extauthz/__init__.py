"""Envoy's ext_authz: the caller's identity."""

PART_OF = "headgate"
"""Tells this package from others of its name; see `headgate.core.packages`."""
