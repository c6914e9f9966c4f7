"""Headgate: identity, quotas and metering for LLM traffic on Envoy and Istio."""

import os

__version__ = "0.1.0"

# gRPC reads this once, at its import, and no module of ours can import it before this line.
# Children are started by exec alone: gRPC's fork handlers would only write into the terminal.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
