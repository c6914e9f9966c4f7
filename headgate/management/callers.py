"""The caller of a request to the management API or to a page: by a token, or by a session."""

from starlette.requests import Request

from headgate.management.browser.cookies import session_cookie
from headgate.management.browser.origin import OwnOrigin
from headgate.management.browser.sessions import Sessions
from headgate.management.login import Login
from headgate.management.problems import ProblemError
from headgate.management.rights import Manager


class Callers:
    """Finds the manager of a request. It is the one way in, for the API and for all pages."""

    def __init__(self, login: Login, sessions: Sessions, origin: OwnOrigin) -> None:
        self._login = login
        self._sessions = sessions
        self._origin = origin
        self._cookie = session_cookie(origin)

    async def manager(self, request: Request) -> Manager:
        """The manager, with the same rights by either way.

        A request with `authorization` counts by its token alone, as no other site can make a
        browser send one. One with a cookie is checked against other sites first. One with neither
        guesses nothing, so it is no failure to log in. Raises ProblemError with 401, 403, 429 or
        503, and DatabaseAwayError.
        """
        authorization = request.headers.get("authorization", "")
        address = address_of(request)
        secret = self._cookie.read(request)
        if not authorization and not secret:
            raise ProblemError(401, "Log in, or send `Authorization: Bearer TOKEN`.")
        if authorization or not secret:
            return await self._login.manager(authorization, address)
        self._origin.check(request.method, request.headers)
        return await self._login.counted(address, self._sessions.manager(secret))


def address_of(request: Request) -> str:
    """The address from which a request comes: that of the connection."""
    return "" if request.client is None else request.client.host
