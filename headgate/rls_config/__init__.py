"""Configuration files of envoyproxy/ratelimit, checked and compiled for `ratelimit.descriptors`."""

from headgate.rls_config.load import (
    DropInError,
    describe_dropin,
    dropin_files,
    load_dropin,
    parse_dropin,
    read_dropin,
)

__all__ = [
    "DropInError",
    "describe_dropin",
    "dropin_files",
    "load_dropin",
    "parse_dropin",
    "read_dropin",
]
