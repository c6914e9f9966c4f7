"""Measures what the limits promise, on this machine: `make bench`, or one of `bench.BENCHES` alone.

Times are told as ratios within one run only: machines differ, and are busy with other things.
"""
