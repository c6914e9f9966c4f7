"""The URL of a vLLM server in the policy."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from headgate.policy.fields import invalid
from headgate.policy.problems import PolicyRule, shown

UPSTREAM_RULE = (
    "http:// or https://, a host, and optionally a port and a path in front of vLLM's own,"
    " as in http://127.0.0.1:8000"
)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")
_HOST_V6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")


def upstream_url(url: str) -> str:
    """Returns a valid URL unchanged. Raises PydanticCustomError for any other."""
    # The text before an @ or after a ? may be a password or a token.
    value = "value not shown" if set(url) & set("@?#") else f"value {shown(url)}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise invalid(PolicyRule.BAD_URL, f"is not a URL ({value})") from None
    if "@" in url:
        raise invalid(PolicyRule.BAD_URL, f"contains credentials ({value})")
    if parts.scheme not in ("http", "https") or not is_host(parts.hostname) or port == 0:
        raise invalid(PolicyRule.BAD_URL, f"is not the URL of a server ({value})")
    if "?" in url or "#" in url or not _PATH.fullmatch(parts.path):
        raise invalid(PolicyRule.BAD_URL, f"has more than a plain path after the host ({value})")
    if parts.path.rstrip("/").endswith("/v1"):
        # The base URL of an OpenAI client: the door would ask for /v1/v1/chat/completions.
        raise invalid(PolicyRule.BAD_URL, f"ends in /v1, which Headgate adds itself ({value})")
    return url


def is_host(host: str | None) -> bool:
    """Whether it is a host name or an address."""
    if host is None:
        return False
    return bool((_HOST_V6 if ":" in host else _HOST).fullmatch(host))


Upstream = Annotated[str, AfterValidator(upstream_url)]
