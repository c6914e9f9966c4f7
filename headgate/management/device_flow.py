"""Login without a browser of one's own: the device flow (RFC 8628), refresh and revocation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.issuers import LoginToken
from headgate.identity.issuers.fetch import DISCOVERY, TIMEOUT_S, FetchError, endpoint
from headgate.management.kept_logins import KeptLogin

_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S, _SLOWER_S = 5.0, 5.0
_LONGEST_S = 1800.0
_LIFETIME_S = 300.0
"""The validity of a token whose issuer does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to log in, as the gateway names it. `name` is that of the issuer in its policy."""

    name: str
    issuer: str
    client_id: str
    scopes: Sequence[str]
    token: LoginToken


@dataclass(frozen=True, slots=True)
class Prompt:
    """The page that the person opens, and the code to type there; both are plain text."""

    url: str
    code: str


class DeviceFlow:
    """Talks to one issuer. Every method raises OperatorError with one line."""

    def __init__(self, issuer: str, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._issuer = issuer
        self._clock = clock
        self._sleep = sleep
        # No connection waits for a next call, which may come much later or never.
        self._http = httpx.Client(
            timeout=TIMEOUT_S,
            headers={"accept": "application/json"},
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._document = b""

    def log_in(self, way: Way, prompt: Callable[[Prompt], None]) -> KeptLogin:
        """Waits until the person that `prompt` has asked has logged in."""
        asked = {"client_id": way.client_id, "scope": " ".join(way.scopes)}
        started = self._post("device_authorization_endpoint", asked)
        if "error" in started:
            raise self._refused(started)
        prompt(self._prompt(started))
        form = {
            "grant_type": _DEVICE_GRANT,
            "device_code": _text(started, "device_code"),
            "client_id": way.client_id,
        }
        end_s = self._clock.monotonic_s() + min(_number(started, "expires_in", 600), _LONGEST_S)
        interval_s = max(_number(started, "interval", _INTERVAL_S), 1.0)
        while self._clock.monotonic_s() < end_s:
            self._sleep(interval_s)
            answer = self._post("token_endpoint", form)
            match answer.get("error"):
                case None:
                    return self._kept(answer, way.client_id, way.token, None)
                case "authorization_pending":
                    pass
                case "slow_down":
                    interval_s += _SLOWER_S
                case _:
                    raise self._refused(answer)
        raise OperatorError("nobody has logged in in time: run `headgate login` again")

    def refreshed(self, login: KeptLogin) -> KeptLogin:
        """The login with its next token (RFC 6749, 6)."""
        if login.refresh_token is None:
            raise OperatorError("the login has expired: run `headgate login` again")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": login.refresh_token,
            "client_id": login.client_id,
        }
        answer = self._post("token_endpoint", form)
        if "error" in answer:
            raise OperatorError("the login has ended: run `headgate login` again")
        return self._kept(answer, login.client_id, login.member, login.refresh_token)

    def revoke(self, login: KeptLogin) -> None:
        """Ends the refresh token at the issuer (RFC 7009)."""
        if login.refresh_token is not None:
            form = {"token": login.refresh_token, "client_id": login.client_id}
            self._post("revocation_endpoint", form)

    def _kept(
        self, answer: Mapping[str, Any], client_id: str, member: LoginToken, refresh: str | None
    ) -> KeptLogin:
        return KeptLogin(
            issuer=self._issuer,
            client_id=client_id,
            member=member,
            token=_text(answer, member),
            refresh_token=answer.get("refresh_token") or refresh,
            expires_s=self._clock.now_s() + _number(answer, "expires_in", _LIFETIME_S),
        )

    def _prompt(self, started: Mapping[str, Any]) -> Prompt:
        url = started.get("verification_uri_complete") or _text(started, "verification_uri")
        code = _text(started, "user_code")
        if not (str(url) + code).isprintable() or not str(url).startswith(("https://", "http://")):
            raise OperatorError(f"{self._issuer} names no page to log in")
        return Prompt(str(url), code)

    def _post(self, name: str, form: Mapping[str, str]) -> dict[str, Any]:
        """The members of an answer, also of one that refuses."""
        try:
            if not self._document:
                found = self._http.get(self._issuer.rstrip("/") + DISCOVERY)
                self._document = found.raise_for_status().content
            url = endpoint(self._document, self._issuer, name)
            response = self._http.post(url, data=dict(form))
        except (httpx.HTTPError, httpx.InvalidURL, FetchError) as error:
            reason = str(error).partition("\n")[0]
            raise OperatorError(f"{self._issuer} does not answer as it should: {reason}") from None
        try:
            answer = response.json() if response.content else {}
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or (not response.is_success and "error" not in answer):
            raise OperatorError(f"{url} answers {response.status_code}")
        return answer

    def _refused(self, answer: Mapping[str, Any]) -> OperatorError:
        said = str(answer.get("error"))[:100]
        plain = "".join(letter for letter in said if letter.isprintable())
        return OperatorError(f"{self._issuer} refuses the login: {plain}")


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise OperatorError(f"the issuer's answer has no `{name}`")
    return value


def _number(answer: Mapping[str, Any], name: str, default: float) -> float:
    value = answer.get(name, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return float(value) if is_number else default
