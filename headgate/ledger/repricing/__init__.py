"""Repricings: what a month would have cost by another price book, as named runs that are kept."""
