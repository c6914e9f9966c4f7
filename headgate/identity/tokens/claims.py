"""The claims of a verified token: they say whether it counts, and whom it names."""

import math
import re
from collections.abc import Mapping

from headgate.core.issuers import Issuer, Person, user_name
from headgate.identity.tokens.errors import Reason, TokenError, shown
from headgate.identity.tokens.form import Members, Token
from headgate.identity.tokens.groups import memberships, value_at

_MAX_TEXT = 256
_ENTRA_HOSTS = ("https://sts.windows.net/", "https://login.microsoftonline.com/")
_DIRECTORY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def issuer_of(token: Token, issuers: Mapping[str, Issuer]) -> Issuer:
    """The issuer that the token claims to come from. Raises TokenError if none has this URL."""
    claimed = _text(token.claims, "iss")
    issuer = issuers.get(claimed)
    if issuer is not None:
        return issuer
    close = next((each for each in issuers.values() if _is_close(claimed, each.url)), None)
    message = f"The policy has no issuer {shown(claimed)}."
    if close is not None:
        message += (
            f" `issuers.{close.alias}.issuer` is {shown(close.url)}. Both must be the same,"
            f" to the last character{_version_hint(claimed)}."
        )
    raise TokenError(Reason.UNKNOWN_ISSUER, message)


def person_of(token: Token, issuer: Issuer, now_s: float) -> Person:
    """The person whom a token with a right signature names. Raises TokenError."""
    claims = token.claims
    check_times(token, now_s, issuer.clock_skew_s)
    _check_audience(claims, issuer)
    _check_conditions(claims, issuer)
    subject = _subject(claims, issuer)
    user = user_name(issuer.alias, subject)
    if user is None:
        raise TokenError(Reason.CLAIM, f"The token's `{issuer.user}` is too long for a user name.")
    display_name = value_at(claims, issuer.display_name)
    token_id = claims.get("jti")
    return Person(
        issuer=issuer.alias,
        subject=subject,
        user=user,
        tenants=memberships(claims, issuer),
        display_name=display_name[:_MAX_TEXT] if isinstance(display_name, str) else "",
        token_id=token_id if isinstance(token_id, str) else "",
        issued_s=_time(claims, "iat") or 0.0,
    )


def expires_s(token: Token) -> float:
    """The end of the token's validity, in seconds since the Unix epoch. Raises TokenError."""
    expires = _time(token.claims, "exp")
    if expires is None:
        raise TokenError(Reason.CLAIM, "The token has no `exp`: a token must expire.")
    return expires


def check_times(token: Token, now_s: float, skew_s: float) -> None:
    """Raises TokenError for a token that has expired, or counts only later."""
    if expires_s(token) + skew_s <= now_s:
        raise TokenError(Reason.EXPIRED, "The token has expired. Get a new one.")
    for name in ("nbf", "iat"):
        begins_s = _time(token.claims, name)
        if begins_s is not None and begins_s - skew_s > now_s:
            message = f"The token counts only later (`{name}`). Check the clocks of its issuer."
            raise TokenError(Reason.NOT_YET_VALID, message)


def _check_audience(claims: Members, issuer: Issuer) -> None:
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not issuer.audiences.intersection(
        each for each in listed if isinstance(each, str)
    ):
        message = (
            f"The token's audience is {shown(audience)}, which is not in"
            f" `issuers.{issuer.alias}.audience`. ID tokens and access tokens differ in it."
        )
        raise TokenError(Reason.AUDIENCE, message)


def _check_conditions(claims: Members, issuer: Issuer) -> None:
    for name, wanted in issuer.claims.items():
        value = claims.get(name)
        values = value if isinstance(value, list) else [value]
        if not any(isinstance(each, str) and each in wanted for each in values):
            message = (
                f"The token's `{name}` is {shown(value)}, which is not in"
                f" `issuers.{issuer.alias}.claims.{name}`."
            )
            raise TokenError(Reason.CONDITION, message)


def _subject(claims: Members, issuer: Issuer) -> str:
    if issuer.user not in claims:
        message = f"The token has no `{issuer.user}`, which `issuers.{issuer.alias}.user` names."
        raise TokenError(Reason.CLAIM, message)
    return _text(claims, issuer.user)


def _text(claims: Members, name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        message = f"The token's `{name}` is not a text of 1 to {_MAX_TEXT} printable characters."
        raise TokenError(Reason.CLAIM, message)
    return value


def _time(claims: Members, name: str) -> float | None:
    """A time in seconds since the Unix epoch; None if the claim is absent."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(Reason.CLAIM, f"The token's `{name}` is not a number of seconds.")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise TokenError(Reason.CLAIM, f"The token's `{name}` is not a number of seconds.")
    return seconds


def _is_close(claimed: str, known: str) -> bool:
    """The same but for a final slash, or two issuers of one directory of Entra ID."""
    if claimed.rstrip("/") == known.rstrip("/"):
        return True
    directory = _directory(claimed)
    return directory is not None and directory == _directory(known)


def _directory(url: str) -> str | None:
    match = _DIRECTORY.search(url) if url.startswith(_ENTRA_HOSTS) else None
    return match and match[0]


def _version_hint(claimed: str) -> str:
    if _directory(claimed) is None:
        return ""
    return ", and Entra ID issues tokens of v1 or v2 by `requestedAccessTokenVersion` of the app"
