"""PostgreSQL: where it is, connections to it, and the schema. It holds what changes at run time."""
