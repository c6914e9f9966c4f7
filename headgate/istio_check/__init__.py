"""Checks the YAML of a mesh together with the policy, before either is applied."""
