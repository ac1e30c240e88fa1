"""Values for one context, as LaunchDarkly's client-side SDKs read them."""

from typing import Any

from msgspec import Struct

from controller.delivery.evaluations import Evaluations
from controller.domain.catalogue import FlagConfig, SdkKeyKind
from controller.domain.evaluation import Context, Evaluation


class Asker(Struct, frozen=True, kw_only=True):
    """Who asks, and how. `reasons`: why each value is served is wanted, too."""

    environment: str
    kind: SdkKeyKind
    context: Context
    reasons: bool = False


class ClientValues:
    def __init__(self, evaluations: Evaluations) -> None:
        self._evaluations = evaluations

    def all(self, asker: Asker) -> dict[str, dict[str, Any]]:
        """By key, every flag that the asker's key opens."""
        found = self._evaluations.all(asker.environment, asker.kind, asker.context)
        return {config.key: self._value(asker, config, evaluation) for config, evaluation in found}

    def one(self, asker: Asker, key: str) -> dict[str, Any] | None:
        """None when there is no such flag for the asker's key."""
        config = self._evaluations.flag(asker.environment, asker.kind, key)
        if config is None:
            return None
        return self._value(asker, config, self._evaluations.one(asker.environment, key, asker.context))

    def last_version(self, asker: Asker, key: str) -> int:
        """Of a flag that may be gone: above every version that its values came with."""
        return self._evaluations.version(asker.environment, key)

    def _value(self, asker: Asker, config: FlagConfig, evaluation: Evaluation) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "version": config.version,
            "flagVersion": config.version,
            "value": evaluation.value,
            "trackEvents": evaluation.track_events,
        }
        if evaluation.variation is not None:
            shown["variation"] = evaluation.variation
        if evaluation.track_reason:
            shown["trackReason"] = True
        if asker.reasons or evaluation.track_reason:
            shown["reason"] = evaluation.reason
        if config.data.get("debugEventsUntilDate"):
            shown["debugEventsUntilDate"] = config.data["debugEventsUntilDate"]
        opened = [one for one in evaluation.prerequisites if self._opened(asker, one)]
        return {**shown, "prerequisites": opened} if opened else shown

    def _opened(self, asker: Asker, key: str) -> bool:
        return self._evaluations.flag(asker.environment, asker.kind, key) is not None
