"""The callers: tokens of issuers, keys at run time, and the log of their changes."""
