"""The paths of login and log-out: an issuer's code flow with PKCE, or the operator token."""

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headgate.core.issuers import Issuer, LoginClient, Person
from headgate.identity.issuers.provider import Provider
from headgate.identity.tokens.id_token import Expected
from headgate.management.bodies import body_of
from headgate.management.browser import html
from headgate.management.browser.attempt import LOGIN_PATH, Attempt, attempt_of, landing_of
from headgate.management.browser.cookies import ATTEMPT_S, attempt_cookie, session_cookie
from headgate.management.browser.origin import OwnOrigin
from headgate.management.browser.sessions import Sessions
from headgate.management.callers import Callers, address_of
from headgate.management.failures import without_errors
from headgate.management.login import Login
from headgate.management.problems import ProblemError

_MAX_FORM_BYTES = 4096
_OTHER_LOGIN = "This is not the answer to a login of this browser, or it came too late."
log = logging.getLogger("headgate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Everything that the paths work with. `issuers` returns those in force, by their URLs."""

    login: Login
    sessions: Sessions
    callers: Callers
    provider: Provider
    issuers: Callable[[], Mapping[str, Issuer]]
    origin: OwnOrigin


def login_pages(doors: Doors) -> list[BaseRoute]:
    """The routes `/login`, `/login/ISSUER`, `/callback/ISSUER` and `/logout`."""
    paths = Paths(doors)
    return [
        Route(LOGIN_PATH, _shown(paths.overview), methods=["GET"]),
        Route(LOGIN_PATH, _shown(paths.by_token), methods=["POST"]),
        Route(LOGIN_PATH + "/{issuer}", _shown(paths.to_issuer), methods=["GET"]),
        Route("/callback/{issuer}", _shown(paths.from_issuer), methods=["GET"]),
        Route("/logout", _shown(paths.log_out), methods=["POST"]),
    ]


def _shown(
    handle: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose problems are pages for people."""

    async def answered(request: Request) -> Response:
        name = f"{request.method} {LOGIN_PATH}"
        return await without_errors(name, lambda: handle(request), html.problem_page)

    return answered


class Paths:
    """The handlers of the paths. All raise ProblemError, FetchError and DatabaseAwayError."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._session = session_cookie(doors.origin)
        self._attempt = attempt_cookie(doors.origin)

    async def overview(self, request: Request) -> Response:
        """The ways to log in, or the person who is logged in."""
        if self._session.read(request):
            try:
                manager = await self._doors.callers.manager(request)
            except ProblemError as error:
                if error.status != 401:
                    raise
            else:
                return html.logged_in_page(manager.display_name or manager.name)
        issuers = [x.alias for x in self._doors.issuers().values() if x.browser_login is not None]
        landing = landing_of(request.query_params.get("to", ""))
        has_token = self._doors.login.operator_digest() is not None
        return html.login_page(issuers, landing, has_token=has_token)

    async def by_token(self, request: Request) -> Response:
        """A session for the operator token in a form of ours."""
        self._doors.origin.check(request.method, request.headers)
        token = (await _form(request)).get("token", "").strip()
        await self._doors.login.counted(address_of(request), self._operator(token))
        secret = await self._doors.sessions.open_operator()
        landing = landing_of(request.query_params.get("to", ""))
        return await self._let_in(request, secret, landing)

    async def to_issuer(self, request: Request) -> Response:
        """Sends the browser to its issuer, with a fresh attempt."""
        issuer, client = self._issuer(request)
        url = await self._doors.provider.endpoint(issuer.url, "authorization_endpoint")
        landing = landing_of(request.query_params.get("to", ""))
        attempt = Attempt(secrets.token_urlsafe(32), landing)
        asked = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": self._redirect_uri(issuer),
            "scope": " ".join(dict.fromkeys(("openid", *client.scopes))),
            "state": attempt.state(issuer.alias),
            "nonce": attempt.nonce(issuer.alias),
            "code_challenge": attempt.challenge(issuer.alias),
            "code_challenge_method": "S256",
        }
        answer = _sent_to(f"{url}{'&' if '?' in url else '?'}{urlencode(asked)}")
        self._attempt.put(answer, attempt.cookie(), ATTEMPT_S)
        return answer

    async def from_issuer(self, request: Request) -> Response:
        """Takes the code of an issuer, and opens a session for its person."""
        issuer, client = self._issuer(request)
        attempt = attempt_of(self._attempt.read(request))
        address = address_of(request)
        if attempt is None or not _answers(request, issuer, attempt):
            await self._doors.login.counted(address, _refused(401, _OTHER_LOGIN))
        assert attempt is not None  # noqa: S101 - it is refused above
        if "code" not in request.query_params:
            said = request.query_params.get("error", "no code")[:100]
            raise ProblemError(403, f"The issuer {issuer.alias} did not let you in: {said}.")
        person = await self._doors.login.counted(
            address, self._redeemed(request, issuer, client, attempt)
        )
        secret = await self._doors.sessions.open(person)
        log.info("%s has logged in by a browser", person.user)
        return await self._let_in(request, secret, attempt.landing)

    async def log_out(self, request: Request) -> Response:
        """Ends the session, in the database and in the browser."""
        self._doors.origin.check(request.method, request.headers)
        await self._doors.sessions.end(self._session.read(request))
        answer = _sent_to(LOGIN_PATH)
        self._session.clear(answer)
        return answer

    async def _redeemed(
        self, request: Request, issuer: Issuer, client: LoginClient, attempt: Attempt
    ) -> Person:
        """The person for whom the issuer vouches. Raises ProblemError."""
        form = {
            "code": request.query_params["code"],
            "redirect_uri": self._redirect_uri(issuer),
            "code_verifier": attempt.verifier(issuer.alias),
        }
        tokens = await self._doors.provider.redeemed(issuer.url, client, form)
        expected = Expected(client.client_id, attempt.nonce(issuer.alias))
        await self._doors.login.check_id_token(_token(tokens, "id_token"), issuer, expected)
        person = await self._doors.login.person(_token(tokens, client.token))
        if person.issuer != issuer.alias:
            raise ProblemError(401, "The token is of another issuer.")
        await self._doors.login.admitted(person)
        return person

    async def _operator(self, token: str) -> None:
        if not self._doors.login.is_operator(token.encode()):
            raise ProblemError(401, "This is not the operator token.")

    async def _let_in(self, request: Request, secret: str, landing: str) -> Response:
        """A new session takes the place of the one before, whoever set that."""
        await self._doors.sessions.end(self._session.read(request))
        answer = _sent_to(landing)
        self._session.put(answer, secret)
        self._attempt.clear(answer)
        return answer

    def _issuer(self, request: Request) -> tuple[Issuer, LoginClient]:
        """The issuer of the path, where people log in by a browser. Raises ProblemError."""
        alias = request.path_params["issuer"]
        for issuer in self._doors.issuers().values():
            if issuer.alias == alias and issuer.browser_login is not None:
                return issuer, issuer.browser_login
        raise ProblemError(404, "The policy names no such issuer with `browser_login`.")

    def _redirect_uri(self, issuer: Issuer) -> str:
        return f"{self._doors.origin.text}/callback/{issuer.alias}"


def _answers(request: Request, issuer: Issuer, attempt: Attempt) -> bool:
    """Whether the callback answers this attempt at this issuer (RFC 9207 for `iss`)."""
    state = request.query_params.get("state", "").encode("utf-8", "replace")
    is_ours = hmac.compare_digest(state, attempt.state(issuer.alias).encode())
    return is_ours and request.query_params.get("iss", issuer.url) == issuer.url


async def _refused(status: int, detail: str) -> None:
    raise ProblemError(status, detail)


def _token(tokens: Mapping[str, object], name: str) -> bytes:
    token = tokens.get(name)
    if not isinstance(token, str):
        raise ProblemError(401, f"The issuer has sent no `{name}`. Do the scopes hold `openid`?")
    return token.encode("utf-8", "replace")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form. Raises ProblemError."""
    raw = await body_of(request, _MAX_FORM_BYTES, "form")
    fields = parse_qs(raw.decode("latin-1"), max_num_fields=10)
    return {name: values[0] for name, values in fields.items()}


def _sent_to(url: str) -> Response:
    """Sends the browser elsewhere, by a GET."""
    return RedirectResponse(url, 303, headers=dict(html.HEADERS))
