"""YAML in: read with positions, checked against the types and against good sense, compared, described as schemas."""
