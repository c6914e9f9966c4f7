"""Headgate: identity, quotas and metering for LLM traffic on Envoy and Istio."""

__version__ = "0.1.0"
