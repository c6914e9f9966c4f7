"""The `fields` of the policy file: what a request's body may hold."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator

from headgate.core.body_fields import LIMITED_FIELDS
from headgate.policy.fields import invalid
from headgate.policy.problems import PolicyRule, hint, shown

MAX_FIELD = 1_000_000
FIELDS_RULE = f"fields of a request, each with allow, refuse or a number up to {MAX_FIELD}"
FIELD_RULE = f"one of {', '.join(LIMITED_FIELDS)}"


def _known(name: str) -> str:
    if name not in LIMITED_FIELDS:
        close = hint(name, LIMITED_FIELDS)
        raise invalid(PolicyRule.UNKNOWN_KEY, f"is not a field that can be limited{close}")
    return name


def _rule(value: object) -> object:
    if value in ("allow", "refuse") or (type(value) is int and 0 <= value <= MAX_FIELD):
        return value
    if value is None:
        return value
    raise invalid(
        PolicyRule.NOT_ONE_OF, f"is neither a known word nor a number (value {shown(value)})"
    )


_Name = Annotated[str, AfterValidator(_known)]
_Rule = Annotated[Literal["allow", "refuse"] | int, BeforeValidator(_rule)]
BodyFields: TypeAlias = dict[_Name, _Rule]
