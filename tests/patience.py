"""Time limits for a machine that is busy with other programs: no test may fail because it waits.

`PATIENCE_S` bounds every wait of a test. `patient` lengthens limits of Headgate and of the Envoy
that it configures. An operator needs no options for them, so tests replace the constants: in their
own process with `patient`, in another one by starting `python -m tests.patience up ...`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

PATIENCE_S = 120.0
"""Nothing that a test waits for takes longer. pytest ends a test only after five such waits."""

PATIENT_HEADGATE = (sys.executable, "-m", "tests.patience")
"""The command `headgate`, with the longer limits. Append `up` and its options."""

_ENVOY_WAITS = timedelta(seconds=60)
_LONGER: dict[str, object] = {
    "headgate.adapters.reconcile.look.LATE_S": PATIENCE_S,
    "headgate.dataplane.envoy_admin.EnvoyAdmin.__init__.__defaults__": (PATIENCE_S,),
    "headgate.dataplane.filters.ANSWER_TIMEOUT": _ENVOY_WAITS,
    "headgate.dataplane.filters.HOOK_TIMEOUT": _ENVOY_WAITS,
    "headgate.dataplane.hook_calls._LONGEST_PAUSE": _ENVOY_WAITS,
    "headgate.dataplane.quota_filters.HOOK_TIMEOUT": _ENVOY_WAITS,
    "headgate.dataplane.supervisor.APPLY_TIMEOUT_S": PATIENCE_S,
    "headgate.dataplane.supervisor.READY_TIMEOUT_S": PATIENCE_S,
    "headgate.doctor.reachable._TIMEOUT_S": PATIENCE_S,
    "headgate.program.simulated._READY_TIMEOUT_S": PATIENCE_S,
}


@contextmanager
def patient() -> Iterator[None]:
    """Lengthens the limits inside the block. AttributeError: a constant has another name now."""
    with ExitStack() as stack:
        for name, limit in _LONGER.items():
            stack.enter_context(patch(name, limit))
        yield


def wait_until(probe: Callable[[], Any], awaited: str, timeout_s: float = PATIENCE_S) -> Any:
    """Polls `probe` until it returns something true, and returns that.

    Raises AssertionError, which names what was awaited, when it never does.
    """
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if result := probe():
            return result
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s:g} s for {awaited}")


if __name__ == "__main__":
    from headgate import cli

    with patient():
        cli.main()
