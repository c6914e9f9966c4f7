"""The two cookies: that of an attempt to log in, and that of a session. Neither says who it is."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from headgate.management.browser.origin import OwnOrigin

ATTEMPT_S = 600
"""How long somebody may take to log in at their issuer."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie of our origin alone. `name` begins with `__Host-` where the origin has TLS.

    Browsers take such a name only with `Secure` and `Path=/` and without a domain, so no
    neighbour can set it (RFC 6265bis, 4.1.3.2).
    """

    name: str
    is_secure: bool

    def read(self, request: Request) -> str:
        """The value in a request; empty without the cookie."""
        return request.cookies.get(self.name, "")

    def put(self, response: Response, value: str, max_age_s: int | None = None) -> None:
        """Sends a value. Without a maximum age the cookie ends with the browser."""
        response.set_cookie(
            self.name,
            value,
            max_age=max_age_s,
            path="/",
            secure=self.is_secure,
            httponly=True,
            samesite="lax",
        )

    def clear(self, response: Response) -> None:
        """Makes the browser forget it."""
        self.put(response, "", 0)


def session_cookie(origin: OwnOrigin) -> Cookie:
    """The cookie of a session."""
    return _cookie("headgate-session", origin)


def attempt_cookie(origin: OwnOrigin) -> Cookie:
    """The cookie of an attempt to log in."""
    return _cookie("headgate-login", origin)


def _cookie(name: str, origin: OwnOrigin) -> Cookie:
    return Cookie(f"__Host-{name}" if origin.is_secure else name, origin.is_secure)
