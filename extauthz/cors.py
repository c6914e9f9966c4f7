"""Cross-origin requests of web pages: whether a page may call, and the headers that say so.

The rules are those of the Fetch standard. Keys come in headers and never by themselves, as cookies
do. So `access-control-allow-credentials` is never sent, and a page without a key gets nothing.
"""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]

ANY = "*"
EXPOSED = (
    "retry-after",
    "x-request-id",
    "x-headgate-model",
    "x-should-retry",
    *(
        f"x-ratelimit-{part}-{count}"
        for count in ("requests", "tokens")
        for part in ("limit", "remaining", "reset")
    ),
    "x-ratelimit-reset-cost",
)
"""The answer's headers that a page may read. Client libraries decide by them."""
MAX_AGE_S = 7200
"""How long a browser may remember a preflight; browsers cut it to this, or to less."""
_VARY = ("vary", "origin")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_MAX_NAMES = 100


@dataclass(frozen=True, slots=True)
class PageHeaders:
    """The headers by which a browser tells whose page asks; empty where there is none."""

    origin: str = ""
    method: str = ""
    headers: str = ""

    @property
    def is_preflight(self) -> bool:
        """Whether an OPTIONS request with these headers asks for another one."""
        return bool(self.origin and self.method)


NO_PAGE = PageHeaders()


def is_allowed(origin: str, allowed: AbstractSet[str]) -> bool:
    """Whether pages of this origin may call."""
    return origin in allowed or ANY in allowed


def answer_headers(origin: str, allowed: AbstractSet[str]) -> Headers:
    """The headers of an answer to a request of this origin; none without a `cors` policy."""
    if not allowed:
        return ()
    if not origin or not is_allowed(origin, allowed):
        return () if ANY in allowed else (_VARY,)
    return (
        *_allow_origin(origin, allowed),
        ("access-control-expose-headers", ", ".join(EXPOSED)),
    )


def preflight_headers(page: PageHeaders, methods: AbstractSet[str]) -> Headers:
    """The headers that allow the announced request, besides those of `answer_headers`.

    The asked headers are allowed as they are, because libraries add many of their own. `*` would
    not allow `authorization`.
    """
    names = [name.strip() for name in page.headers.split(",")[:_MAX_NAMES]]
    headers = ", ".join(name for name in names if _NAME.fullmatch(name))
    allowed = [("access-control-allow-headers", headers)] if headers else []
    return (
        ("access-control-allow-methods", ", ".join(sorted(methods))),
        *allowed,
        ("access-control-max-age", str(MAX_AGE_S)),
    )


def _allow_origin(origin: str, allowed: AbstractSet[str]) -> Headers:
    name = "access-control-allow-origin"
    return ((name, ANY),) if ANY in allowed else ((name, origin), _VARY)
