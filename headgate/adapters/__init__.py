"""Adapters at run time: the registry, and the reconciler that keeps them on vLLM's pods."""
