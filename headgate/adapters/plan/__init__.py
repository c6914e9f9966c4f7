"""The next steps on the pods, from the versions that are wanted and those that are seen. Pure."""
