"""Why a token is refused."""

from enum import StrEnum, auto

from headgate.core.errors import ApiError, Refusal


class Reason(StrEnum):
    """Every reason to refuse a token: a closed list, as each is a label of a metric."""

    MALFORMED = auto()
    DUPLICATE_MEMBER = auto()
    CRITICAL_HEADER = auto()
    TYPE = auto()
    ALGORITHM = auto()
    UNKNOWN_ISSUER = auto()
    UNKNOWN_KEY = auto()
    KEYS_AWAY = auto()
    SIGNATURE = auto()
    CLAIM = auto()
    AUDIENCE = auto()
    EXPIRED = auto()
    NOT_YET_VALID = auto()
    CONDITION = auto()
    GROUPS_LEFT_OUT = auto()
    NO_TENANT = auto()
    REVOKED = auto()
    SECRET_FILE = auto()


_REFUSALS = {
    Reason.EXPIRED: Refusal.EXPIRED_TOKEN,
    Reason.REVOKED: Refusal.REVOKED_TOKEN,
    Reason.KEYS_AWAY: Refusal.UNAVAILABLE,
    Reason.SECRET_FILE: Refusal.UNAVAILABLE,
    Reason.GROUPS_LEFT_OUT: Refusal.NO_TENANT,
    Reason.NO_TENANT: Refusal.NO_TENANT,
}


class TokenError(Exception):
    """A token that is refused. `message` is for its sender and repeats no part of a signature."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def answer(self) -> ApiError:
        """The refusal that the client gets."""
        return ApiError(_REFUSALS.get(self.reason, Refusal.BAD_TOKEN), self.message)


def shown(value: object) -> str:
    """A value of a token in a message: short, and on one line."""
    text = value if isinstance(value, str) else str(value)
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[:120])
    return f'"{printable}"' + ("..." if len(text) > 120 else "")
