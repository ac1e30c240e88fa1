"""Real replicas on a real PostgreSQL, and everything that happens to them. `python -m tests.chaos --help`."""
