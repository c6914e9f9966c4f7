"""A gRPC server that costs little: HTTP/2 without I/O, and a small asyncio layer around it.

It answers a call with one write and remembers header blocks that repeat.
CONTRIBUTING.md says why this is our own code.
"""
