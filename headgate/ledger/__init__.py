"""What did it cost: usage records in the database, exactly once. docs/showback.md tells."""
