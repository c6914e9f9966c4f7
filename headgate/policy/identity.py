"""Callers without a key of their own, as the policy file writes them. See `schema.py`."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from headgate.core.end_users import GROUP_HEADERS, OPEN_WEBUI_TOKEN, USER_HEADERS
from headgate.policy.fields import Entry, Name, distinct, invalid
from headgate.policy.problems import PolicyRule, shown

ISSUER_RULE = (
    "the `iss` of its tokens: https:// (or http:// to this machine), without a query, as in"
    " https://login.example.org/realms/corp"
)
SPIFFE_RULE = "a SPIFFE id, as in spiffe://cluster.local/ns/jobs/sa/nightly"
_CLAIM_RULE = "the name of a claim, or a list of the names that lead to it"
_TENANTS_RULE = "a list, each {tenant: ..., groups: [...], role: ...}"
_VALUES_RULE = "claims by name, each with one value or a list of values that count"
_TEXTS_RULE = "a list of at least one text"
_CLIENT_RULE = "a client id of the issuer: 1 to 256 printable characters of ASCII"
_LOGIN_RULE = "client_id, and where they are needed scopes, token and secret_file"
_MISSING_RULE = "refuse, or key: the user is then that of the key"
_MAX_URL = 512
_LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,128}(/[A-Za-z0-9._-]+)+")
_MAX_SPIFFE = 256
_MAX_CLIENT_ID = 256

UserHeader = Literal["x-openwebui-user-id", "x-openwebui-user-jwt", "x-end-user-id"]
GroupHeader = Literal["x-openwebui-user-groups", "x-end-user-groups"]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "Ed25519", "EdDSA",
]  # fmt: skip
_ALGORITHMS_RULE = (
    "a list of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, Ed25519, EdDSA"
)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _issuer(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_local, has_port = parts.hostname in _LOCAL, parts.port != 0
    except ValueError:
        raise invalid(PolicyRule.BAD_URL, f"is not a URL (value {shown(url)})") from None
    if "@" in parts.netloc or "?" in url or "#" in url:
        fault = "has credentials, a query or a fragment (value not shown)"
        raise invalid(PolicyRule.BAD_URL, fault)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_local)
    if not is_safe or not parts.hostname or not has_port or len(url) > _MAX_URL:
        raise invalid(PolicyRule.BAD_URL, f"is not the URL of an issuer (value {shown(url)})")
    return url


def _spiffe(text: str) -> str:
    if len(text) > _MAX_SPIFFE or not _SPIFFE.fullmatch(text):
        raise invalid(PolicyRule.BAD_SPIFFE, f"is not a SPIFFE id (value {shown(text)})")
    return text


def _client_id(text: str) -> str:
    if not (0 < len(text) <= _MAX_CLIENT_ID and text.isascii() and text.isprintable()):
        raise invalid(PolicyRule.BAD_NAME, f"is not a client id (value {shown(text)})")
    return text


def _file(path: str) -> str:
    if not Path(path).is_absolute():
        raise invalid(PolicyRule.BAD_PATH, f"is not an absolute path (value {shown(path)})")
    return path


Texts = Annotated[
    list[str], BeforeValidator(_as_list), Field(min_length=1), AfterValidator(distinct)
]


class MembershipEntry(Entry):
    """The people of an issuer who belong to a tenant."""

    tenant: Name
    groups: Texts = Field(default=[], description=_TEXTS_RULE)
    role: Literal["user", "finance", "admin", "operator"] = Field(
        default="user", description="user, finance, admin or operator"
    )


class DeviceLoginEntry(Entry):
    """The client of an issuer with which people log in on a command line."""

    client_id: Annotated[str, AfterValidator(_client_id)] = Field(description=_CLIENT_RULE)
    scopes: Texts = Field(default=["openid", "profile"], description=_TEXTS_RULE)
    token: Literal["access_token", "id_token"] = Field(
        default="access_token", description="access_token or id_token"
    )


class BrowserLoginEntry(DeviceLoginEntry):
    """The client of an issuer with which people log in by a browser."""

    secret_file: Annotated[str, AfterValidator(_file)] | None = Field(
        default=None, description="the absolute path of a file with the client's secret"
    )


class IssuerEntry(Entry):
    """An identity provider whose tokens count."""

    issuer: Annotated[str, AfterValidator(_issuer)] = Field(description=ISSUER_RULE)
    audience: Texts = Field(description=_TEXTS_RULE)
    tenants: list[MembershipEntry] = Field(min_length=1, description=_TENANTS_RULE)
    algorithms: Annotated[list[Algorithm], Field(min_length=1), AfterValidator(distinct)] = Field(
        default=["RS256"], description=_ALGORITHMS_RULE
    )
    clock_skew_s: int = Field(
        default=30, ge=0, le=300, description="a whole number of seconds from 0 to 300"
    )
    stale_for_s: int = Field(
        default=14_400, ge=60, le=604_800, description="a whole number of seconds, up to 7 days"
    )
    user: Literal["sub", "oid"] = Field(default="sub", description="sub, or oid for Entra ID")
    display_name: Texts = Field(default=["name"], description=_CLAIM_RULE)
    groups: Texts = Field(default=["groups"], description=_CLAIM_RULE)
    claims: dict[str, Texts] = Field(default={}, description=_VALUES_RULE)
    browser_login: BrowserLoginEntry | None = Field(default=None, description=_LOGIN_RULE)
    device_login: DeviceLoginEntry | None = Field(default=None, description=_LOGIN_RULE)


class WorkloadEntry(Entry):
    """A program in the mesh, known by its SPIFFE id."""

    user: Name
    spiffe: Annotated[str, AfterValidator(_spiffe)] = Field(description=SPIFFE_RULE)


class OwnKeysEntry(Entry):
    """How many keys the users of a tenant may make for themselves, and for how long."""

    most: int = Field(ge=1, le=100, description="a whole number of live keys, from 1 to 100")
    hours: int = Field(ge=1, le=8_784, description="a whole number of hours, up to 366 days")


class ActsForEntry(Entry):
    """How a trusted front end names its end user."""

    header: UserHeader = Field(description=", ".join(USER_HEADERS))
    secret_file: Annotated[str, AfterValidator(_file)] | None = Field(
        default=None,
        description=f"the absolute path of a file; only with header: {OPEN_WEBUI_TOKEN}",
    )
    group_header: GroupHeader | None = Field(default=None, description=", ".join(GROUP_HEADERS))
    tenants: dict[str, Name] = Field(default={}, description="names of groups, each with a tenant")
    missing: Literal["refuse", "key"] = Field(default="refuse", description=_MISSING_RULE)
