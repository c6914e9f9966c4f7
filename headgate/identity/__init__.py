"""Callers without a key: the verifier turns their tokens into people."""
