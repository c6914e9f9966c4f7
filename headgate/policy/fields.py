"""The building blocks of the policy file: names, lists of them, amounts, entries."""

import re
from typing import Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from headgate.core.keys import SECRET_PREFIX
from headgate.policy.problems import PolicyRule, shown

MAX_COUNT = 2**53 - 1
"""The largest whole number that Redis' Lua and JSON carry exactly."""

NAME_RULE = "1 to 64 letters, digits and . _ @ : + -, starting with a letter or digit"
MODEL_NAME_RULE = (
    "1 to 128 letters, digits and . _ @ : + -, in parts separated by /, each part starting with"
    " a letter or digit"
)
SERVED_NAME_RULE = (
    "a name that vLLM knows: 1 to 256 letters, digits and . _ @ : + - /, without '..'"
)

# Names go into HTTP headers, metadata, metric labels and counter keys. Every part of a
# model's name starts with a letter or digit, so that it cannot contain `..`, which vLLM's
# adapter resolver would follow.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,63}$"
_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]*(/[A-Za-z0-9][A-Za-z0-9._@:+-]*)*$"
_SERVED_NAME = r"^/?[A-Za-z0-9_][A-Za-z0-9._@:+-]*(/[A-Za-z0-9_][A-Za-z0-9._@:+-]*)*$"

T = TypeVar("T")


def invalid(rule: PolicyRule, fault: str) -> PydanticCustomError:
    """The error of a broken rule. Its text is final: braces in `fault` are not placeholders."""
    return PydanticCustomError(rule.value, "{fault}", {"fault": fault})


def _no_secret(name: str) -> str:
    if name.lower().startswith(SECRET_PREFIX):
        raise invalid(PolicyRule.SECRET, "looks like an API key (value not shown)")
    return name


def is_name(text: str) -> bool:
    """Whether the text is a valid name of a tenant, user or key."""
    is_secret = text.lower().startswith(SECRET_PREFIX)
    return re.fullmatch(_NAME, text) is not None and not is_secret


def distinct(values: list[T]) -> list[T]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise invalid(PolicyRule.TWICE, f"lists {shown(value)} twice")
    return values


Name = Annotated[str, Field(pattern=_NAME, description=NAME_RULE), AfterValidator(_no_secret)]
ModelName = Annotated[
    str,
    Field(pattern=_MODEL_NAME, max_length=128, description=MODEL_NAME_RULE),
    AfterValidator(_no_secret),
]
ServedName = Annotated[
    str,
    Field(pattern=_SERVED_NAME, max_length=256, description=SERVED_NAME_RULE),
    AfterValidator(_no_secret),
]
Names: TypeAlias = Annotated[list[str], Field(min_length=1), AfterValidator(distinct)]
Amount = Annotated[
    int, Field(ge=1, le=MAX_COUNT, description=f"a whole number from 1 to {MAX_COUNT}")
]


class Entry(BaseModel):
    """The base of all entries of the file: unknown keys are refused, and `"5"` is not 5."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
