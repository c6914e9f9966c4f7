"""The callers: keys at run time, and the log of their changes."""
