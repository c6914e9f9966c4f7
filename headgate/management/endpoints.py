"""The endpoints of the management API, and what each may do. All else follows from this table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from headgate.core.issuers import Role
from headgate.ledger.showback.values import Statement
from headgate.ledger.usage_lines import UsageLine
from headgate.management import keys, notices, pseudonyms, reads, reports, usage, users
from headgate.management.calls import Answer, Call
from headgate.management.records import (
    ChangeBody,
    HeadBody,
    IssuedKeyBody,
    KeyBody,
    KeyEdit,
    LimitBody,
    NewKey,
    NewRevocation,
    RevocationBody,
    Rotation,
    TenantBody,
    UserBody,
)

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation.

    `least` is the role that it needs in the tenant of its path, or of the key in its path. Without
    both it needs the role in any tenant. With `own`, the user of the key may use it too. With
    `is_list` the answer is a page of `output`; `is_numbered` says that its cursor is a number.
    """

    method: str
    path: str
    summary: str
    handle: Callable[[Call[Any]], Awaitable[Answer]]
    least: Role
    output: type
    input: type | None = None
    own: bool = False
    is_list: bool = False
    is_numbered: bool = False
    status: int = 200
    query: tuple[str, ...] = field(default=())


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/tenants",
        summary="The tenants in which you have a role",
        handle=reads.list_tenants,
        least=Role.USER,
        output=TenantBody,
        is_list=True,
    ),
    Endpoint(
        method="GET",
        path="/tenants/{tenant}/limits",
        summary="The limits in force of a tenant",
        handle=reads.list_limits,
        least=Role.USER,
        output=LimitBody,
        is_list=True,
    ),
    Endpoint(
        method="GET",
        path="/tenants/{tenant}/users",
        summary="The users of a tenant who have keys or are blocked",
        handle=users.list_users,
        least=Role.FINANCE,
        output=UserBody,
        is_list=True,
    ),
    Endpoint(
        method="POST",
        path="/tenants/{tenant}/users/{user}/block",
        summary="Refuse a user in a tenant, whatever key or token they show",
        handle=users.block_user,
        least=Role.ADMIN,
        output=UserBody,
    ),
    Endpoint(
        method="POST",
        path="/tenants/{tenant}/users/{user}/unblock",
        summary="Let a user in again",
        handle=users.unblock_user,
        least=Role.ADMIN,
        output=UserBody,
    ),
    Endpoint(
        method="GET",
        path="/tenants/{tenant}/changes",
        summary="The changes of a tenant's keys and users",
        handle=reads.list_changes,
        least=Role.FINANCE,
        output=ChangeBody,
        is_list=True,
        is_numbered=True,
    ),
    Endpoint(
        method="GET",
        path="/tenants/{tenant}/keys",
        summary="The keys of a tenant; a user sees their own only",
        handle=keys.list_keys,
        least=Role.USER,
        output=KeyBody,
        is_list=True,
    ),
    Endpoint(
        method="POST",
        path="/tenants/{tenant}/keys",
        summary="Issue a key",
        handle=keys.issue_key,
        least=Role.ADMIN,
        input=NewKey,
        output=IssuedKeyBody,
        status=201,
    ),
    Endpoint(
        method="GET",
        path="/keys/{key}",
        summary="One key",
        handle=keys.get_key,
        least=Role.FINANCE,
        own=True,
        output=KeyBody,
    ),
    Endpoint(
        method="PATCH",
        path="/keys/{key}",
        summary="Give a key other models, limits or labels, or another end",
        handle=keys.edit_key,
        least=Role.ADMIN,
        input=KeyEdit,
        output=KeyBody,
    ),
    Endpoint(
        method="POST",
        path="/keys/{key}/rotate",
        summary="Give a key a new secret",
        handle=keys.rotate_key,
        least=Role.ADMIN,
        own=True,
        input=Rotation,
        output=IssuedKeyBody,
    ),
    Endpoint(
        method="POST",
        path="/keys/{key}/revoke",
        summary="End a key at once",
        handle=keys.revoke_key,
        least=Role.ADMIN,
        own=True,
        output=KeyBody,
    ),
    Endpoint(
        method="GET",
        path="/revocations",
        summary="The revocations of tokens, also those that were lifted",
        handle=users.list_revocations,
        least=Role.OPERATOR,
        output=RevocationBody,
        is_list=True,
        is_numbered=True,
    ),
    Endpoint(
        method="POST",
        path="/revocations",
        summary="Revoke tokens of a user, or one token",
        handle=users.revoke_tokens,
        least=Role.OPERATOR,
        input=NewRevocation,
        output=RevocationBody,
        status=201,
    ),
    Endpoint(
        method="POST",
        path="/revocations/{revocation}/lift",
        summary="End a revocation",
        handle=users.lift_revocation,
        least=Role.OPERATOR,
        output=RevocationBody,
    ),
    Endpoint(
        method="POST",
        path="/users/{user}/pseudonymise",
        summary="Take the name of a person away; their requests and all sums stay",
        handle=pseudonyms.pseudonymise_user,
        least=Role.OPERATOR,
        output=UserBody,
    ),
    Endpoint(
        method="GET",
        path="/usage",
        summary="Search the requests of the ledger, the newest first; a user finds their own only",
        handle=usage.search_usage,
        least=Role.USER,
        output=UsageLine,
        is_list=True,
        query=usage.FILTERS,
    ),
    Endpoint(
        method="GET",
        path="/reports/{month}",
        summary="The report of a month",
        handle=reports.get_report,
        least=Role.OPERATOR,
        output=Statement,
    ),
    Endpoint(
        method="POST",
        path="/reports/{month}/close",
        summary="Close a month for good",
        handle=reports.close_report,
        least=Role.OPERATOR,
        output=Statement,
        status=201,
    ),
    Endpoint(
        method="GET",
        path="/tenants/{tenant}/reports/{month}",
        summary="A tenant's part of the report of a month",
        handle=reports.get_report_of_tenant,
        least=Role.FINANCE,
        output=Statement,
    ),
    Endpoint(
        method="GET",
        path="/tenants/{tenant}/notices",
        summary="The thresholds that a tenant's limits have passed, the newest first",
        handle=notices.list_notices,
        least=Role.FINANCE,
        output=notices.NoticeBody,
        is_list=True,
    ),
    Endpoint(
        method="GET",
        path="/notices",
        summary="All notices, the newest first",
        handle=notices.list_notices,
        least=Role.OPERATOR,
        output=notices.NoticeBody,
        is_list=True,
    ),
    Endpoint(
        method="GET",
        path="/changes",
        summary="All changes",
        handle=reads.list_changes,
        least=Role.OPERATOR,
        output=ChangeBody,
        is_list=True,
        is_numbered=True,
    ),
    Endpoint(
        method="GET",
        path="/changes/head",
        summary="Verify the whole change log, against a head that you noted if you name one",
        handle=reads.verify_changes,
        least=Role.OPERATOR,
        output=HeadBody,
        query=("number", "hash"),
    ),
)
