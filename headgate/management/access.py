"""The right of a manager to make a call: in the tenant of its path, or of the key in its path."""

from collections.abc import Mapping

from headgate.core.issuers import Role
from headgate.core.policy import CompiledPolicy
from headgate.identity.keys import Key, KeyRuleError
from headgate.management.calls import KEY_ID, Desk
from headgate.management.endpoint import Endpoint
from headgate.management.problems import ProblemError
from headgate.management.rights import Manager, has_any, has_role, owns

_NO_KEY = "There is no such key, or none that you may see."


async def allowed(
    endpoint: Endpoint,
    manager: Manager,
    path: Mapping[str, str],
    desk: Desk,
    policy: CompiledPolicy,
) -> tuple[str, Key | None]:
    """The tenant and the key that the call is about. Raises ProblemError without the right."""
    if "tenant" in path:
        return _allowed_tenant(endpoint, manager, path["tenant"], policy), None
    if "key" in path:
        key = await _allowed_key(endpoint, manager, path["key"], desk)
        return key.request.tenant, key
    if not has_any(manager, endpoint.least):
        raise ProblemError(403, f"This needs the role `{endpoint.least}`.")
    return "", None


def _allowed_tenant(
    endpoint: Endpoint, manager: Manager, tenant: str, policy: CompiledPolicy
) -> str:
    if not has_role(manager, endpoint.least, tenant):
        raise ProblemError(403, f"This needs the role `{endpoint.least}` in that tenant.")
    if tenant not in policy.tenants:
        raise ProblemError(404, "The policy has no such tenant.")
    return tenant


async def _allowed_key(endpoint: Endpoint, manager: Manager, key_id: str, desk: Desk) -> Key:
    """A key of another tenant, and another user's key, look as if they did not exist."""
    if KEY_ID.fullmatch(key_id) is None:
        raise ProblemError(404, _NO_KEY)
    try:
        key = await desk.store.get(key_id)
    except KeyRuleError:
        raise ProblemError(404, _NO_KEY) from None
    tenant, user = key.request.tenant, key.request.user
    is_own = owns(manager, tenant, user)
    if has_role(manager, endpoint.least, tenant) or (endpoint.own and is_own):
        return key
    if is_own or has_role(manager, Role.FINANCE, tenant):
        raise ProblemError(403, f"This needs the role `{endpoint.least}` in the key's tenant.")
    raise ProblemError(404, _NO_KEY)
