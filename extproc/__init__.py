"""Envoy's ext_proc: the model, the estimate and the tokens of each request."""

PART_OF = "headgate"
"""Tells this package from others of its name; see `headgate.core.packages`."""
