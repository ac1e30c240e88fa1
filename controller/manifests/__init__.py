"""YAML in: read it, say everything that is wrong and where, compare it, describe it as a schema."""
