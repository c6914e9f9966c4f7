"""The texts within a patch, and the clusters that it names."""

from collections.abc import Iterator, Mapping

from headgate.istio_check.attachments import Patch
from headgate.istio_check.manifests import MAX_DEPTH, KeyPath

CLUSTER_KEYS = ("cluster_name", "clusterName", "cluster")


def clusters_named(patch: Patch) -> Iterator[str]:
    """The hosts of the clusters that a patch uses."""
    for _, key, value in strings(patch.value):
        if key in CLUSTER_KEYS and value.startswith("outbound|"):
            yield value.rpartition("|")[2]


def strings(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str, str]]:
    """The path, key and text of every text within a value."""
    if len(path) > MAX_DEPTH:
        return
    entries: list[tuple[str | int, object]] = []
    if isinstance(value, Mapping):
        entries = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        entries = list(enumerate(value))
    for key, inner in entries:
        if isinstance(inner, str):
            yield (*path, key), str(key), inner
        else:
            yield from strings(inner, (*path, key))
