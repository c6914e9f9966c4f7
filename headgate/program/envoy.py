"""The Envoy of one box: built from the policy, kept in step with it, drained at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from headgate.core.policy import CompiledPolicy
from headgate.dataplane.box import MAX_CONNECTIONS, Certificate, OneBox
from headgate.dataplane.drain import Drain
from headgate.dataplane.envoy_admin import EnvoyAdmin
from headgate.dataplane.supervisor import Envoy
from headgate.dataplane.upstream import cluster_name
from headgate.program.run_folder import ADMIN_SOCKET, hook_sockets
from headgate.program.settings import BoxSettings


def box_of(
    settings: BoxSettings,
    folder: Path,
    policy: CompiledPolicy,
    certificate: Certificate | None,
) -> OneBox:
    """The description of the Envoy that routes by `policy`; its files go to `folder`."""
    return OneBox(
        listen_host=settings.listen.host,
        listen_port=settings.listen.port,
        services_sockets=hook_sockets(folder, settings.workers),
        admin_socket=folder / ADMIN_SOCKET,
        folder=folder,
        upstreams=upstreams(policy),
        versions=_versions(policy),
        pods=_pods(policy),
        spares=_spares(policy),
        upstream_ca=settings.upstream_ca,
        certificate=certificate,
        max_connections=settings.max_connections or MAX_CONNECTIONS,
        body_limit_bytes=settings.body_limit_bytes,
        counting=settings.counting,
        tracing=settings.tracing,
        path=settings.path,
        affinity_salt=settings.affinity_salt,
    )


@asynccontextmanager
async def running_envoy(box: OneBox, how: Drain) -> AsyncIterator[Envoy]:
    """Starts Envoy. At the end, requests in flight are drained.

    Raises OperatorError when it does not start.
    """
    envoy = Envoy(box)
    await envoy.start()
    try:
        yield envoy
    finally:
        await envoy.stop(how)


async def metrics_of_envoy(folder: Path) -> str | None:
    """Envoy's own metrics, from its socket in `folder`; None while it does not answer."""
    admin = EnvoyAdmin(folder / ADMIN_SOCKET)
    try:
        return await admin.prometheus()
    except httpx.HTTPError:
        return None
    finally:
        await admin.close()


async def follow_policy(envoy: Envoy, policy: CompiledPolicy) -> None:
    """Returns once Envoy routes by this policy; raises OperatorError when it refuses."""
    await envoy.apply(upstreams(policy), _versions(policy), _pods(policy), _spares(policy))


def upstreams(policy: CompiledPolicy) -> dict[str, str]:
    """The URL of each base model."""
    return {model.base: model.upstream for model in policy.models.values()}


def _versions(policy: CompiledPolicy) -> dict[str, dict[str, str]]:
    """By base model the URL of each of its versions."""
    return {
        model.base: {version.name: version.upstream for version in model.versions.all}
        for model in policy.models.values()
        if model.versions is not None
    }


def _spares(policy: CompiledPolicy) -> dict[str, str]:
    """By base model its spare version."""
    return {
        model.base: model.failover.to
        for model in policy.models.values()
        if model.failover is not None
    }


def _pods(policy: CompiledPolicy) -> dict[str, tuple[str, ...]]:
    """By cluster the pods of each base model and version that has some."""
    pods: dict[str, tuple[str, ...]] = {}
    for model in policy.models.values():
        pods[cluster_name(model.base)] = model.pods
        for version in () if model.versions is None else model.versions.all:
            pods[cluster_name(model.base, version.name)] = version.pods
    return {cluster: each for cluster, each in pods.items() if each}
