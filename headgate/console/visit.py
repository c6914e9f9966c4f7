"""One visit of a page: the reader, their rights, and what the page may ask for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from headgate.console.filters import Reading
from headgate.console.settings import Choice
from headgate.console.surroundings import Surroundings
from headgate.core.issuers import Role
from headgate.core.policy import CompiledPolicy
from headgate.identity.change_log import Actor
from headgate.ledger.conditions import Scope
from headgate.management.access import allowed
from headgate.management.callers import address_of
from headgate.management.calls import Answer, Call, Desk
from headgate.management.endpoint import Endpoint
from headgate.management.endpoints import ENDPOINTS
from headgate.management.rights import Manager, has_role

ROOT = "/console"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request for a page by a manager who may see it. `form` holds the fields of a POST."""

    request: Request
    desk: Desk
    surroundings: Surroundings
    policy: CompiledPolicy
    manager: Manager
    choice: Choice
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The moment of the visit."""
        return datetime.fromtimestamp(self.desk.clock.now_s(), UTC)

    @property
    def tenants(self) -> list[str]:
        """The tenants of the policy in which the reader has a role, by name."""
        return [x for x in sorted(self.policy.tenants) if has_role(self.manager, Role.USER, x)]

    def tenants_with(self, least: Role) -> list[str]:
        """The tenants in which the reader has at least this role."""
        return [x for x in self.tenants if has_role(self.manager, least, x)]

    @property
    def scope(self) -> Scope:
        """The requests that the reader may see, as `finance` all of a tenant, else their own."""
        return scope_of(self.manager)

    @property
    def reading(self) -> Reading:
        """The time and the label by which the reader's filters are read."""
        return Reading(self.now, self.choice.zone, self.policy.showback.label)

    def query(self, name: str, default: str = "") -> str:
        """A value of the page's address."""
        return self.request.query_params.get(name, default)

    async def call(self, method: str, path: str, body: object = None, /, **values: str) -> Answer:
        """The management API's answer to this call, with the same check of rights.

        `path` is that of the endpoint's row; `values` fill it. Raises ProblemError, KeyRuleError.
        """
        endpoint = endpoint_of(method, path)
        query = {k: v for k, v in values.items() if k in ("after", "limit")}
        in_path = {k: v for k, v in values.items() if k not in query}
        tenant, key = await allowed(endpoint, self.manager, in_path, self.desk, self.policy)
        origin = address_of(self.request)
        by = Actor(self.manager.name, origin, self.manager.display_name)
        call: Call[Any] = Call(
            desk=self.desk,
            policy=self.policy,
            manager=self.manager,
            by=by,
            body=body,
            tenant=tenant,
            key=key,
            path=in_path,
            query=query,
        )
        return await endpoint.handle(call)


@dataclass(frozen=True, slots=True)
class View:
    """A template with its values, to be written as a page."""

    template: str
    values: Mapping[str, Any]
    status: int = 200


def scope_of(manager: Manager) -> Scope:
    """The requests that a manager may see."""
    if manager.is_operator:
        return Scope(sees_all=True)
    seen = [name for name in manager.tenants if has_role(manager, Role.FINANCE, name)]
    own = [name for name in manager.tenants if name not in seen]
    return Scope(tenants=tuple(seen), own_tenants=tuple(own), user=manager.name)


def endpoint_of(method: str, path: str) -> Endpoint:
    """The row of the management API's table."""
    return next(x for x in ENDPOINTS if (x.method, x.path) == (method, path))


def address(path: str, **query: object) -> str:
    """An address of the console. A list gives its name several times; None leaves it out."""
    given = {name: value for name, value in query.items() if value not in (None, "", [])}
    return f"{ROOT}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
