"""The rules of a configuration file beyond YAML itself."""

from enum import StrEnum, auto


class RlsConfigRule(StrEnum):
    """A mistake in a configuration file. Each has a file in `tests/rls_config/bad`."""

    UNKNOWN_KEY = auto()
    MISPLACED_KEY = auto()
    NOT_TEXT = auto()
    NOT_WHOLE = auto()
    NOT_BOOL = auto()
    NOT_LIST = auto()
    NOT_MAPPING = auto()
    MISSING_DOMAIN = auto()
    RESERVED_DOMAIN = auto()
    DUPLICATE_DOMAIN = auto()
    EMPTY_DIRECTORY = auto()
    MANIFEST = auto()
    EMPTY_KEY = auto()
    WILDCARD_IN_KEY = auto()
    DUPLICATE_DESCRIPTOR = auto()
    UNKNOWN_UNIT = auto()
    UNIT_WITH_UNLIMITED = auto()
    REPLACES_WITHOUT_NAME = auto()
    REPLACES_ITSELF = auto()
    SHARE_WITHOUT_WILDCARD = auto()
