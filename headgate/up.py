"""One box: a real Envoy, the services and, in the demo, the vLLM simulator, as one program.

Everything lives and dies together: whichever part ends first ends the rest, and nothing is
left behind.
"""

import asyncio
import dataclasses
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import (
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accesslog.console import ConsoleSink
from dataplane.box import OneBox
from dataplane.supervisor import Envoy, PortTaken, check_port
from headgate.app import StoreSettings
from headgate.clock import Clock
from headgate.contract import Counting
from headgate.demo import Demo, demo_policy
from headgate.errors import OperatorError
from headgate.policy import check_upstream
from headgate.reachable import silent
from headgate.serve import ServeSettings, running_services, stop_event
from headgate.simulated import running_simulator
from registry.types import Registry

_Death = Callable[[], Coroutine[Any, Any, None]]
"""Waits until a child ends, and raises the OperatorError that says so."""

_DRAIN_S = 5.0
"""How long requests in flight may take to end after Ctrl-C."""
_HOOKS_SOCKET = "hooks.sock"
_ADMIN_SOCKET = "envoy-admin.sock"
_SOCKET_PATH_BYTES = 107
"""The longest path of a unix socket (Linux, unix(7))."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 stands for any free one."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What `headgate up` was asked for.

    `policy` None means the demo's; `upstream` replaces the upstream of every model;
    `run_dir` keeps sockets, configuration and logs (a temporary folder when None);
    `counting` says who counts the tokens of answers.
    """

    policy: Path | None
    upstream: str | None
    listen: Address
    admin: Address
    store: str
    records: Path
    run_dir: Path | None
    counting: Counting = Counting.PROXY


async def up(settings: UpSettings, clock: Clock, say: Callable[[str], None]) -> None:
    """`headgate up`: runs until it is stopped or a part of it dies.

    Raises OperatorError when something cannot start or has died; by then all else is stopped.
    """
    stop = stop_event()
    async with one_box(settings, clock, say) as deaths:
        await _first_of(stop.wait(), *(died() for died in deaths))
        with suppress(OSError):  # a terminal that is gone
            say("stopping")


@asynccontextmanager
async def one_box(
    settings: UpSettings, clock: Clock, say: Callable[[str], None]
) -> AsyncIterator[Sequence[_Death]]:
    """Starts the parts in the order in which they need each other, and says what to try.

    Yields one function for each child process, which waits for the child's end.
    """
    if settings.upstream is not None:
        check_upstream(settings.upstream)
    listen = _free(settings.listen, "--listen")
    admin = _free(settings.admin, "--admin")
    async with AsyncExitStack() as stack:
        run_dir = stack.enter_context(_run_folder(settings.run_dir))
        deaths: list[_Death] = []
        policy, demo = settings.policy, None
        if policy is None:
            simulator = await stack.enter_async_context(running_simulator(run_dir))
            deaths.append(simulator.died)
            demo = demo_policy(simulator.url)
            policy = run_dir / "headgate.yaml"
            policy.write_text(demo.text, encoding="utf-8")
        box = OneBox(
            listen_host=listen.host,
            listen_port=listen.port,
            services_socket=run_dir / _HOOKS_SOCKET,
            admin_socket=run_dir / _ADMIN_SOCKET,
            folder=run_dir,
            upstreams={},
            counting=settings.counting,
        )
        routes = _Routes()
        services = await stack.enter_async_context(
            running_services(
                ServeSettings(
                    policy=policy,
                    hooks=f"unix:{box.services_socket}",
                    admin_host=admin.host,
                    admin_port=admin.port,
                    store=StoreSettings(settings.store),
                    records=settings.records,
                    drain_s=_DRAIN_S,
                ),
                clock,
                on_change=routes.follow,
                more_sinks=lambda limiter: (ConsoleSink(say, limiter.left_of),),
                transform=lambda registry: _towards(registry, settings.upstream),
            )
        )
        upstreams = _upstreams(services.registry())
        envoy = Envoy(dataclasses.replace(box, upstreams=upstreams))
        await envoy.start()
        stack.push_async_callback(envoy.stop, _DRAIN_S)
        routes.start(envoy)
        deaths.append(envoy.died)
        for model in await silent(upstreams):
            say(f"note: the vLLM of {model} ({upstreams[model]}) does not answer yet")
        for line in _welcome(listen, services.admin_url, settings.records, demo):
            say(line)
        yield deaths


class _Routes:
    """Points Envoy at the models of each new policy; a change waits until Envoy has started."""

    def __init__(self) -> None:
        self._envoy: asyncio.Future[Envoy] = asyncio.get_running_loop().create_future()

    def start(self, envoy: Envoy) -> None:
        """Envoy takes requests from now on."""
        self._envoy.set_result(envoy)

    async def follow(self, registry: Registry) -> None:
        """Returns once Envoy routes by this policy; raises OperatorError when it refuses."""
        envoy = await self._envoy
        await envoy.apply(_upstreams(registry))


def _towards(registry: Registry, upstream: str | None) -> Registry:
    """The registry with every model served by `upstream`, where one is given."""
    if upstream is None:
        return registry
    models = {
        name: dataclasses.replace(model, upstream=upstream)
        for name, model in registry.models.items()
    }
    return dataclasses.replace(registry, models=models)


def _upstreams(registry: Registry) -> dict[str, str]:
    """The URL of each base model."""
    return {model.base: model.upstream for model in registry.models.values()}


def _welcome(listen: Address, admin_url: str, records: Path, demo: Demo | None) -> Iterator[str]:
    yield f"Headgate is ready on {listen.url} (admin {admin_url}, usage records in {records})"
    if demo is None:
        return
    for key in demo.keys:
        yield f"  {key.secret}  {key.tenant}/{key.user}: {key.note}"
    yield "Try it:"
    yield (
        f"  curl {listen.url}/v1/chat/completions -H 'Authorization: Bearer {demo.keys[0].secret}' "
        f"-H 'Content-Type: application/json' "
        f'-d \'{{"model": "{demo.model}", "max_tokens": 16, '
        f'"messages": [{{"role": "user", "content": "Hello"}}]}}\''
    )


def _free(address: Address, option: str) -> Address:
    """The address as numbers (Envoy takes no names), with a port that nobody listens on.

    Raises OperatorError when it is taken or does not exist.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        host = str(found[0][4][0])
        return Address(host, check_port(host, address.port))
    except PortTaken as error:
        raise OperatorError(f"{error}; name another address with {option}") from error
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {address.host}: {error.strerror}; name another with {option}"
        ) from error


@contextmanager
def _run_folder(asked: Path | None) -> Iterator[Path]:
    """The folder of sockets, configuration and logs, readable by its owner only.

    Raises OperatorError when it cannot be used, or another box runs in it.
    """
    with ExitStack() as stack:
        try:
            if asked is None:
                folder = Path(tempfile.mkdtemp(prefix="headgate-"))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            else:
                asked.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder = asked.resolve()
            _own(stack, folder)
        except OSError as error:
            raise OperatorError(
                f"cannot use {asked or tempfile.gettempdir()} for sockets and logs: "
                f"{error.strerror}; name another folder with --run-dir"
            ) from error
        yield folder


def _own(stack: ExitStack, folder: Path) -> None:
    """Holds the folder until the stack ends: a second box would take over its sockets."""
    if len(os.fsencode(folder / _ADMIN_SOCKET)) > _SOCKET_PATH_BYTES:
        raise OperatorError(
            f"the path {folder} is too long for a socket (with its name at most "
            f"{_SOCKET_PATH_BYTES} bytes); name another folder with --run-dir"
        )
    lock = stack.enter_context((folder / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OperatorError(
            f"another headgate runs in {folder}; stop it, or name another folder with --run-dir"
        ) from error


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Waits for the first to end, cancels the others, and raises what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
