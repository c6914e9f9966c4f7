"""Notices: people hear of a limit before it refuses. docs/notices.md explains."""
