"""The monthly report: who used what, what it cost, and what the machines cost. docs/showback.md."""
