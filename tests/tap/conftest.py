"""One Envoy with the tap for all tests of this folder."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.tap.rig import TapEnvoy, running_tap


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tap() -> AsyncIterator[TapEnvoy]:
    folder = Path(tempfile.mkdtemp(prefix="tap-"))  # short: unix socket names end at 108 bytes
    try:
        async with running_tap(folder) as rig:
            yield rig
    finally:
        shutil.rmtree(folder)
