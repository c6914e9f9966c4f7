"""Settings for all tests."""

import httpx
from hypothesis import HealthCheck, settings

from tests.patience import PATIENCE_S

# How long an example takes says more about what else runs on the machine than about our code.
# `timeout` in pyproject.toml ends a test that hangs.
settings.register_profile("headgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headgate")

# Clients that name no timeout of their own: httpx gives up after 5 s.
_DEFAULT = httpx._config.DEFAULT_TIMEOUT_CONFIG
_DEFAULT.connect = _DEFAULT.read = _DEFAULT.write = _DEFAULT.pool = PATIENCE_S
