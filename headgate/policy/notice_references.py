"""Addresses of mail need a mail server."""

from collections.abc import Iterator

from headgate.policy.document import Path, YamlMapping, line_of
from headgate.policy.nodes import mappings
from headgate.policy.problems import PolicyRule, Problem


def check_notices(root: YamlMapping) -> Iterator[Problem]:
    """Tenants whose admins wait for mail that nobody sends."""
    channels = root.get("notices")
    if isinstance(channels, dict) and "mail" in channels:
        return
    for name, tenant in mappings(root, "tenants"):
        if isinstance(tenant.get("notices"), dict):
            path: Path = ("tenants", name, "notices")
            yield Problem(
                rule=PolicyRule.NO_MAIL,
                fault="has addresses, but the file names no mail server",
                advice="add notices: {mail: {server: HOST:PORT, sender: ADDRESS}} at the top",
                path=path,
                line=line_of(root, path),
            )
