"""Refuses a request whose body has a field that the policy does not allow."""

from collections.abc import Mapping

from extproc.asked import RefusedError
from extproc.types import Value
from headgate.core.apis import Api
from headgate.core.body_fields import FieldRule, FieldRules, strictest
from headgate.core.contract import RequestKey
from headgate.core.errors import ApiError, Refusal

_CHATS = frozenset({Api.CHAT, Api.CHAT_BATCH})
_ECHO, _LOGPROBS, _PROMPT_LOGPROBS = "echo", "logprobs", "prompt_logprobs"


def refuse_fields(api: Api, values: Mapping[str, Value], rules: tuple[FieldRules, ...]) -> None:
    """Raises RefusedError for the first field that one of the `rules` refuses or bounds.

    The strictest rule for a field counts. A field that no rule names has the default rule. Older
    EnvoyFilters do not show the fields, and nothing is refused.
    """
    shown = shown_fields(values)
    for name, value in shown.items():
        _check(name, value, _rule(api, name, rules))
    if api is Api.COMPLETIONS and _ECHO in shown and _LOGPROBS in shown:
        # vLLM then computes prompt_logprobs, as it does for the echo of a chat.
        rule = _rule(api, _PROMPT_LOGPROBS, rules)
        if rule == "refuse":
            raise _refused(_ECHO, "`echo` together with `logprobs` is not allowed here.")
        _check(_LOGPROBS, shown[_LOGPROBS], rule)


def _rule(api: Api, name: str, rules: tuple[FieldRules, ...]) -> FieldRule:
    named = strictest(each[name] for each in rules if name in each)
    if named is not None:
        return named
    ends_engines = name == _PROMPT_LOGPROBS or (name == _ECHO and api in _CHATS)
    return "refuse" if ends_engines else "allow"


def shown_fields(values: Mapping[str, Value]) -> dict[str, str]:
    """The fields in the body that a policy may limit, each with a number, `true` or `-`."""
    value = values.get(RequestKey.FIELDS)
    if not isinstance(value, str) or not value:
        return {}
    pairs = (pair.partition("=") for pair in value.split(","))
    return {name: shown for name, _, shown in pairs}


def _check(name: str, value: str, rule: FieldRule) -> None:
    if rule == "allow":
        return
    if rule == "refuse":
        raise _refused(name, f"`{name}` is not allowed here; leave it out.")
    try:
        number = 1.0 if value == "true" else float(value)
    except ValueError:
        number = -1.0
    # vLLM takes -1 for "all" in some of these fields.
    if not 0 <= number <= rule:
        raise _refused(name, f"`{name}` must be at most {rule} here, in number or in members.")


def _refused(name: str, message: str) -> RefusedError:
    return RefusedError(ApiError(Refusal.BAD_REQUEST, message, name))
