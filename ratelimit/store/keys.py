"""Names inside keys."""

from urllib.parse import quote

TenantKey = tuple[str, str]
"""The tenant, then the name of a counter, a lease or a reservation within it."""


def escaped(text: str) -> str:
    """Text without any separator of ours, and different for different text."""
    return quote(text, safe="", errors="surrogatepass")
