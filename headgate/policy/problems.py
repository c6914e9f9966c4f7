"""The rules of the policy file, and the line that reports a mistake to an operator."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum, auto

from headgate.core.errors import OperatorError
from headgate.core.keys import SECRET_PREFIX

_SHOWN_CHARACTERS = 60
_MAX_HINT_CANDIDATES = 2000
_SECRET = re.compile(rf"(?<![a-z0-9]){SECRET_PREFIX}[^\s\"',}}\]]+", re.IGNORECASE)
_PLAIN_PART = re.compile(r"[A-Za-z0-9<]([A-Za-z0-9._@:+/<-]{0,126}[A-Za-z0-9._@+/<-])?")


class PolicyRule(StrEnum):
    """Every rule of the policy file. Each has a file in `tests/policy/bad` that breaks it."""

    UNREADABLE = auto()
    TOO_BIG = auto()
    NOT_UTF8 = auto()
    SYNTAX = auto()
    TAG = auto()
    UNKNOWN_ANCHOR = auto()
    TOO_DEEP = auto()
    TOO_MANY_VALUES = auto()
    SEVERAL_DOCUMENTS = auto()
    EMPTY_FILE = auto()
    DUPLICATE_KEY = auto()
    KEY_NOT_TEXT = auto()
    UNKNOWN_KEY = auto()
    MISPLACED_KEY = auto()
    MISSING = auto()
    NO_VALUE = auto()
    NOT_TEXT = auto()
    NOT_WHOLE = auto()
    NOT_NUMBER = auto()
    NOT_BOOL = auto()
    NOT_LIST = auto()
    NOT_MAPPING = auto()
    TOO_SMALL = auto()
    TOO_LARGE = auto()
    TOO_FINE = auto()
    EMPTY = auto()
    NOT_ONE_OF = auto()
    TWICE = auto()
    BAD_NAME = auto()
    BAD_URL = auto()
    BAD_POD = auto()
    BAD_ORIGIN = auto()
    BAD_DIGEST = auto()
    BAD_TIMEZONE = auto()
    BAD_SPIFFE = auto()
    BAD_PATH = auto()
    SECRET = auto()
    UNKNOWN_BASE = auto()
    BASE_IS_ADAPTER = auto()
    UNKNOWN_MODEL = auto()
    MODEL_NOT_OF_TENANT = auto()
    UNKNOWN_USER = auto()
    UNKNOWN_TENANT = auto()
    SAME_DIGEST = auto()
    SAME_KEY_ID = auto()
    SAME_LIMIT = auto()
    SAME_ISSUER = auto()
    SAME_WORKLOAD = auto()
    SIGNED_HEADER = auto()
    GROUPS_HALF = auto()
    NO_PRICES = auto()
    AUTO_IS_MODEL = auto()
    SIZES_FALL = auto()
    UP_TO_ABOVE_CONTEXT = auto()
    CEILING_TOO_LOW = auto()
    WEIGHT_SUM = auto()
    UNKNOWN_VERSION = auto()
    SPARE_HAS_WEIGHT = auto()
    QUEUE_WITHOUT_PODS = auto()
    MANY_TIERS = auto()
    NOT_SMOOTH = auto()
    SLICE_ABOVE_LIMIT = auto()
    SLICE_OF_SHADOW = auto()
    SLICE_OF_SMOOTH = auto()
    NOT_NOTIFIED = auto()
    NO_MAIL = auto()
    CLEAR_PASSWORD = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake: its place, its fault, and advice (usually the allowed values).

    `line` and `column` count from 1; 0 where there is none. `path` holds keys and list
    indices from the top of the file.
    """

    rule: StrEnum
    fault: str
    advice: str
    path: tuple[str | int, ...] = ()
    line: int = 0
    column: int = 0

    @property
    def text(self) -> str:
        """The fault and the advice, without the place."""
        return f"{self.fault}; {self.advice}"

    def render(self, file: str) -> str:
        """`FILE:LINE: key.path: fault; advice`. Never repeats an API key."""
        place = ":".join([file, *(str(n) for n in (self.line, self.column) if n)])
        path = path_text(self.path)
        where = f"{place}: {path}: " if path else f"{place}: "
        return where + redacted(self.text)


class FileError(OperatorError):
    """A file with mistakes. `problems` holds one line for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PolicyError(FileError):
    """A policy file with mistakes, or one that cannot be read."""


def redacted(text: str) -> str:
    """The text without anything that looks like an API key."""
    return _SECRET.sub(f"{SECRET_PREFIX}...", text)


def path_text(path: tuple[str | int, ...]) -> str:
    """`tenants.acme.keys[0].id`; unsafe names are in quotes, so that a path stays one line."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN_PART.fullmatch(part) else _quoted(part)
            text += f".{name}" if text else name
    return redacted(text)


def shown(value: object) -> str:
    """A value for a message: short and on one line. Of a list or mapping, only the kind."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Decimal):
        return str(value)[:_SHOWN_CHARACTERS]
    return _quoted(value)


def hint(text: str, candidates: Iterable[str]) -> str:
    """` (did you mean ...?)` with the closest candidate; empty if no candidate is close.

    The number of candidates is bounded: a comparison takes about 10 us, and a file may hold
    tens of thousands of names.
    """
    pool = [name for name, _ in zip(candidates, range(_MAX_HINT_CANDIDATES), strict=False)]
    close = difflib.get_close_matches(text[:_SHOWN_CHARACTERS], pool, n=1)
    return f" (did you mean {_quoted(close[0])}?)" if close else ""


def _quoted(value: object) -> str:
    """JSON on one line. Secrets are redacted before the text is cut, so that no part remains."""
    text = redacted(value) if isinstance(value, str) else value
    is_clear = isinstance(text, str) and text.isprintable()
    written = json.dumps(text, ensure_ascii=not is_clear)
    if len(written) <= _SHOWN_CHARACTERS:
        return written
    return written[: _SHOWN_CHARACTERS - 4] + '..."'
