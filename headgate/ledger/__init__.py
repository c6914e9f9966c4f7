"""Usage records in the database, exactly once: what requests cost. docs/showback.md explains."""
