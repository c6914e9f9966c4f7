"""Measures what the limits promise, on this machine: `make bench`, or one bench alone with
`make bench BENCH=overshoot`.

Times are told as ratios within one run only: machines differ, and are busy with other things.
"""
