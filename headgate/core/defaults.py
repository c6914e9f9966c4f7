"""The defaults of a model in the policy, with their reasons."""

DEFAULT_FAIRNESS_FLOOR = 20
"""Some hundredths of what a small GPU computes: many tenants may wait at once."""

DEFAULT_IMAGE_TOKENS = 2048
"""More than most models need for a photo or a page. They report the true number at the end."""

DEFAULT_POD_SLOTS = 8
"""Fewer than vLLM computes at once on any GPU, so that no request waits for its affinity."""
