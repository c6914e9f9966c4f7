"""The policy file: what the platform team writes, checked and compiled to the registry."""

from headgate.policy.load import check, load_policy, parse_policy, read_policy
from headgate.policy.problems import FileError, PolicyError
from headgate.policy.summary import describe, key_yaml

__all__ = [
    "FileError",
    "PolicyError",
    "check",
    "describe",
    "key_yaml",
    "load_policy",
    "parse_policy",
    "read_policy",
]
