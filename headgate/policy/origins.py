"""The origins of web pages in the policy (`cors`)."""

import re
from typing import Annotated

from pydantic import AfterValidator

from headgate.policy.fields import invalid
from headgate.policy.problems import PolicyRule, shown

ANY_ORIGIN = "*"
ORIGIN_RULE = (
    "a list of origins, each as a browser sends it: a scheme, a host and maybe a port, in small"
    ' letters and without a path, as in https://chat.example.org; or "*" alone'
)
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://"
    r"(?:[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS = {("http", "80"), ("https", "443")}


def _origin(text: str) -> str:
    if text == ANY_ORIGIN:
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise invalid(PolicyRule.BAD_ORIGIN, f"is not an origin (value {shown(text)})")
    if (match[1], match[3]) in _DEFAULT_PORTS:
        fault = f"has the scheme's own port, which browsers leave out (value {shown(text)})"
        raise invalid(PolicyRule.BAD_ORIGIN, fault)
    return text


def alone_if_any(origins: list[str]) -> list[str]:
    """Returns the list unchanged. Raises PydanticCustomError if `*` is not alone in it."""
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise invalid(PolicyRule.BAD_ORIGIN, 'has other origins beside "*", which is all of them')
    return origins


Origin = Annotated[str, AfterValidator(_origin)]
