"""The ledger: usage records in the database, each exactly once. docs/showback.md tells."""
