"""Headgate: identity, quotas and metering for LLM traffic on Envoy and Istio."""

import os

__version__ = "0.1.0"

# We start children by exec alone; gRPC's fork handlers would only fill the terminal. gRPC reads
# this when it is imported, so it stands before every import of ours.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
