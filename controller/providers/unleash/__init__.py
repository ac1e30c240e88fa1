"""Flags of an Unleash server, turned through its admin API."""

from controller.providers.unleash.provider import UnleashProvider

__all__ = ["UnleashProvider"]
