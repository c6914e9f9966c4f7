"""Chooses the pod of a request: by its affinity, bounded by the requests in flight."""
