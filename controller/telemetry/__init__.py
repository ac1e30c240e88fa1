"""What Rampart tells about itself: structured logs for people, series for Prometheus. Neither decides anything."""

from controller.telemetry.kills import KilledFlag
from controller.telemetry.logs import configure_logging, hide, without_secrets
from controller.telemetry.metrics import Metrics

__all__ = ["KilledFlag", "Metrics", "configure_logging", "hide", "without_secrets"]
