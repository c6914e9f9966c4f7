"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes says more about what else runs on the machine than about our code.
# `timeout` in pyproject.toml ends a test that hangs.
settings.register_profile("headgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headgate")
