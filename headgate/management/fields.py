"""The fields of bodies with the rules that the OpenAPI document tells.

They only describe. Each field is checked where its rule is kept, with a better error.
"""

from typing import Annotated, Any, TypeAlias

import msgspec

from headgate.identity.keys import LABEL, LABEL_VALUE, MAX_LABELS, USER
from headgate.identity.limits import LARGEST

MAX_OVERLAP_S = 366 * 86_400


def whole(pattern: str) -> str:
    """The pattern in JSON Schema, where a pattern may match any part of a text."""
    return f"^(?:{pattern})$"


def described(**schema: Any) -> msgspec.Meta:
    """A rule that the document tells."""
    return msgspec.Meta(extra_json_schema=schema)


UserName: TypeAlias = Annotated[str, described(pattern=whole(USER.pattern))]
Models: TypeAlias = Annotated[list[str], described(minItems=1)]
Labels: TypeAlias = Annotated[
    dict[str, str],
    described(
        maxProperties=MAX_LABELS,
        propertyNames={"pattern": whole(LABEL.pattern)},
        additionalProperties={"type": "string", "pattern": whole(LABEL_VALUE.pattern)},
    ),
]
LimitNumber: TypeAlias = Annotated[int, described(minimum=1, maximum=LARGEST)]
Overlap: TypeAlias = Annotated[float, described(minimum=0, maximum=MAX_OVERLAP_S)]
