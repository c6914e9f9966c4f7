"""The rewrite plan: the changes that a request's body needs before vLLM reads it."""

from collections.abc import Mapping

from extproc.asked import RefusedError
from extproc.types import ClientUsage, FormRewrite, Rewrite, UsageFields, Value
from headgate.core.apis import FORM_APIS, Api
from headgate.core.contract import CACHE_SALT, PLATFORM_FIELDS, RequestKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Model, Tenant

NO_FORM = ApiError(
    Refusal.BAD_REQUEST,
    "The body must be a multipart form. It needs the header `content-type: multipart/form-data;"
    " boundary=...`, the field `model` once, and in each part one content-disposition as HTTP"
    " libraries write it.",
)
_LESS_USAGE = (ClientUsage.NONE, ClientUsage.FINAL)


def rewrite_plan(
    api: Api, model: Model, client_usage: ClientUsage, tenant: Tenant, values: Mapping[str, Value]
) -> Rewrite | FormRewrite | None:
    """The changes to the body. None is the usual case: the body then never leaves the proxy.

    Raises RefusedError for a form whose model has no known place.
    """
    is_known = model.served_as == values.get(RequestKey.MODEL)
    name = None if is_known else model.served_as
    # An aborted stream can be charged by its tokens only if each chunk carries usage.
    force_usage = client_usage in _LESS_USAGE and not model.forces_usage
    if api in FORM_APIS:
        return _form_plan(model, name, force_usage, values)
    sent: list[str] = []
    drop: tuple[str, ...] = ()
    if named := values.get(RequestKey.PLATFORM):
        sent = str(named).split(",")
        drop = tuple([field for field in PLATFORM_FIELDS if field in sent and field != CACHE_SALT])
    # A client's own salt is combined with its tenant too: it could be another tenant's.
    salt_tenant = tenant.name if tenant.cache_salt or CACHE_SALT in sent else None
    if name is None and not force_usage and not drop and salt_tenant is None:
        return None
    return Rewrite(name, force_usage, drop, salt_tenant)


def _form_plan(
    model: Model, name: str | None, force_usage: bool, values: Mapping[str, Value]
) -> FormRewrite | None:
    if name is None and not force_usage:
        return None
    at = _offset(values, RequestKey.MODEL_AT)
    if at is None:
        raise RefusedError(NO_FORM)
    usage = None
    if force_usage:
        usage = UsageFields(
            _offset(values, RequestKey.INCLUDE_USAGE_AT),
            _offset(values, RequestKey.CONTINUOUS_USAGE_AT),
        )
    return FormRewrite(at, model.name.encode(), (name or model.name).encode(), usage)


def _offset(values: Mapping[str, Value], key: RequestKey) -> int | None:
    offset = values.get(key)
    return int(offset) if isinstance(offset, int | float) else None
