"""A canary beside the stable version, as Prometheus has seen both."""
