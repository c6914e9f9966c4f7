"""Fairness between tenants in the queues of vLLM, which takes the smallest tag first."""
