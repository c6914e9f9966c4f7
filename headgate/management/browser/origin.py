"""The one address at which browsers reach the API, and the guard against other sites. Pure."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from headgate.core.errors import OperatorError
from headgate.management.problems import ProblemError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class OwnOrigin:
    """The address as browsers write it in `Origin` (RFC 6454), such as https://api.example.org."""

    text: str

    @property
    def is_secure(self) -> bool:
        """Whether browsers come over TLS, and so keep cookies with `__Host-`."""
        return self.text.startswith("https://")

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises ProblemError with 403 for a change that another site may have sent.

        Browsers set both headers, and no page can change them. `Host` is not read: whoever leads a
        name to our address chooses it.
        """
        if method in _SAFE_METHODS:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is None and origin is None:
            raise ProblemError(403, "A change with a cookie needs Sec-Fetch-Site or Origin.")
        if site not in (None, "same-origin") or origin not in (None, self.text):
            raise ProblemError(
                403, f"Another site has sent this. Changes must come from a page of {self.text}."
            )


def is_local(host: str) -> bool:
    """Whether only this machine reaches the host: `localhost`, or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_origin(url: str) -> OwnOrigin:
    """The origin of a URL like that of `--api-url`. Raises OperatorError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    is_plain = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in url)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_local(host))
    if not (host and is_plain and is_safe):
        raise OperatorError(
            f"--api-url {url} is not the address of the API for browsers: https://HOST without a"
            " path, or http:// to this machine"
        )
    written = f"[{host}]" if ":" in host else host
    end = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return OwnOrigin(f"{parts.scheme}://{written}{end}")
