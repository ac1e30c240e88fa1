"""Identifiers in the two forms that LaunchDarkly uses."""

import secrets
import uuid


def new_uuid() -> str:
    """Of variations, rules, clauses and errors."""
    return str(uuid.uuid4())


def new_id() -> str:
    """Of everything else: 24 hexadecimal digits."""
    return secrets.token_hex(12)
