"""One box: a real Envoy, the services and, in the demo, the vLLM simulator, as one program.

Everything lives and dies together: whichever part ends first ends the rest, and nothing is
left behind.
"""

import asyncio
import dataclasses
import shlex
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accesslog.console import ConsoleSink
from extauthz.failures import DEFAULT_PER_MINUTE
from headgate.core.clock import Clock
from headgate.core.contract import Counting
from headgate.core.errors import OperatorError
from headgate.core.policy import CompiledPolicy
from headgate.dataplane.box import MAX_CONNECTIONS, Certificate, OneBox
from headgate.dataplane.child import room_for_connections
from headgate.dataplane.supervisor import Envoy, PortTaken, check_port
from headgate.policy import check_upstream
from headgate.program.app import StoreSettings
from headgate.program.demo import Demo, demo_policy
from headgate.program.reachable import silent
from headgate.program.run_folder import ADMIN_SOCKET, HOOKS_SOCKET, run_folder
from headgate.program.serve import ServeSettings, running_services, stop_event
from headgate.program.simulated import running_simulator
from headgate.program.tls import CertificateWatcher, TlsFiles

_Death = Callable[[], Coroutine[Any, Any, None]]
"""Waits until a child ends, and raises the OperatorError that says so."""

_DRAIN_S = 5.0
"""How long requests in flight may take to end after Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 stands for any free one."""

    host: str
    port: int

    def url(self, scheme: str) -> str:
        """The address for clients of `http` or `https`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What `headgate up` was asked for.

    `policy` None means the demo's; `upstream` replaces the upstream of every model;
    `run_dir` keeps sockets, configuration and logs (a temporary folder when None). With `tls`
    clients speak TLS. `auth_failures_per_minute` is how often an address may fail to show a
    known key; `max_connections` how many connections clients may hold open together
    (None: MAX_CONNECTIONS, or as many as the open files allow). `counting` says who counts the
    tokens of answers.
    """

    policy: Path | None
    upstream: str | None
    listen: Address
    admin: Address
    store: str
    records: Path
    run_dir: Path | None
    tls: TlsFiles | None = None
    auth_failures_per_minute: int = DEFAULT_PER_MINUTE
    max_connections: int | None = None
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
        run_dir = stack.enter_context(run_folder(settings.run_dir))
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
            services_socket=run_dir / HOOKS_SOCKET,
            admin_socket=run_dir / ADMIN_SOCKET,
            folder=run_dir,
            upstreams={},
            max_connections=_connections(settings.max_connections, say),
            counting=settings.counting,
        )
        door = _Door()
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
                    auth_failures_per_minute=settings.auth_failures_per_minute,
                ),
                clock,
                on_change=door.follow,
                more_sinks=lambda limiter: (ConsoleSink(say, limiter.limits_of),),
                transform=lambda policy: _towards(policy, settings.upstream),
            )
        )
        box.services_socket.chmod(0o600)
        upstreams = _upstreams(services.policy())
        certificates = None
        if settings.tls is not None:
            certificates = CertificateWatcher(settings.tls, clock, services.metrics, door.renew)
            box = dataclasses.replace(box, certificate=certificates.current())
        versions = _versions(services.policy())
        envoy = Envoy(dataclasses.replace(box, upstreams=upstreams, versions=versions))
        await envoy.start()
        stack.push_async_callback(envoy.stop, _DRAIN_S)
        door.start(envoy)
        deaths.append(envoy.died)
        if certificates is not None:
            await stack.enter_async_context(certificates)
        for model in await silent(upstreams):
            say(f"note: the vLLM of {model} ({upstreams[model]}) does not answer yet")
        for line in _welcome(settings, listen, services.admin_url, demo):
            say(line)
        yield deaths


class _Door:
    """Tells Envoy of each new policy and certificate; a change waits until it has started."""

    def __init__(self) -> None:
        self._envoy: asyncio.Future[Envoy] = asyncio.get_running_loop().create_future()

    def start(self, envoy: Envoy) -> None:
        """Envoy takes requests from now on."""
        self._envoy.set_result(envoy)

    async def follow(self, policy: CompiledPolicy) -> None:
        """Returns once Envoy routes by this policy; raises OperatorError when it refuses."""
        envoy = await self._envoy
        await envoy.apply(_upstreams(policy), _versions(policy))

    async def renew(self, certificate: Certificate) -> None:
        """Returns once Envoy shows this certificate; raises OperatorError when it refuses it."""
        envoy = await self._envoy
        await envoy.renew(certificate)


def _towards(policy: CompiledPolicy, upstream: str | None) -> CompiledPolicy:
    """The policy with every model served by `upstream`, where one is given: no versions then."""
    if upstream is None:
        return policy
    models = {
        name: dataclasses.replace(model, upstream=upstream, versions=None)
        for name, model in policy.models.items()
    }
    return dataclasses.replace(policy, models=models)


def _connections(asked: int | None, say: Callable[[str], None]) -> int:
    """How many connections of clients there may be: beyond it, one is closed before Envoy has no
    file left for one to a vLLM."""
    room = room_for_connections()
    if asked is not None and asked > room:
        say(f"note: --max-connections {asked} is taken as {room}, as `ulimit -n` allows no more")
    return min(MAX_CONNECTIONS if asked is None else asked, room)


def _upstreams(policy: CompiledPolicy) -> dict[str, str]:
    """The URL of each base model."""
    return {model.base: model.upstream for model in policy.models.values()}


def _versions(policy: CompiledPolicy) -> dict[str, dict[str, str]]:
    """By base model the URL of each of its versions."""
    return {
        model.base: {version.name: version.upstream for version in model.versions.all}
        for model in policy.models.values()
        if model.versions is not None
    }


def _welcome(
    settings: UpSettings, listen: Address, admin_url: str, demo: Demo | None
) -> Iterator[str]:
    url = listen.url("http" if settings.tls is None else "https")
    yield f"Headgate is ready on {url} (admin {admin_url}, usage records in {settings.records})"
    if demo is None:
        return
    for key in demo.keys:
        yield f"  {key.secret}  {key.tenant}/{key.user}: {key.note}"
    trust = (
        "" if settings.tls is None else f"--cacert {shlex.quote(str(settings.tls.certificate))} "
    )
    yield "Try it:"
    yield (
        f"  curl {trust}{url}/v1/chat/completions "
        f"-H 'Authorization: Bearer {demo.keys[0].secret}' -H 'Content-Type: application/json' "
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
