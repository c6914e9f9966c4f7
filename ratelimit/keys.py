"""The parts that the names of counters are made of, and how long counters outlive their window."""

from functools import lru_cache
from urllib.parse import quote

CLOCK_SKEW_S = 60
"""Counters outlive their window by this, for replicas whose clocks are late."""


def escaped(text: str) -> str:
    """Text without any separator of a counter's name, and different for different text."""
    if text.isalnum() and text.isascii():  # most names and all ids: quote() takes microseconds
        return text
    return quote(text, safe="", errors="surrogatepass")


escaped_name = lru_cache(maxsize=16_384)(escaped)
"""`escaped` for names of the policy, which every request repeats."""
