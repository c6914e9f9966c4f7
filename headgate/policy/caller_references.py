"""References between callers: tenants must exist, and an issuer or a workload occurs once.

As in `references.py` these rules read the plain document, and skip values of the wrong shape.
"""

from collections.abc import Iterator

from headgate.core.end_users import OPEN_WEBUI_TOKEN
from headgate.policy.document import Path, YamlMapping, line_of
from headgate.policy.nodes import keys, mappings, members
from headgate.policy.problems import PolicyRule, Problem, hint, path_text, shown

_TENANT_ADVICE = "allowed: the names under tenants"


def check_callers(root: YamlMapping) -> Iterator[Problem]:
    """The problems of issuers, workloads and front ends. `root` is the top of the policy file."""
    yield from _issuers(root)
    seen: dict[str, Path] = {}
    for name, tenant in mappings(root, "tenants"):
        path: Path = ("tenants", name)
        for index, workload in mappings(tenant, "workloads"):
            entry: Path = (*path, "workloads", index)
            yield from _once(root, seen, workload.get("spiffe"), (*entry, "spiffe"))
        for index, key in mappings(tenant, "keys"):
            acts_for = key.get("acts_for")
            if isinstance(acts_for, YamlMapping):
                yield from _acts_for(root, (*path, "keys", index, "acts_for"), acts_for)


def origins_of_users(root: YamlMapping, tenant: YamlMapping) -> set[str]:
    """The names before the colon of users without a key: issuers, and front ends of the tenant."""
    front_ends = {key.get("user") for _, key in mappings(tenant, "keys") if "acts_for" in key}
    return {str(name) for name in (*keys(root, "issuers"), *front_ends)}


def _issuers(root: YamlMapping) -> Iterator[Problem]:
    seen: dict[str, Path] = {}
    for alias, issuer in mappings(root, "issuers"):
        path: Path = ("issuers", alias)
        url = issuer.get("issuer")
        first = seen.setdefault(url, path) if isinstance(url, str) else path
        if first != path:
            fault = f"is also the URL of {path_text(first)} (value {shown(url)})"
            advice = "list each issuer once: audience, tenants and claims take several values"
            where = (*path, "issuer")
            yield _problem(root, PolicyRule.SAME_ISSUER, fault, advice, where)
        for index, entry in mappings(issuer, "tenants"):
            where = (*path, "tenants", index, "tenant")
            yield from _tenant(root, entry.get("tenant"), where)


def _tenant(root: YamlMapping, tenant: object, path: Path) -> Iterator[Problem]:
    known = keys(root, "tenants")
    if isinstance(tenant, str) and tenant not in known:
        fault = f"is not a tenant in this file (value {shown(tenant)}){hint(tenant, known)}"
        yield _problem(root, PolicyRule.UNKNOWN_TENANT, fault, _TENANT_ADVICE, path)


def _once(
    root: YamlMapping, seen: dict[str, Path], spiffe: object, path: Path
) -> Iterator[Problem]:
    first = seen.setdefault(spiffe, path) if isinstance(spiffe, str) else path
    if first != path:
        fault = f"is also in {path_text(first)} (value {shown(spiffe)})"
        yield _problem(root, PolicyRule.SAME_WORKLOAD, fault, "list each SPIFFE id once", path)


def _acts_for(root: YamlMapping, path: Path, entry: YamlMapping) -> Iterator[Problem]:
    is_signed = entry.get("header") == OPEN_WEBUI_TOKEN
    if is_signed != ("secret_file" in entry):
        fault = "is missing" if is_signed else "does not go with this header"
        advice = f"header: {OPEN_WEBUI_TOKEN} needs it, and no other header has a signature"
        where = (*path, "secret_file")
        yield _problem(root, PolicyRule.SIGNED_HEADER, fault, advice, where)
    if is_signed and "group_header" in entry:
        fault = "does not go with a signed header"
        advice = "remove it: nothing signs the groups"
        where = (*path, "group_header")
        yield _problem(root, PolicyRule.SIGNED_HEADER, fault, advice, where)
    elif ("group_header" in entry) != ("tenants" in entry):
        absent = "tenants" if "group_header" in entry else "group_header"
        advice = "write both of group_header and tenants, or neither"
        yield _problem(root, PolicyRule.GROUPS_HALF, "is missing", advice, (*path, absent))
    for group, tenant in members(entry, "tenants"):
        yield from _tenant(root, tenant, (*path, "tenants", group))


def _problem(root: YamlMapping, rule: PolicyRule, fault: str, advice: str, path: Path) -> Problem:
    return Problem(rule=rule, fault=fault, advice=advice, path=path, line=line_of(root, path))
