"""Configuration files of envoyproxy/ratelimit, checked and compiled for `ratelimit.descriptors`."""

from headgate.rls_config.load import (
    RlsConfigError,
    config_files,
    describe_domains,
    dump_domains,
    load_domains,
    parse_domains,
    read_config,
)

__all__ = [
    "RlsConfigError",
    "config_files",
    "describe_domains",
    "dump_domains",
    "load_domains",
    "parse_domains",
    "read_config",
]
