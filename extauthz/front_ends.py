"""The end user of a front end: a web page for many people that has one key (`acts_for`).

Only ids count. A front end that fills in nothing, or sends a placeholder as it is, would make all
its people one person, so that is refused. The `user` of a body is never read.
"""

import re
from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote

from extauthz.request import RawHeaders
from headgate.core.end_users import OPEN_WEBUI_TOKEN
from headgate.core.errors import ApiError, Refusal
from headgate.core.issuers import FrontEnd, user_name
from headgate.core.policy import Caller

EndUser: TypeAlias = Callable[[bytes, FrontEnd], str | ApiError]
"""Verifies a signed header: the user id in it, or its refusal."""

_BLANKS = b" \t"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+|-]{0,255}")


def acting_for(
    caller: Caller, front_end: FrontEnd, headers: RawHeaders, end_user: EndUser
) -> Caller | ApiError:
    """The end user whom the front end `caller` names in its headers, or the error in them."""
    values = _values(headers, front_end.header)
    if not values:
        return caller if front_end.allows_none else _missing(front_end.header)
    if len(values) > 1:
        return _refused(front_end.header, "occurs more than once")
    is_signed = front_end.secret_file is not None
    named = end_user(values[0], front_end) if is_signed else values[0].decode("latin-1")
    if isinstance(named, ApiError):
        return named
    user = user_name(caller.user, named) if _ID.fullmatch(named) else None
    if user is None:
        return _refused(front_end.header, _fault(named))
    tenant = _tenant(caller, front_end, headers)
    return tenant if isinstance(tenant, ApiError) else Caller(tenant, user, caller.key)


def _values(headers: RawHeaders, wanted: str | None) -> list[bytes]:
    return [value.strip(_BLANKS) for name, value in headers if name == wanted]


def _tenant(caller: Caller, front_end: FrontEnd, headers: RawHeaders) -> str | ApiError:
    """The one tenant of the user's groups, if groups choose it."""
    if front_end.group_header is None:
        return caller.tenant
    values = _values(headers, front_end.group_header)
    if len(values) > 1:
        return _refused(front_end.group_header, "occurs more than once")
    groups = [group.strip() for value in values for group in _text(value).split(",")]
    names = {name for group in groups for name in (group, unquote(group))}
    tenants = {tenant for name, tenant in front_end.tenants.items() if name in names}
    if len(tenants) == 1:
        return tenants.pop()
    found = "of several tenants" if tenants else "of no tenant"
    message = (
        f"The groups in the header {front_end.group_header} are {found}. The operator can change"
        f" `acts_for.tenants` of the key {caller.key}."
    )
    return ApiError(Refusal.NO_TENANT, message)


def _text(value: bytes) -> str:
    """Front ends send names of groups in UTF-8, or in Latin-1 if their library cannot.

    open-webui percent-encodes them since 0.12.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _missing(header: str) -> ApiError:
    message = (
        f"The header {header} is missing. The key belongs to a front end, which has to name its"
        " user there."
    )
    if header == OPEN_WEBUI_TOKEN:
        message += " Unsigned headers do not count."
    return ApiError(Refusal.BAD_END_USER, message)


def _refused(header: str, fault: str) -> ApiError:
    return ApiError(Refusal.BAD_END_USER, f"The header {header} {fault}. It has to hold one id.")


def _fault(named: str) -> str:
    if not named:
        return "is empty"
    if "{{" in named or "}}" in named:
        return "holds a placeholder that the front end has not filled in"
    return "is not 1 to 256 letters, digits and . _ @ : + | - that begin with a letter or digit"
