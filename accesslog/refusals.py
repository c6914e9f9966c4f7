"""The limit that refused a request, and how full it was. Pure."""

from collections.abc import Mapping
from typing import TypedDict

from headgate.core.contract import LimitsKey
from headgate.core.settlement import read_count


class Refusal(TypedDict):
    """The fields of a record about a limit that refused; None for all of them if none did."""

    limit: str | None
    limit_count: str | None
    limit_most: int | None
    limit_used: int | None
    limit_asked: int | None


def refusal_of(limits: Mapping[str, str], admission: Mapping[str, str]) -> Refusal:
    """The limiter tells it in its own metadata, or on the lean path beside the admission.

    Older services tell the limit only.
    """
    told = limits if LimitsKey.REFUSED_BY in limits else admission
    return {
        "limit": told.get(LimitsKey.REFUSED_BY) or None,
        "limit_count": told.get(LimitsKey.REFUSED_COUNT) or None,
        "limit_most": read_count(told.get(LimitsKey.REFUSED_MOST)),
        "limit_used": read_count(told.get(LimitsKey.REFUSED_USED)),
        "limit_asked": read_count(told.get(LimitsKey.REFUSED_ASKED)),
    }
