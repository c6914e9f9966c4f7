"""Issuers of tokens: their keys, how they are fetched, and how long they count."""
