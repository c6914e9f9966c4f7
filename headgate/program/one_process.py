"""The hooks in this very process; what runs with one worker."""

from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from headgate.core.policy import CompiledPolicy
from headgate.program.app import Hooks
from headgate.program.ending import Ending
from headgate.program.hook_server import HookServer
from headgate.program.hooks import HookInputs, running_hooks
from headgate.program.series import gauge_of
from headgate.program.settings import LogLevel, ServiceSettings
from ratelimit.descriptors.tree import Domains


class OneProcess:
    """Implements `Answering`. Its hooks read the configuration in force at each call."""

    def __init__(
        self, settings: ServiceSettings, inputs: HookInputs, ending: Ending, *, is_private: bool
    ) -> None:
        self._settings = settings
        self._inputs = inputs
        self._ending = ending
        self._is_private = is_private
        self._stack = AsyncExitStack()
        self._hooks: Hooks | None = None

    @property
    def are_ready(self) -> bool:
        return self._hooks is not None

    async def start(self) -> None:
        self._hooks = await self._stack.enter_async_context(
            running_hooks(self._settings, self._inputs, self._ending, self._listen)
        )

    async def stop(self) -> None:
        await self._stack.aclose()

    async def set_policy(self, policy: CompiledPolicy) -> None: ...

    async def set_domains(self, domains: Domains) -> None: ...

    def log_from(self, level: LogLevel) -> None: ...

    async def registry(self) -> CollectorRegistry:
        return self._inputs.metrics.registry

    def gauge(self, name: str) -> float:
        return gauge_of(self._inputs.metrics.registry, name)

    async def handled_entries(self) -> int:
        return 0 if self._hooks is None else self._hooks.access_log.handled_entries

    async def _listen(self, server: HookServer) -> None:
        await server.start(self._settings.hooks, is_private=self._is_private)
