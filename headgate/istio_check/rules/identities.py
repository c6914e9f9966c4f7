"""Does the mesh pass on what tells callers apart, and does nothing else turn them away?"""

from collections.abc import Iterator, Mapping

from headgate.core.end_users import ORGANIZATION
from headgate.core.policy import CompiledPolicy
from headgate.istio_check.attachments import EXT_AUTHZ, Patch, our_attachments
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, items, mapping, text
from headgate.istio_check.mesh import Mesh

_ALLOWED = ("allowed_headers", "allowedHeaders")


def request_authentications(mesh: Mesh) -> Iterator[Finding]:
    """Istio's own check of tokens knows no API keys, and runs after ext_authz."""
    for attached in our_attachments(mesh):
        for manifest in mesh.kind("RequestAuthentication"):
            if attached.is_chosen_by(manifest):
                message = (
                    "Istio would turn away every API key that it sees, and it sees no token that"
                    " Headgate has taken out"
                )
                remedy = "issuers in the policy, in place of this object"
                yield finding_at(MeshRule.REQUEST_AUTHENTICATION, manifest, (), message, remedy)


def checked_headers(mesh: Mesh) -> Iterator[Finding]:
    """The filters send ext_authz every header by which the policy tells people apart."""
    needed = _needed(mesh.policy.compiled)
    for attached in our_attachments(mesh):
        for patch in attached.patches:
            for key, allowed in _allowed(patch):
                for header in sorted(needed - allowed):
                    message = (
                        f"ext_authz does not get {header}, by which the policy tells people apart"
                    )
                    path: KeyPath = (*patch.path, "patch", "value", "typed_config", key)
                    remedy = "the filter that `headgate render istio` prints"
                    rule = MeshRule.HEADER_NOT_CHECKED
                    yield finding_at(rule, patch.manifest, path, message, remedy)


def _needed(policy: CompiledPolicy) -> set[str]:
    fronts = policy.front_ends.values()
    named = {front.header for front in fronts} | {front.group_header for front in fronts}
    chosen = {ORGANIZATION} if policy.issuers else set()
    return {header for header in named | chosen if header is not None}


def _allowed(patch: Patch) -> Iterator[tuple[str, set[str]]]:
    """The headers that a patch of ext_authz lets the service see, and the key that lists them."""
    if patch.apply_to != "HTTP_FILTER" or patch.name != EXT_AUTHZ:
        return
    config: Mapping[str, object] = mapping(patch.value.get("typed_config"))
    for key in _ALLOWED:
        if key in config:
            patterns = items(mapping(config.get(key)).get("patterns"))
            yield key, {text(mapping(pattern).get("exact")) for pattern in patterns}
