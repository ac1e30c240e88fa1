"""What the flags of an environment serve to one context, as they are now."""

from collections.abc import Iterator

from controller.domain.catalogue import FlagConfig, SdkKeyKind
from controller.domain.evaluation import Context, Evaluation, Evaluator
from controller.domain.sdkflag import opens
from controller.patterns import read_pattern
from controller.snapshot import FlagBoard


class Evaluations:
    """Each flag is read once, and again after it changed."""

    def __init__(self, board: FlagBoard) -> None:
        self._board = board
        self._evaluators: dict[str, Evaluator] = {}
        board.watch(self)

    def flag(self, environment: str, kind: SdkKeyKind, key: str) -> FlagConfig | None:
        """The flag, if a key of that kind opens it."""
        config = self._board.flags(environment).get(key)
        return config if config is not None and opens(kind, config.data) else None

    def version(self, environment: str, key: str) -> int:
        """The highest that was served of the flag, which may be gone."""
        return self._board.version(environment, key)

    def one(self, environment: str, key: str, context: Context) -> Evaluation:
        return self._evaluator(environment).evaluate(key, context)

    def all(self, environment: str, kind: SdkKeyKind, context: Context) -> Iterator[tuple[FlagConfig, Evaluation]]:
        """Of every flag that a key of that kind opens. To be used up before anything is awaited: flags change."""
        evaluator = self._evaluator(environment)
        for key, config in self._board.flags(environment).items():
            if opens(kind, config.data):
                yield config, evaluator.evaluate(key, context)

    def is_prerequisite(self, environment: str, keys: frozenset[str]) -> bool:
        """Whether what other flags serve may depend on these."""
        return any(
            one["key"] in keys
            for data in self._board.data(environment).values()
            for one in data.get("prerequisites") or ()
        )

    # — as a watcher of the board —

    def changed(self, environment: str, key: str, before: FlagConfig | None) -> None:
        if environment in self._evaluators:
            self._evaluators[environment].forget(key)

    def segments_changed(self, environment: str) -> None:
        self._evaluators.pop(environment, None)

    def closed(self) -> None:
        """There is nothing to end."""

    def _evaluator(self, environment: str) -> Evaluator:
        present = self._evaluators.get(environment)
        if present is None:
            flags, segments = self._board.data(environment), self._board.segments(environment)
            present = Evaluator(flags, segments, patterns=read_pattern)
            self._evaluators[environment] = present
        return present
