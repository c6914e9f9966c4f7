"""The answer cache: which requests it may answer, under which key, and where answers are kept."""
