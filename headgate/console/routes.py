"""The table of pages, and the role that each needs. Routes, navigation and tests follow from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from headgate.console.pages import (
    budgets,
    changes,
    explore,
    health,
    keys,
    models,
    overview,
    preferences,
    requests,
    showback,
    usage,
)
from headgate.console.visit import View, Visit
from headgate.core.issuers import Role
from headgate.management.rights import Manager, has_any


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page. With a `title` it is in the navigation.

    `least` is needed in any tenant. Its rows are those of the reader's scope. Its changes are
    calls of the management API, which checks the right in the tenant or key at hand.
    """

    path: str
    show: Callable[[Visit], Awaitable[View | Response]]
    method: str = "GET"
    title: str = ""
    least: Role = Role.USER

    def is_open_to(self, manager: Manager) -> bool:
        """Whether the manager has the page's role in any tenant."""
        return has_any(manager, self.least)


PAGES = (
    Page(path="", show=overview.show, title="Overview", least=Role.FINANCE),
    Page(path="/showback", show=showback.show, title="Showback", least=Role.FINANCE),
    Page(path="/showback/{month}/close", show=showback.ask_close, least=Role.OPERATOR),
    Page(path="/showback/{month}/close", show=showback.close, method="POST", least=Role.OPERATOR),
    Page(path="/explore", show=explore.show, title="Explore"),
    Page(path="/requests", show=requests.show, title="Requests"),
    Page(path="/requests/{request_id:path}", show=requests.show_one),
    Page(path="/budgets", show=budgets.show, title="Budgets"),
    Page(path="/keys", show=keys.show, title="Tenants & keys"),
    Page(path="/keys/new", show=keys.show_new, least=Role.ADMIN),
    Page(path="/keys/new", show=keys.issue, method="POST", least=Role.ADMIN),
    Page(path="/keys/{key}/rotate", show=keys.show_rotate),
    Page(path="/keys/{key}/rotate", show=keys.rotate, method="POST"),
    Page(path="/keys/{key}/revoke", show=keys.show_revoke),
    Page(path="/keys/{key}/revoke", show=keys.revoke, method="POST"),
    Page(path="/models", show=models.show, title="Models"),
    Page(path="/usage", show=usage.show, title="My usage"),
    Page(path="/changes", show=changes.show, title="Changes", least=Role.FINANCE),
    Page(path="/health", show=health.show, title="Health", least=Role.OPERATOR),
    Page(path="/preferences", show=preferences.show),
    Page(path="/preferences", show=preferences.save, method="POST"),
)
