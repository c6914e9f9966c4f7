"""Envoy's rate limit service: reservations, limits and their stores."""

PART_OF = "headgate"
"""Tells this package from others of its name; see `headgate.core.packages`."""
