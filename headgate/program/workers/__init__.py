"""Worker processes: the hooks on several cores, with one policy, one admin port and one end.

The parent reads files, keeps the admin port and watches the workers. Each worker answers hooks.
"""
