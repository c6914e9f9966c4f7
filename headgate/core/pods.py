"""The pods that run a model: those of its base model, in one version."""

from collections.abc import Iterator

from headgate.core.contract import ABSENT
from headgate.core.policy import CompiledPolicy, Model


def pods_of(policy: CompiledPolicy, model: str | None, version: str | None) -> tuple[str, str]:
    """The base model and the version, as labels: `-` for a name that is not in the policy.

    A version is a Deployment of the base model. An adapter runs on the pods of its base model.
    """
    entry = policy.models.get(model or ABSENT)
    if entry is None:
        return ABSENT, ABSENT
    names = () if entry.versions is None else entry.versions.names
    return entry.base, version if version in names and version is not None else ABSENT


def named_pods(model: Model) -> Iterator[str]:
    """The pods that the policy names for a model and for its versions, as it writes them."""
    yield from model.pods
    for version in () if model.versions is None else model.versions.all:
        yield from version.pods
