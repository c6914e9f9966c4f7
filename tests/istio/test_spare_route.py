"""The check of a mesh with the spare version of docs/failover.md."""

from headgate.istio_check.check import check
from headgate.istio_check.findings import MeshRule
from tests.istio.good import changed
from tests.istio.spare_route import shown_in_page

SPARE = """v2: {weight: 10}
      spot: {weight: 0, upstream: "https://llama-8b.us-east.example.org"}
    failover: {to: spot}"""
ROUTES, OBJECTS = shown_in_page()
EDITS = [
    {"replace": "v2: {weight: 10}", "by": SPARE},
    {"object": "VirtualService vllm/llama-8b", "op": "add", "path": "/spec/http/0"}
    | {"value": ROUTES[0]},
]


def test_the_check_finds_nothing_wrong_with_what_the_page_shows() -> None:
    """TLS of the gateway's own is right towards a host outside: it has no PeerAuthentication."""
    assert len(ROUTES) == 1
    assert check(changed([*EDITS, *({"add": each} for each in OBJECTS)])).findings == ()


def test_a_spare_version_outside_needs_its_service_entry() -> None:
    findings = check(changed(EDITS)).findings

    assert [finding.rule for finding in findings] == [MeshRule.HOST_UNKNOWN]


def test_tls_of_ones_own_towards_pods_of_the_mesh_is_still_an_error() -> None:
    """A ServiceEntry may also name pods of the mesh, which take mTLS only."""
    entry, rule = OBJECTS
    inside = {**entry, "spec": {**entry["spec"], "location": "MESH_INTERNAL"}}
    findings = check(changed([*EDITS, {"add": inside}, {"add": rule}])).findings

    assert [finding.rule for finding in findings] == [MeshRule.TLS_CONFLICT]
