"""`headgate adapters agent`: the agent beside a vLLM, until a signal ends it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from headgate.adapters.files.agent import Agent
from headgate.adapters.files.disk import AdapterDisk
from headgate.adapters.files.origin import OpenSource, in_folder, in_kinds
from headgate.adapters.source import Source
from headgate.core.errors import OperatorError
from headgate.program.ending import on_signals
from headgate.program.http_server import HttpServer
from headgate.program.settings import Address

DRAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The agent of a pod.

    `vllm` is the URL of its vLLM. `sources` is the root of sources that are folders. `buckets` are
    those of S3, or prefixes of them, and `s3_endpoint` is the URL of their store, if it is not
    AWS's. `folder` is where vLLM reads adapters. `base_config` is the base model's config.json.
    """

    address: Address
    vllm: str
    folder: Path
    base_config: Path
    sources: Path | None = None
    buckets: tuple[Source, ...] = ()
    s3_endpoint: str | None = None


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
        if path is not None and not path.exists():
            raise OperatorError(f"{path} does not exist")
    with httpx.Client(trust_env=False) as store_http:
        disk = AdapterDisk(_sources(settings, store_http), settings.folder, settings.base_config)
        async with _serving(settings, disk) as url:
            yield url


def _sources(settings: AgentSettings, http: httpx.Client) -> OpenSource:
    folders = None if settings.sources is None else in_folder(settings.sources)
    if not settings.buckets:
        return in_kinds(folders, None)
    from headgate.adapters.files.bucket import in_buckets  # noqa: PLC0415 - 6 MB that few need

    return in_kinds(folders, in_buckets(settings.buckets, settings.s3_endpoint, http))


@asynccontextmanager
async def _serving(settings: AgentSettings, disk: AdapterDisk) -> AsyncIterator[str]:
    async with httpx.AsyncClient(trust_env=False) as http:
        app = Agent(disk, settings.vllm, http).app()
        server = HttpServer(app, settings.address, "the agent")
        await server.start()
        try:
            yield server.url
        finally:
            await server.stop()
