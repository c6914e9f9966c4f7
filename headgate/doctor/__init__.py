"""`headgate doctor`: looks for faults of a running Headgate, and says what to do."""
