"""Rampart: a progressive-rollout controller for feature flags."""

__version__ = "0.1.0"
