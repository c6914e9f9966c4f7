"""Istio's YAML beside the policy: read, and checked together before it is applied."""
