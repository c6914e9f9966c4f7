"""One real Envoy for each test module; each test starts with new scripts and empty records."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.envoy_process import Rig, running_envoy
from tests.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def patient_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives Envoy the time of a busy machine to start, and to take new files."""
    for name in ("READY_TIMEOUT_S", "APPLY_TIMEOUT_S"):
        monkeypatch.setattr(f"headgate.dataplane.supervisor.{name}", PATIENCE_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def envoy_of_module() -> AsyncIterator[Rig]:
    async with running_envoy() as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def rig(envoy_of_module: Rig) -> Rig:
    await envoy_of_module.reset()
    return envoy_of_module
