"""The agent beside a vLLM: it copies the files of versions, checks them, and deletes them.

It is asked by the reconciler. It deletes nothing that its vLLM may still read (`needs.py`).
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.adapters.files.check import Fit
from headgate.adapters.files.disk import AdapterDisk, is_version
from headgate.adapters.files.needs import need_of
from headgate.adapters.files.origin import UnfitError
from headgate.adapters.source import SourceError

ASK_S = 2.0
MAX_BODY_BYTES = 64 * 1024

log = logging.getLogger("headgate.adapters")


class CopyOrder(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A version to copy: its source, and what its base model's pods take."""

    source: str
    max_rank: int
    trained_on: list[str]


@dataclass(slots=True)
class _Copy:
    order: CopyOrder
    task: "asyncio.Task[None]" = field(init=False)
    copied_bytes: int = 0
    size_bytes: int = 0


class Agent:
    """The agent's calls. `vllm` is the URL of the vLLM beside it."""

    def __init__(self, disk: AdapterDisk, vllm: str, http: httpx.AsyncClient) -> None:
        self._disk = disk
        self._vllm = vllm.rstrip("/")
        self._http = http
        self._copies: dict[str, _Copy] = {}

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/health", _health, methods=["GET"]),
                Route("/versions", self._list, methods=["GET"]),
                Route("/versions/{version}", self._put, methods=["PUT"]),
                Route("/versions/{version}", self._delete, methods=["DELETE"]),
            ]
        )

    async def _list(self, _request: Request) -> Response:
        versions = await asyncio.to_thread(self._disk.versions)
        return JSONResponse({"versions": versions})

    async def _put(self, request: Request) -> Response:
        """200 once the files are there and fit, 202 while they are copied, 422 if they do not."""
        version = request.path_params["version"]
        if not is_version(version):
            return _problem(422, "this is no name of a version")
        try:
            order = msgspec.json.decode(await _body(request), type=CopyOrder)
        except (msgspec.MsgspecError, ValueError) as error:
            return _problem(422, f"the order is wrong: {error}")
        copy = self._copies.get(version)
        if copy is None:
            if self._disk.has(version):
                return JSONResponse({"state": "ready"})
            copy = self._copies[version] = _Copy(order)
            copy.task = asyncio.create_task(self._copy(version, copy))
        await asyncio.wait({copy.task}, timeout=ASK_S)
        if not copy.task.done():
            progress = {"copied_bytes": copy.copied_bytes, "size_bytes": copy.size_bytes}
            return JSONResponse({"state": "copying", **progress}, 202)
        self._copies.pop(version, None)
        return _ended(copy.task)

    async def _copy(self, version: str, copy: _Copy) -> None:
        def moved(copied_bytes: int, size_bytes: int) -> None:
            copy.copied_bytes, copy.size_bytes = copied_bytes, size_bytes

        fit = Fit(copy.order.max_rank, tuple(copy.order.trained_on))
        await asyncio.to_thread(self._disk.copy, version, copy.order.source, fit, moved)

    async def _delete(self, request: Request) -> Response:
        version = request.path_params["version"]
        if not is_version(version) or not await asyncio.to_thread(self._disk.has, version):
            return _problem(404, "there are no such files")
        needed = await self._needed(version)
        if needed:
            return _problem(409, needed)
        await asyncio.to_thread(self._disk.remove, version)
        log.info("the files of %s are deleted", version)
        return Response(status_code=204)

    async def _needed(self, version: str) -> str:
        """Why the files must stay, as when vLLM does not answer; empty if they need not."""
        if version in self._copies:
            return "the files are being copied"
        try:
            models = await self._http.get(f"{self._vllm}/v1/models", timeout=ASK_S)
            metrics = await self._http.get(f"{self._vllm}/metrics", timeout=ASK_S)
            listed = {card["id"] for card in models.json()["data"]}
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return "vLLM does not say what it needs"
        return need_of(version, listed, metrics.text)


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _body(request: Request) -> bytes:
    """The body. Raises ValueError beyond `MAX_BODY_BYTES`."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"it is larger than {MAX_BODY_BYTES} bytes")
    return body


def _ended(task: "asyncio.Task[Any]") -> Response:
    error = task.exception()
    if error is None:
        return JSONResponse({"state": "ready"})
    if isinstance(error, UnfitError | SourceError):
        return _problem(422, str(error))
    log.error("a copy failed: %s", error)
    return _problem(503, f"the copy failed: {error}")


def _problem(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
