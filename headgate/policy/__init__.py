"""The policy file: the platform team writes it, and this package checks and compiles it."""

from headgate.policy.fields import NAME_RULE, is_name
from headgate.policy.load import check_upstream, load_policy, parse_policy, read_policy
from headgate.policy.problems import FileError, PolicyError
from headgate.policy.summary import describe, key_yaml, limit_text

__all__ = [
    "NAME_RULE",
    "FileError",
    "PolicyError",
    "check_upstream",
    "describe",
    "is_name",
    "key_yaml",
    "limit_text",
    "load_policy",
    "parse_policy",
    "read_policy",
]
