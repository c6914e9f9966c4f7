"""Counts tokens on the answer in the service, by the rules of the tap.

The tap is `headgate/dataplane/tap.lua`; this is its twin in Python.

Pure: bytes in, bytes and numbers out. Both counters run the cases of `tests/tap`.
"""
