"""People and programs without a key of their own: tokens of issuers, and users of front ends.

The values are compiled from the policy. They say whose word counts, and what it decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

MAX_TOKEN_BYTES = 16 * 1024
"""The longest token. One with 200 groups has 11 KB."""
MAX_USER_CHARACTERS = 256
_PLAIN = "@:+|/"

ClaimPath: TypeAlias = tuple[str, ...]
"""The members that lead to a claim, from the top of a token."""


class Role(StrEnum):
    """The rights of a person in the management of a tenant, from few to many."""

    USER = "user"
    FINANCE = "finance"
    ADMIN = "admin"
    OPERATOR = "operator"


class LoginToken(StrEnum):
    """The tokens of a login, of which one names the person."""

    ACCESS = "access_token"
    ID = "id_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginClient:
    """Headgate as a client of an issuer, where people log in.

    `token` names the person, by the same rules as a token in a request. `secret_file` holds the
    client's secret; a public client has none.
    """

    client_id: str
    scopes: tuple[str, ...] = ("openid", "profile")
    token: LoginToken = LoginToken.ACCESS
    secret_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """The people of an issuer in a tenant: those in one of `groups`, or all if it is empty."""

    tenant: str
    role: Role = Role.USER
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An identity provider whose tokens count.

    `url` is compared byte for byte with the token's `iss`. `user` is the claim that names the
    person: `sub`, or `oid` of Entra ID. `claims` lists, for each claim, the values of which a token
    needs one. `stale_for_s` says how long its last keys count while it does not answer.
    `browser_login` and `device_login` are None where people do not log in that way.
    """

    alias: str
    url: str
    audiences: frozenset[str]
    memberships: tuple[Membership, ...]
    algorithms: tuple[str, ...] = ("RS256",)
    clock_skew_s: int = 30
    stale_for_s: int = 14_400
    user: str = "sub"
    display_name: ClaimPath = ("name",)
    groups: ClaimPath = ("groups",)
    claims: Mapping[str, frozenset[str]] = field(default_factory=dict)
    browser_login: LoginClient | None = None
    device_login: LoginClient | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The verified subject of a token, which may be a program.

    `user` is their name everywhere in Headgate, `issuer` the issuer's alias. `tenants` holds the
    role in each tenant to which they belong. `display_name` is for people to read and decides
    nothing; it may be empty. `issued_s` is 0 if the token does not say when it was issued.
    """

    issuer: str
    subject: str
    user: str
    tenants: Mapping[str, Role]
    display_name: str = ""
    token_id: str = ""
    issued_s: float = 0.0


@dataclass(frozen=True, slots=True)
class KeysNeeded:
    """The request cannot be decided before the keys of an issuer (its URL) are fetched.

    `key_id` names the missing key.
    """

    issuer: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """A key that names its end user in `header`.

    With `secret_file` the header holds a token signed with that secret. With `group_header`, the
    groups there choose the tenant by `tenants`; otherwise the tenant is that of the key. A request
    without the header is refused, unless `allows_none`: then the user is that of the key.
    """

    header: str
    secret_file: Path | None = None
    group_header: str | None = None
    tenants: Mapping[str, str] = field(default_factory=dict)
    allows_none: bool = False


@lru_cache(maxsize=16_384)
def user_name(origin: str, subject: str) -> str | None:
    """`origin:subject`, the name of a user whom an issuer or a front end names.

    Other characters than letters, digits and `. _ - ~ @ : + | /` are percent-encoded, so that
    different subjects have different names. So is a colon of the origin, which ends at the first
    one. Returns None for a name above `MAX_USER_CHARACTERS`.
    """
    first = quote(origin, safe=_PLAIN.replace(":", ""))
    name = f"{first}:{quote(subject, safe=_PLAIN, errors='surrogatepass')}"
    return name if len(name) <= MAX_USER_CHARACTERS else None
