"""The shape of each value: pydantic's errors told in the operator's words."""

from typing import TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from headgate.policy.document import Path, YamlMapping, line_of
from headgate.policy.fields import MODEL_NAME_RULE, NAME_RULE, Entry
from headgate.policy.limits import (
    ConcurrentLimitEntry,
    CostLimitEntry,
    WeightsEntry,
    WindowLimitEntry,
)
from headgate.policy.problems import Problem, Rule, hint, shown
from headgate.policy.schema import (
    AdapterEntry,
    BaseModelEntry,
    KeyEntry,
    PolicyFile,
    PricesEntry,
    TenantEntry,
    WithoutUsageEntry,
)
from headgate.policy.versions import VERSION_RULE, VersionEntry

EntryType: TypeAlias = type[Entry]

_WRONG: dict[str, tuple[Rule, str]] = {
    "missing": (Rule.MISSING, "is missing"),
    "union_tag_not_found": (Rule.MISSING, "is missing"),
    "extra_forbidden": (Rule.UNKNOWN_KEY, "is not a known key"),
    "string_type": (Rule.NOT_TEXT, "is not text"),
    "int_type": (Rule.NOT_WHOLE, "is not a whole number"),
    "is_instance_of": (Rule.NOT_NUMBER, "is not a number"),
    "bool_type": (Rule.NOT_BOOL, "is neither true nor false"),
    "list_type": (Rule.NOT_LIST, "is not a list"),
    "dict_type": (Rule.NOT_MAPPING, "is not a mapping"),
    "model_type": (Rule.NOT_MAPPING, "is not a mapping"),
    "model_attributes_type": (Rule.NOT_MAPPING, "is not a mapping"),
    "greater_than_equal": (Rule.TOO_SMALL, "is too small"),
    "greater_than": (Rule.TOO_SMALL, "is too small"),
    "less_than_equal": (Rule.TOO_LARGE, "is too large"),
    "decimal_max_places": (Rule.TOO_FINE, "has too many decimals"),
    "too_short": (Rule.EMPTY, "is empty"),
    "literal_error": (Rule.NOT_ONE_OF, "is not a known word"),
    "union_tag_invalid": (Rule.NOT_ONE_OF, "is not a known word"),
    "string_pattern_mismatch": (Rule.BAD_NAME, "is not a name"),
    "string_too_long": (Rule.BAD_NAME, "is not a name"),
}
"""Pydantic's error types, and what they are in the file."""

_KINDS: dict[str, EntryType] = {
    "base": BaseModelEntry,
    "adapter": AdapterEntry,
    "tokens": WindowLimitEntry,
    "requests": WindowLimitEntry,
    "cost": CostLimitEntry,
    "concurrent": ConcurrentLimitEntry,
}
_LEASE_ELSEWHERE = "only count: concurrent has a lease; remove it"
_WEIGHTS_ELSEWHERE = "only count: tokens has weights; remove it"
_ELSEWHERE: dict[EntryType, dict[str, str]] = {
    AdapterEntry: dict.fromkeys(
        BaseModelEntry.model_fields, "an adapter takes this from its base; remove it"
    ),
    ConcurrentLimitEntry: {
        "per": "requests in flight have no window; remove it",
        "slice": "requests in flight are counted one by one; remove it",
        "weights": _WEIGHTS_ELSEWHERE,
        "smooth": "requests in flight have no rate; remove it",
        "burst": "requests in flight have no rate; remove it",
    },
    WindowLimitEntry: {
        "lease_s": _LEASE_ELSEWHERE,
        "weights": _WEIGHTS_ELSEWHERE,
        "burst": "only a smooth limit has a burst; add smooth: true, or remove it",
    },
    CostLimitEntry: {
        "lease_s": _LEASE_ELSEWHERE,
        "weights": "the prices of the models weigh cost; remove it",
        "smooth": "only tokens and requests can be smooth; remove it",
        "burst": "only tokens and requests can be smooth; remove it",
    },
}
"""Keys that stand in an entry of another kind, and what to say of them here."""


def check_shape(root: YamlMapping) -> tuple[PolicyFile | None, list[Problem]]:
    """Validates the file against the schema. None when there are problems.

    Keys without a value are left to `compose`, which has already told of them.
    """
    try:
        return PolicyFile.model_validate(root), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        return None, [_problem(root, _named(one)) for one in details if one["input"] is not None]


def _named(error: ErrorDetails) -> ErrorDetails:
    """Of a list in place of a limit pydantic reads the method `count` for its tag."""
    if error["type"] == "union_tag_invalid" and not isinstance(error["input"], dict):
        return {**error, "type": "model_attributes_type"}
    return error


def _problem(root: YamlMapping, error: ErrorDetails) -> Problem:
    owner, field, path = _locate(error["loc"])
    rule, what = _words(error, owner, field)
    if error["type"].startswith("union_tag"):
        path = (*path, "count")
    if rule is Rule.MISPLACED_KEY:
        advice = _ELSEWHERE[owner][field]
    else:
        advice = f"allowed: {_allowed(error, owner, field)}"
    return Problem(rule, what, advice, path, line_of(root, path))


def _words(error: ErrorDetails, owner: EntryType, field: str) -> tuple[Rule, str]:
    kind, value = error["type"], error["input"]
    if kind not in _WRONG:
        return Rule(kind), error["msg"]
    rule, what = _WRONG[kind]
    if rule is Rule.MISSING:
        return rule, what
    if rule is Rule.UNKNOWN_KEY:
        if field in _ELSEWHERE.get(owner, {}):
            return Rule.MISPLACED_KEY, "does not belong here"
        return rule, what + hint(field, owner.model_fields)
    if kind == "union_tag_invalid":
        value = value["count"]
    if rule is Rule.EMPTY:
        return rule, what
    # Who writes a bare text below keys may have put the API key itself there.
    is_hidden = isinstance(value, str) and owner is TenantEntry and field == "keys"
    what += " (value not shown)" if is_hidden else f" (value {shown(value)})"
    if rule is Rule.NOT_TEXT and not isinstance(value, dict | list):
        what += ": put it in quotes"
    return rule, what


def _allowed(error: ErrorDetails, owner: EntryType, field: str) -> str:
    if error["loc"][-1] == "[key]":
        if "versions" in error["loc"][2:]:
            return VERSION_RULE
        return MODEL_NAME_RULE if error["loc"][0] == "models" else NAME_RULE
    if error["type"].startswith("union_tag"):
        owner, field = WindowLimitEntry, "count"
    known = owner.model_fields.get(field)
    if known is None:
        return ", ".join(owner.model_fields)
    return known.description or ""


def _locate(loc: tuple[int | str, ...]) -> tuple[EntryType, str, Path]:
    """The entry type and field that a pydantic location means, and its path in the file.

    Pydantic puts the kind of a model or limit into the location; the file has no such level.
    """
    owner: EntryType = PolicyFile
    depth = 0
    path = list(loc)
    if len(loc) > 2 and loc[0] == "models" and loc[2] in _KINDS:
        del path[2]
        if len(path) > 2:
            owner, depth = _KINDS[str(loc[2])], 2
        if len(path) > 3 and path[2] == "prices":
            owner, depth = PricesEntry, 3
        if len(path) > 4 and path[2] == "versions" and path[4] != "[key]":
            owner, depth = VersionEntry, 4
    elif len(loc) > 1 and loc[0] == "without_usage":
        owner, depth = WithoutUsageEntry, 1
    elif len(loc) > 2 and loc[0] == "tenants" and loc[2] != "[key]":
        owner, depth = TenantEntry, 2
        if len(loc) > 4 and loc[2] == "keys":
            owner, depth = KeyEntry, 4
        elif len(loc) > 5 and loc[2] == "limits":
            owner, depth = _KINDS[str(loc[4])], 4
            del path[4]
            if len(path) > 5 and path[4] == "weights":
                owner, depth = WeightsEntry, 5
    field = str(path[depth])
    return owner, field, tuple(part for part in path if part != "[key]")
