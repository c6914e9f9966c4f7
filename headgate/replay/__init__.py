"""Recorded requests under a new policy."""
