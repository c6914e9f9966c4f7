"""The console of a real box in a real Chromium: axe-core, three widths, two themes, one key's life.

`make test-console` runs it. HEADGATE_SHOTS names a folder for pictures.
"""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.postgres_server import temporary_folder

CHECK = Path(__file__).parent / "browser" / "check.mjs"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or CHROMIUM=")
async def test_every_page_is_without_fault_in_a_real_browser() -> None:
    with temporary_folder() as folder:
        token_file = folder / "token"
        options = ["--demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        options += ["--database-dir", str(folder / "db"), "--records", str(folder / "usage.jsonl")]
        options += ["--api", "127.0.0.1:8482", "--operator-token-file", str(token_file)]
        command = [sys.executable, "-m", "headgate", "up", *options]
        box = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            code = await _checked(await _address(box), token_file)
        finally:
            box.terminate()
            await box.wait()
    assert code == 0


async def _address(box: asyncio.subprocess.Process) -> str:
    assert box.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in box.stdout:
            if found := re.match(rb"Console: (http\S+)/console", line):
                return found[1].decode()
    raise AssertionError("the box ended before it named its console")


async def _checked(url: str, token_file: Path) -> int:
    shots = os.environ.get("HEADGATE_SHOTS")
    arguments = [url, str(token_file), *([shots] if shots else [])]
    environment = os.environ | {"CHROMIUM": str(CHROMIUM)}
    node = await asyncio.create_subprocess_exec("node", str(CHECK), *arguments, env=environment)
    return await node.wait()
