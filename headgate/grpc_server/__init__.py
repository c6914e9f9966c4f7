"""A gRPC server of few system calls: frames and flow control without I/O, and one loop around them.

It serves the hooks on one event loop, answers a call with one write, and reads header blocks that
repeat from memory. CONTRIBUTING says why this is our own code.
"""
