"""Counts tokens on the answer in the service: the rules of the tap (`dataplane/tap.lua`) in Python.

Pure: bytes in, bytes and numbers out. Both counters run the cases of `tests/tap`.
"""
