"""The settings of each worker, from those of the whole program."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.program.hooks import HookInputs
from headgate.program.settings import GrpcServer, ServiceSettings
from headgate.program.workers.messages import Setup


def setups(
    settings: ServiceSettings, inputs: HookInputs, box_sockets: Sequence[Path]
) -> list[Setup]:
    """One for each worker. Each counts as a replica of its own: for outages, and for slices.

    Raises OperatorError for settings that several workers cannot have.
    """
    _check(settings, takes_connections=not box_sockets)
    hooks = [f"unix:{path}" for path in box_sockets] or [settings.hooks] * settings.workers
    store = replace(settings.store, replicas=settings.store.replicas * settings.workers)
    return [
        Setup(
            number=number,
            settings=replace(settings, hooks=address, store=store),
            policy=inputs.policy(),
            domains={} if inputs.domains is None else inputs.domains(),
            takes_connections=not box_sockets,
            console=inputs.console is not None,
        )
        for number, address in enumerate(hooks, 1)
    ]


def _check(settings: ServiceSettings, *, takes_connections: bool) -> None:
    workers = f"--workers {settings.workers}"
    if settings.store.url == "memory":
        raise OperatorError(
            f"{workers} needs a Redis: with --store memory each worker would count the limits for"
            " itself; name one with --store redis://HOST:PORT/DB, or leave --workers out"
        )
    if takes_connections and settings.grpc_server is GrpcServer.GRPCIO:
        raise OperatorError(
            f"{workers} needs --grpc-server own: grpcio takes no connections of another process"
        )
