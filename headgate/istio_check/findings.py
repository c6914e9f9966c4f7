"""What can be wrong between the policy and the YAML of a mesh, and how a reader is told."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, auto

from headgate.istio_check.manifests import KeyPath, Manifest
from headgate.policy.problems import path_text, redacted


class Severity(StrEnum):
    """An error keeps requests from being served, limited or metered; a warning may."""

    ERROR = auto()
    WARNING = auto()


class Rule(StrEnum):
    """Every rule of `headgate check --istio`. Each has a case in `tests/istio/bad` and a row in
    docs/istio-check.md."""

    NOT_CHECKED = "not-checked"
    NOT_AN_OBJECT = "not-an-object"
    FIELD_UNKNOWN = "field-unknown"
    POLICY_DIFFERS = "policy-differs"
    NOTHING_ATTACHED = "nothing-attached"
    MODEL_WITHOUT_ROUTE = "model-without-route"
    ROUTE_WITHOUT_MODEL = "route-without-model"
    VERSION_WITHOUT_ROUTE = "version-without-route"
    VERSION_WITHOUT_SUBSET = "version-without-subset"
    UPSTREAM_DIFFERS = "upstream-differs"
    NO_CATCH_ALL = "no-catch-all"
    GATEWAY_UNKNOWN = "gateway-unknown"
    WEIGHTS = "weights"
    ROUTE_NEVER_REACHED = "route-never-reached"
    HEADER_UNKNOWN = "header-unknown"
    HEADER_OF_CLIENT = "header-of-client"
    HOST_SHORT = "host-short"
    HOST_UNKNOWN = "host-unknown"
    PORT_UNKNOWN = "port-unknown"
    PORT_PROTOCOL = "port-protocol"
    SUBSET_UNKNOWN = "subset-unknown"
    SUBSET_WITHOUT_PODS = "subset-without-pods"
    RETRIES_DEFAULT = "retries-default"
    RETRIES_REPEAT = "retries-repeat"
    ROUTE_TIMEOUT = "route-timeout"
    ROUTE_DROPS_FILTERS = "route-drops-filters"
    IDLE_TIMEOUT = "idle-timeout"
    NO_OUTLIER_DETECTION = "no-outlier-detection"
    TLS_CONFLICT = "tls-conflict"
    METERED_TWICE = "metered-twice"
    PROVIDER_UNKNOWN = "provider-unknown"
    PROVIDER_KIND = "provider-kind"
    PROVIDER_SERVICE = "provider-service"
    PROVIDER_TIMEOUT = "provider-timeout"
    PROVIDER_FAILS_OPEN = "provider-fails-open"
    PROVIDER_STATUS = "provider-status"
    PROVIDERS_SEVERAL = "providers-several"
    AUTHORIZATION_PARTIAL = "authorization-partial"
    NO_USAGE_RECORDS = "no-usage-records"
    ANCHOR_ABSENT = "anchor-absent"
    PATCH_OPERATION = "patch-operation"
    FILTER_CLASS = "filter-class"
    PRIORITY_MISSING = "priority-missing"
    PROXY_VERSION = "proxy-version"
    REFERENCED_SERVICES = "referenced-services"
    NO_SELECTOR = "no-selector"
    NO_WORKLOAD = "no-workload"
    FILTER_NAME = "filter-name"
    FILTER_MISSING = "filter-missing"
    FILTER_ORDER = "filter-order"
    TYPED_CONFIG = "typed-config"
    EXTENSION_ABSENT = "extension-absent"
    CLUSTER_UNKNOWN = "cluster-unknown"
    FAILS_OPEN = "fails-open"
    METADATA_NAMESPACE = "metadata-namespace"
    RATELIMIT_DOMAIN = "ratelimit-domain"
    DESCRIPTOR = "descriptor"
    DEFAULT_VALUE = "default-value"
    BUFFER_LIMITS = "buffer-limits"
    DRIFT = "drift"
    STATS_EXCLUDED = "stats-excluded"
    NETWORK_POLICY = "network-policy"
    AUTHORIZATION_POLICY = "authorization-policy"
    SIDECAR_EGRESS = "sidecar-egress"
    SCALERS_SEVERAL = "scalers-several"


WARNINGS = frozenset(
    {
        Rule.NOT_CHECKED,
        Rule.POLICY_DIFFERS,
        Rule.ROUTE_WITHOUT_MODEL,
        Rule.RETRIES_DEFAULT,
        Rule.ROUTE_DROPS_FILTERS,
        Rule.NO_OUTLIER_DETECTION,
        Rule.PROVIDER_STATUS,
        Rule.AUTHORIZATION_PARTIAL,
        Rule.PRIORITY_MISSING,
        Rule.PROXY_VERSION,
        Rule.REFERENCED_SERVICES,
        Rule.DRIFT,
        Rule.STATS_EXCLUDED,
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: where it stands, what is wrong, and what to write instead. `line` counts from
    1; 0 where there is none. `path` is within the object."""

    rule: Rule
    file: str
    line: int
    object: str
    path: str
    what: str
    write: str

    @property
    def severity(self) -> Severity:
        """Each rule has one."""
        return Severity.WARNING if self.rule in WARNINGS else Severity.ERROR

    def render(self) -> str:
        """`FILE:LINE: severity: Kind ns/name: path: what; write: ... [rule]`, on one line."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = ": ".join(part for part in (place, self.severity, self.object, self.path) if part)
        return f"{where}: {redacted(self.what)}; write: {redacted(self.write)} [{self.rule}]"

    def as_json(self) -> dict[str, str | int]:
        """The fields in a stable order."""
        return {
            "rule": str(self.rule),
            "severity": str(self.severity),
            "file": self.file,
            "line": self.line,
            "object": self.object,
            "path": self.path,
            "what": redacted(self.what),
            "write": redacted(self.write),
        }


def found(rule: Rule, one: Manifest, path: KeyPath, what: str, write: str) -> Finding:
    """A finding about the value at `path` of an object."""
    file = os.path.normpath(one.file)
    return Finding(rule, file, one.line_of(path), one.title, path_text(path), what, write)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in the order of the files, and what was looked at."""

    findings: tuple[Finding, ...]
    summary: str

    @property
    def has_errors(self) -> bool:
        return any(one.severity is Severity.ERROR for one in self.findings)

    def as_text(self) -> str:
        """One line for each finding, and the summary."""
        return "\n".join([*(one.render() for one in self.findings), self.summary])

    def as_json(self) -> str:
        """A JSON list with an object for each finding."""
        return json.dumps([one.as_json() for one in self.findings], indent=2)


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without doubles, by file, line and rule."""
    return tuple(
        sorted(set(findings), key=lambda one: (one.file, one.line, one.path, one.rule, one.what))
    )
