"""Headgate: identity, quotas and metering for LLM traffic on Envoy and Istio."""

import os

__version__ = "0.1.0"

# gRPC reads this once, as it is imported, which no module of ours can do before this one. We start
# children by exec alone: its fork handlers would only write lines into the terminal.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
