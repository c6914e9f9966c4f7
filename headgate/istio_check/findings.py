"""The rules of `headgate check --istio`, and the findings that its report lists."""

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


class MeshRule(StrEnum):
    """Every rule, by its slug; an error unless it names another severity.

    Each has a case in `tests/istio/bad` and a row in docs/istio-check.md.
    """

    severity: Severity

    def __new__(cls, slug: str, severity: Severity = Severity.ERROR) -> "MeshRule":
        """A member is its slug."""
        rule = str.__new__(cls, slug)
        rule._value_ = slug
        rule.severity = severity
        return rule

    NOT_CHECKED = "not-checked", Severity.WARNING
    NOT_AN_OBJECT = "not-an-object"
    FIELD_UNKNOWN = "field-unknown"
    DURATION = "duration"
    POLICY_DIFFERS = "policy-differs", Severity.WARNING
    NOTHING_ATTACHED = "nothing-attached"
    MODEL_WITHOUT_ROUTE = "model-without-route"
    ROUTE_WITHOUT_MODEL = "route-without-model", Severity.WARNING
    VERSION_WITHOUT_ROUTE = "version-without-route"
    VERSION_WITHOUT_SUBSET = "version-without-subset"
    UPSTREAM_DIFFERS = "upstream-differs"
    CONTEXT_DIFFERS = "context-differs"
    SERVED_NAME_DIFFERS = "served-name-differs"
    USAGE_NOT_FORCED = "usage-not-forced"
    SCHEDULING_DIFFERS = "scheduling-differs"
    ADAPTERS_LOADED_TWICE = "adapters-loaded-twice"
    ADAPTERS_NOT_LOADED = "adapters-not-loaded"
    ADAPTER_SIZES = "adapter-sizes"
    ADAPTER_PODS = "adapter-pods"
    ADAPTERS_OPEN = "adapters-open", Severity.WARNING
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
    RETRIES_DEFAULT = "retries-default", Severity.WARNING
    RETRIES_REPEAT = "retries-repeat"
    ROUTE_TIMEOUT = "route-timeout"
    HOST_OF_CLIENT = "host-of-client", Severity.WARNING
    ROUTE_DROPS_FILTERS = "route-drops-filters", Severity.WARNING
    IDLE_TIMEOUT = "idle-timeout"
    NO_OUTLIER_DETECTION = "no-outlier-detection", Severity.WARNING
    OUTLIER_FIELD = "outlier-field"
    TLS_CONFLICT = "tls-conflict"
    PLACEMENT_CONFLICT = "placement-conflict"
    PLACEMENT_MISSING = "placement-missing", Severity.WARNING
    CACHE_NOT_OFFERED = "cache-not-offered", Severity.WARNING
    METERED_TWICE = "metered-twice"
    PROVIDER_UNKNOWN = "provider-unknown"
    PROVIDER_KIND = "provider-kind"
    PROVIDER_SERVICE = "provider-service"
    PROVIDER_TIMEOUT = "provider-timeout"
    PROVIDER_FAILS_OPEN = "provider-fails-open"
    PROVIDER_STATUS = "provider-status", Severity.WARNING
    PROVIDERS_SEVERAL = "providers-several"
    AUTHORIZATION_PARTIAL = "authorization-partial", Severity.WARNING
    NO_USAGE_RECORDS = "no-usage-records"
    TRACING_SERVICE = "tracing-service", Severity.WARNING
    TRACING_SELECTOR = "tracing-selector"
    ANCHOR_ABSENT = "anchor-absent"
    PATCH_OPERATION = "patch-operation"
    FILTER_CLASS = "filter-class"
    PRIORITY_MISSING = "priority-missing", Severity.WARNING
    PROXY_VERSION = "proxy-version", Severity.WARNING
    REFERENCED_SERVICES = "referenced-services", Severity.WARNING
    NO_SELECTOR = "no-selector"
    NO_WORKLOAD = "no-workload"
    FILTER_NAME = "filter-name"
    FILTER_MISSING = "filter-missing"
    FILTER_ORDER = "filter-order"
    BODY_BEFORE_KEY = "body-before-key"
    FILTER_DISABLED = "filter-disabled"
    REQUEST_AUTHENTICATION = "request-authentication", Severity.WARNING
    HEADER_NOT_CHECKED = "header-not-checked"
    TYPED_CONFIG = "typed-config"
    EXTENSION_ABSENT = "extension-absent"
    CLUSTER_UNKNOWN = "cluster-unknown"
    FAILS_OPEN = "fails-open"
    METADATA_NAMESPACE = "metadata-namespace"
    RATELIMIT_DOMAIN = "ratelimit-domain"
    DESCRIPTOR = "descriptor"
    DEFAULT_VALUE = "default-value"
    BUFFER_LIMITS = "buffer-limits"
    DRIFT = "drift", Severity.WARNING
    STATS_EXCLUDED = "stats-excluded", Severity.WARNING
    NETWORK_POLICY = "network-policy"
    AUTHORIZATION_POLICY = "authorization-policy"
    SIDECAR_EGRESS = "sidecar-egress"
    FILE_NOT_MOUNTED = "file-not-mounted"
    SECRET_IN_OPTION = "secret-in-option", Severity.WARNING
    HOST_NOT_LET_OUT = "host-not-let-out"
    API_NOT_SERVED = "api-not-served"
    API_OPEN = "api-open"
    API_AT_THE_DOOR = "api-at-the-door"
    API_DOOR_OPEN = "api-door-open", Severity.WARNING
    API_RETRIES = "api-retries"
    API_URL = "api-url", Severity.WARNING
    SIDECAR_INGRESS = "sidecar-ingress", Severity.WARNING
    SCALERS_SEVERAL = "scalers-several"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mistake: its place, what is wrong, and what to write instead.

    `line` counts from 1; it is 0 if the object has no line. `path` is within the object.
    """

    rule: MeshRule
    file: str
    line: int
    object: str
    path: str
    message: str
    remedy: str

    @property
    def severity(self) -> Severity:
        """The severity of the rule."""
        return self.rule.severity

    def render(self) -> str:
        """`FILE:LINE: severity: Kind ns/name: path: message; write: remedy [rule]`, on one line."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = ": ".join(part for part in (place, self.severity, self.object, self.path) if part)
        message, remedy = redacted(self.message), redacted(self.remedy)
        return f"{where}: {message}; write: {remedy} [{self.rule}]"

    def as_json(self) -> dict[str, str | int]:
        """The fields in a stable order, under the names that `--format json` documents."""
        return {
            "rule": str(self.rule),
            "severity": str(self.severity),
            "file": self.file,
            "line": self.line,
            "object": self.object,
            "path": self.path,
            "what": redacted(self.message),
            "write": redacted(self.remedy),
        }


def finding_at(
    rule: MeshRule, manifest: Manifest, path: KeyPath, message: str, remedy: str
) -> Finding:
    """A finding about the value at `path` of an object."""
    return Finding(
        rule=rule,
        file=os.path.normpath(manifest.file),
        line=manifest.line_of(path),
        object=manifest.title,
        path=path_text(path),
        message=message,
        remedy=remedy,
    )


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings in the order of the files, and a line that counts the objects checked."""

    findings: tuple[Finding, ...]
    summary: str

    @property
    def has_errors(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    def as_text(self) -> str:
        """One line for each finding, and the summary."""
        return "\n".join([*(finding.render() for finding in self.findings), self.summary])

    def as_json(self) -> str:
        """A JSON list with an object for each finding."""
        return json.dumps([finding.as_json() for finding in self.findings], indent=2)


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without duplicates, by file, line, path, rule and message."""
    return tuple(
        sorted(
            set(findings),
            key=lambda each: (each.file, each.line, each.path, each.rule, each.message),
        )
    )
