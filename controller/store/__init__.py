"""The store: PostgreSQL, its migrations, and the embedded server that is the default."""
