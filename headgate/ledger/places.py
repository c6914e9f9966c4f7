"""Places in a search of the ledger, which goes from the newest request backwards. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BadPlaceError(ValueError):
    """A text that is no place in a search."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a search: that of the request before it."""

    ended_at: datetime
    request_id: str

    def text(self) -> str:
        """The place as printable ASCII."""
        return f"{(self.ended_at - _EPOCH) // _MICROSECOND}:{quote(self.request_id, safe='')}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """The place of a text that `text` has made. Raises BadPlaceError."""
        number, colon, request_id = text.partition(":")
        try:
            ended_at = _EPOCH + int(number) * _MICROSECOND
        except (ValueError, OverflowError):
            raise BadPlaceError(text) from None
        if not colon or "%00" in request_id:
            raise BadPlaceError(text)
        return cls(ended_at, unquote(request_id))
