"""The stacks: one file for each program, with how it is built, configured and started."""
