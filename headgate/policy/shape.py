"""The shape of each value: pydantic's errors as problems in the operator's words."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from headgate.policy.body_fields import FIELD_RULE
from headgate.policy.document import YamlMapping, line_of
from headgate.policy.fields import MODEL_NAME_RULE, NAME_RULE
from headgate.policy.limits import ConcurrentLimitEntry, CostLimitEntry, WindowLimitEntry
from headgate.policy.notices import MailEntry
from headgate.policy.places import EntryType, locate
from headgate.policy.problems import PolicyRule, Problem, hint, shown
from headgate.policy.schema import AdapterEntry, BaseModelEntry, PolicyFile, TenantEntry
from headgate.policy.showback import HOURS_RULE
from headgate.policy.versions import VERSION_RULE

_FAULTS: dict[str, tuple[PolicyRule, str]] = {
    "missing": (PolicyRule.MISSING, "is missing"),
    "union_tag_not_found": (PolicyRule.MISSING, "is missing"),
    "extra_forbidden": (PolicyRule.UNKNOWN_KEY, "is not a known key"),
    "string_type": (PolicyRule.NOT_TEXT, "is not text"),
    "int_type": (PolicyRule.NOT_WHOLE, "is not a whole number"),
    "is_instance_of": (PolicyRule.NOT_NUMBER, "is not a number"),
    "bool_type": (PolicyRule.NOT_BOOL, "is neither true nor false"),
    "list_type": (PolicyRule.NOT_LIST, "is not a list"),
    "dict_type": (PolicyRule.NOT_MAPPING, "is not a mapping"),
    "model_type": (PolicyRule.NOT_MAPPING, "is not a mapping"),
    "model_attributes_type": (PolicyRule.NOT_MAPPING, "is not a mapping"),
    "greater_than_equal": (PolicyRule.TOO_SMALL, "is too small"),
    "greater_than": (PolicyRule.TOO_SMALL, "is too small"),
    "less_than_equal": (PolicyRule.TOO_LARGE, "is too large"),
    "decimal_max_places": (PolicyRule.TOO_FINE, "has too many decimals"),
    "too_short": (PolicyRule.EMPTY, "is empty"),
    "literal_error": (PolicyRule.NOT_ONE_OF, "is not a known word"),
    "union_tag_invalid": (PolicyRule.NOT_ONE_OF, "is not a known word"),
    "string_pattern_mismatch": (PolicyRule.BAD_NAME, "is not a valid name"),
    "string_too_long": (PolicyRule.BAD_NAME, "is not a valid name"),
}
"""By pydantic's type of error."""

_LEASE_ELSEWHERE = "remove it: only count: concurrent has a lease"
_WEIGHTS_ELSEWHERE = "remove it: only count: tokens has weights"
_ELSEWHERE: dict[EntryType, dict[str, str]] = {
    AdapterEntry: dict.fromkeys(
        BaseModelEntry.model_fields, "remove it: an adapter inherits it from its base"
    ),
    ConcurrentLimitEntry: {
        "per": "remove it: requests in flight have no window",
        "slice": "remove it: requests in flight are counted individually",
        "weights": _WEIGHTS_ELSEWHERE,
        "smooth": "remove it: requests in flight have no rate",
        "burst": "remove it: requests in flight have no rate",
    },
    MailEntry: {"password_file": "add user, or remove it: a password needs a user"},
    WindowLimitEntry: {
        "lease_s": _LEASE_ELSEWHERE,
        "weights": _WEIGHTS_ELSEWHERE,
        "burst": "add smooth: true, or remove it: only a smooth limit has a burst",
    },
    CostLimitEntry: {
        "lease_s": _LEASE_ELSEWHERE,
        "weights": "remove it: the prices of the models are the weights of cost",
        "smooth": "remove it: only tokens and requests can be smooth",
        "burst": "remove it: only tokens and requests can be smooth",
    },
}
"""The keys that belong to an entry of another kind, and the advice about each."""


def check_shape(root: YamlMapping) -> tuple[PolicyFile | None, list[Problem]]:
    """Validates the file against the schema. The policy is None if there are problems.

    Keys without a value are skipped: `compose` has reported them already.
    """
    try:
        return PolicyFile.model_validate(root), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        return None, [
            _problem(root, _tagged(detail)) for detail in details if detail["input"] is not None
        ]


def _tagged(error: ErrorDetails) -> ErrorDetails:
    """For a list in place of a limit, pydantic takes the method `count` for the tag."""
    if error["type"] == "union_tag_invalid" and not isinstance(error["input"], dict):
        return {**error, "type": "model_attributes_type"}
    return error


def _problem(root: YamlMapping, error: ErrorDetails) -> Problem:
    owner, field, path = locate(error["loc"], root)
    rule, fault = _fault(error, owner, field)
    if error["type"].startswith("union_tag"):
        path = (*path, "count")
    if rule is PolicyRule.MISPLACED_KEY:
        advice = _ELSEWHERE[owner][field]
    else:
        advice = f"allowed: {_allowed(error, owner, field)}"
    return Problem(rule=rule, fault=fault, advice=advice, path=path, line=line_of(root, path))


def _fault(error: ErrorDetails, owner: EntryType, field: str) -> tuple[PolicyRule, str]:
    kind, value = error["type"], error["input"]
    if kind not in _FAULTS:
        return PolicyRule(kind), error["msg"]
    rule, fault = _FAULTS[kind]
    if rule is PolicyRule.MISSING:
        return rule, fault
    if rule is PolicyRule.UNKNOWN_KEY:
        if field in _ELSEWHERE.get(owner, {}):
            return PolicyRule.MISPLACED_KEY, "does not belong here"
        return rule, fault + hint(field, _fields(owner))
    if kind == "union_tag_invalid":
        value = value["count"]
    if rule is PolicyRule.EMPTY:
        return rule, fault
    # A bare text below keys may be the API key itself.
    is_hidden = isinstance(value, str) and owner is TenantEntry and field == "keys"
    fault += " (value not shown)" if is_hidden else f" (value {shown(value)})"
    if rule is PolicyRule.NOT_TEXT and not isinstance(value, dict | list):
        fault += ": put it in quotes"
    return rule, fault


def _allowed(error: ErrorDetails, owner: EntryType, field: str) -> str:
    if error["loc"][-1] == "[key]":
        if error["loc"][-3] == "fields":
            return FIELD_RULE
        if error["loc"][-3] == "pod_hours":
            return HOURS_RULE
        if "versions" in error["loc"][2:]:
            return VERSION_RULE
        return MODEL_NAME_RULE if error["loc"][0] == "models" else NAME_RULE
    if error["type"].startswith("union_tag"):
        owner, field = WindowLimitEntry, "count"
    fields = _fields(owner)
    return fields.get(field, ", ".join(fields))


def _fields(owner: EntryType) -> dict[str, str]:
    """The keys of an entry as the file writes them, each with what it may hold."""
    fields = owner.model_fields.items()
    return {field.alias or name: field.description or "" for name, field in fields}
