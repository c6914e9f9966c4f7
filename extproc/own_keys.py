"""A user's own keys (/v1/headgate/keys): reads the request and says whether it is allowed. Pure.

A request has no body, as no body ever comes here; its values are in the query. Changes need a
token of an issuer. A key cannot make or end keys: whoever found one could else keep access after
its revocation.
"""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl

from extproc.asked import RefusedError
from extproc.types import KeyAction, KeyCall, RequestFacts
from headgate.core.apis import KEYS_PATH
from headgate.core.errors import ApiError, Refusal
from headgate.core.own_keys import OwnKeyRules
from headgate.core.policy import Caller, CompiledPolicy, Tenant

_ID = re.compile(r"~[0-9a-f]{16}")
_NAME = re.compile(r"[ -~]{1,64}")
_MAX_MODELS = 64
_ACTIONS = {"POST": KeyAction.ISSUE, "DELETE": KeyAction.REVOKE}


def key_call(
    facts: RequestFacts, caller: Caller, tenant: Tenant, policy: CompiledPolicy
) -> KeyCall:
    """The call, if the policy allows it. Raises RefusedError."""
    action = _ACTIONS.get(facts.method, KeyAction.LIST)
    if action is KeyAction.LIST:
        return KeyCall(caller=caller, action=action)
    if not has_token(caller, policy):
        raise _forbidden("Only a token of an issuer may make and end keys, and not another key.")
    path, _, query = facts.path.partition("?")
    if action is KeyAction.REVOKE:
        return KeyCall(caller=caller, action=action, key=_key_id(path))
    if tenant.own_keys is None:
        raise _forbidden("Your tenant does not let its users make keys. Ask its administrators.")
    return _issue(caller, query, tenant, tenant.own_keys)


def has_token(caller: Caller, policy: CompiledPolicy) -> bool:
    """Whether ext_authz found the caller by a token: the key is then the issuer's name.

    The user's name begins with it, too. A front end that has the same name does not count.
    """
    aliases = {issuer.alias for issuer in policy.issuers.values()}
    front_ends = {front_end.key for front_end in policy.front_ends}
    is_alias = caller.key in aliases - front_ends
    return is_alias and caller.user.startswith(f"{caller.key}:")


def _issue(caller: Caller, query: str, tenant: Tenant, rules: OwnKeyRules) -> KeyCall:
    pairs = parse_qsl(query, keep_blank_values=True)
    if odd := [name for name, _ in pairs if name not in ("name", "hours", "model")]:
        raise _bad(f"The query has an unknown '{odd[0][:32]}'. It takes name, hours and model.")
    single = {name: value for name, value in pairs if name != "model"}
    name = single.get("name", "")
    if name and _NAME.fullmatch(name) is None:
        raise _bad("`name` must have 1 to 64 printable ASCII characters.")
    return KeyCall(
        caller=caller,
        action=KeyAction.ISSUE,
        name=name,
        hours=_hours(single.get("hours", str(rules.hours)), rules),
        models=_models([value for name, value in pairs if name == "model"], tenant),
        most=rules.most,
    )


def _hours(text: str, rules: OwnKeyRules) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) < 9
    if not is_number or not 1 <= int(text) <= rules.hours:
        raise _bad(f"`hours` must be a whole number from 1 to {rules.hours}.")
    return int(text)


def _models(names: Sequence[str], tenant: Tenant) -> tuple[str, ...] | None:
    """The chosen models; None for all of the tenant's. Another tenant's is as good as none."""
    if not names:
        return None
    unknown = [name for name in names if name not in tenant.models]
    if unknown or len(names) > _MAX_MODELS:
        message = "`model` must be one of your models. GET /v1/models lists them."
        raise RefusedError(ApiError(Refusal.UNKNOWN_MODEL, message, "model"))
    return tuple(sorted(set(names)))


def _key_id(path: str) -> str:
    id = path.removeprefix(f"{KEYS_PATH}/")
    if _ID.fullmatch(id) is None:
        raise RefusedError(NO_SUCH_KEY)
    return id


def _bad(message: str) -> RefusedError:
    return RefusedError(ApiError(Refusal.BAD_REQUEST, message))


def _forbidden(message: str) -> RefusedError:
    return RefusedError(ApiError(Refusal.FORBIDDEN_KEYS, message))


NO_SUCH_KEY = ApiError(Refusal.UNKNOWN_KEY, "You have no such live key.")
_NO_DATABASE = ApiError(
    Refusal.FORBIDDEN_KEYS, "This gateway has no database, so it issues no keys at run time."
)


async def no_keys(_call: KeyCall) -> bytes | ApiError:
    """Stands for the keys of a program without a database."""
    return _NO_DATABASE
