"""`headgate adapters agent`: the agent beside a vLLM, until a signal ends it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from headgate.adapters.files.agent import Agent
from headgate.adapters.files.disk import AdapterDisk
from headgate.core.errors import OperatorError
from headgate.program.ending import on_signals
from headgate.program.http_server import HttpServer
from headgate.program.settings import Address

DRAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The agent of a pod.

    `vllm` is the URL of its vLLM. `sources` is the root of all sources, and `folder` where vLLM
    reads adapters. `base_config` is the config.json of the base model.
    """

    address: Address
    vllm: str
    sources: Path
    folder: Path
    base_config: Path


async def run_agent(settings: AgentSettings) -> None:
    """Serves until SIGTERM or SIGINT. Raises OperatorError for a path that is missing."""
    ending = on_signals(DRAIN_S)
    async with running_agent(settings) as url:
        print(f"headgate copies adapters on {url}", file=sys.stderr, flush=True)
        await ending.begun.wait()


@asynccontextmanager
async def running_agent(settings: AgentSettings) -> AsyncIterator[str]:
    """The agent's URL while it serves. Raises OperatorError."""
    for path in (settings.sources, settings.folder, settings.base_config):
        if not path.exists():
            raise OperatorError(f"{path} does not exist")
    disk = AdapterDisk(settings.sources, settings.folder, settings.base_config)
    async with httpx.AsyncClient(trust_env=False) as http:
        app = Agent(disk, settings.vllm, http).app()
        server = HttpServer(app, settings.address, "the agent")
        await server.start()
        try:
            yield server.url
        finally:
            await server.stop()
