"""What all parts of the policy file are made of: names, lists of them, amounts, entries."""

import re
from typing import Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from headgate.core.keys import SECRET_PREFIX
from headgate.policy.problems import Rule, shown

MAX_COUNT = 2**53 - 1
"""The largest whole number that Redis' Lua and JSON carry exactly."""

NAME_RULE = "1 to 64 letters, digits and . _ @ : + -, a letter or digit first"
MODEL_NAME_RULE = (
    "1 to 128 letters, digits and . _ @ : + -, in parts parted by /, each with a letter"
    " or digit first"
)
SERVED_NAME_RULE = "a name that vLLM knows: 1 to 256 letters, digits and . _ @ : + - /, no '..'"

# Names go into HTTP headers, metadata, metric labels and counter keys. As every part
# of a model's name begins with a letter or digit, it cannot hold `..`, which vLLM's
# adapter resolver would follow.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,63}$"
_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]*(/[A-Za-z0-9][A-Za-z0-9._@:+-]*)*$"
_SERVED_NAME = r"^/?[A-Za-z0-9_][A-Za-z0-9._@:+-]*(/[A-Za-z0-9_][A-Za-z0-9._@:+-]*)*$"

T = TypeVar("T")


def wrong(rule: Rule, what: str) -> PydanticCustomError:
    """An error whose words are final; braces are not placeholders."""
    return PydanticCustomError(rule.value, "{what}", {"what": what})


def _no_secret(name: str) -> str:
    if name.lower().startswith(SECRET_PREFIX):
        raise wrong(Rule.SECRET, "looks like an API key itself (value not shown)")
    return name


def is_name(text: str) -> bool:
    """Whether a tenant, user or key may be called so."""
    is_secret = text.lower().startswith(SECRET_PREFIX)
    return re.fullmatch(_NAME, text) is not None and not is_secret


def distinct(values: list[T]) -> list[T]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise wrong(Rule.TWICE, f"names {shown(value)} twice")
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
    """What all parts of the file share: unknown keys are refused, and `"5"` is not 5."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
