"""Counts the tokens of an answer in the service, by the rules of the tap.

The tap is `headgate/dataplane/tap.lua`; this is its twin in Python. It is pure: bytes in, bytes and
numbers out. Both run the cases of `tests/tap`.
"""
