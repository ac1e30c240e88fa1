"""What applications in one environment see: the official SDK, connected as theirs are.

The SDK works in threads of its own and keeps flags in a store that it is given, which is its supported way to get
at whole flags. Ours passes everything on to the event loop; nothing here waits for a thread.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from ldclient import Config as SdkConfig
from ldclient import LDClient
from ldclient.feature_store import InMemoryFeatureStore
from ldclient.interfaces import DataSourceState, DataSourceStatus
from ldclient.versioned_data_kind import FEATURES
from msgspec import Struct

from controller.providers.launchdarkly.model import Config
from controller.settings import LaunchDarklyProviderSettings

log = structlog.get_logger()

UNAUTHORIZED = (401, 403)
START_SECONDS = 2.0
"""So long an SDK that begins may take before it complains in its log."""
HURRY_SECONDS = 2.0
PATIENT_SECONDS = 15.0
"""The SDK waits up to half a minute between attempts. While the REST API answers, it is begun anew this often: for
a kill that waits for its proof, and otherwise."""


class Shown(Struct, frozen=True):
    """One flag as the SDK has it since `arrived_at` (monotonic). `config` None: it could not be read."""

    config: Config | None
    arrived_at: float


class Stream:
    """`arrived` is called in the event loop with the keys that changed, or None when anything may have."""

    def __init__(
        self,
        environment: str,
        sdk_key: str,
        settings: LaunchDarklyProviderSettings,
        *,
        clock: Callable[[], float],
        arrived: Callable[[str, frozenset[str]], None],
    ) -> None:
        self._environment = environment
        self._sdk_key = sdk_key
        self._settings = settings
        self._clock = clock
        self._arrived = arrived
        self._flags: dict[str, Shown] = {}
        self._client: LDClient | None = None
        self._starting: asyncio.Task[None] | None = None
        self._started_at = clock()
        self._life = 0
        self._changed = asyncio.Event()
        self.connected = False
        self.why_not = "it has not connected yet"
        self.key_refused = False
        self.since = clock()
        """Monotonic time of the last change of `connected`."""

    def shown(self, key: str) -> Shown | None:
        return self._flags.get(key)

    def start(self) -> None:
        self._started_at = self._clock()
        loop = asyncio.get_running_loop()
        self._starting = loop.create_task(asyncio.to_thread(self._connect, loop))

    async def change(self) -> None:
        """Until anything arrives, flags or news of the connection."""
        await self._changed.wait()

    def hurry(self, *, urgent: bool) -> None:
        """The REST API answers: do not wait as long as the SDK does. Not with a key that is refused."""
        seconds = HURRY_SECONDS if urgent else PATIENT_SECONDS
        if self.connected or self.key_refused or self._clock() - max(self.since, self._started_at) < seconds:
            return
        if self._starting is not None and self._starting.done():
            self.start()

    async def close(self) -> None:
        if self._starting is not None:
            await asyncio.wait([self._starting])
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    # — in threads of the SDK —

    def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
        self._life += 1
        life = self._life

        def tell(work: Callable[..., None], *arguments: Any) -> None:
            # The SDK's threads may outlive the loop for a moment, and one SDK the beginning of the next.
            if not loop.is_closed() and life == self._life:
                loop.call_soon_threadsafe(work, *arguments)

        store = _Store(lambda flags, whole: tell(self._take_in, flags, whole), self._clock)
        settings = self._settings
        config = SdkConfig(
            self._sdk_key,
            base_uri=settings.base_uri,
            stream_uri=settings.stream_uri,
            events_uri=settings.events_uri,
            feature_store=store,
            send_events=False,
            diagnostic_opt_out=True,
        )
        client = LDClient(config, start_wait=START_SECONDS)
        client.data_source_status_provider.add_listener(lambda status: tell(self._note, status))
        tell(self._note, client.data_source_status_provider.status)
        self._client = client

    # — in the event loop —

    def _take_in(self, flags: Mapping[str, Shown | None], whole: bool) -> None:
        if whole:
            before, self._flags = self._flags, {key: one for key, one in flags.items() if one is not None}
            for key, shown in self._flags.items():
                if key in before and before[key].config == shown.config:
                    self._flags[key] = before[key]  # it came again because the stream did
        for key, one in flags.items():
            if one is None:
                self._flags.pop(key, None)
            elif not whole:
                self._flags[key] = one
        self._wake()
        self._arrived(self._environment, frozenset(flags))

    def _note(self, status: DataSourceStatus) -> None:
        connected = status.state == DataSourceState.VALID
        error = status.error
        if connected != self.connected:
            self.since = self._clock()
            log.info("launchdarkly_stream", environment=self._environment, connected=connected)
        self.connected = connected
        self.key_refused = not connected and error is not None and error.status_code in UNAUTHORIZED
        if error is not None and not connected:
            answered = f"it answered HTTP {error.status_code}" if error.status_code else "the connection broke"
            self.why_not = "its SDK key is not taken" if self.key_refused else answered
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Store(InMemoryFeatureStore):
    """The SDK's own, telling what it takes in. Called in the SDK's threads."""

    def __init__(
        self, told: Callable[[Mapping[str, Shown | None], bool], None], clock: Callable[[], float]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._told = told
        self._clock = clock

    def init(self, all_data: Any) -> None:
        super().init(all_data)  # type: ignore[no-untyped-call]
        now = self._clock()
        self._told({key: _read(data, now) for key, data in all_data.get(FEATURES, {}).items()}, True)

    def upsert(self, kind: Any, item: Any) -> None:
        super().upsert(kind, item)  # type: ignore[no-untyped-call]
        self._tell(kind, item["key"])

    def delete(self, kind: Any, key: str, version: int) -> None:
        super().delete(kind, key, version)
        self._tell(kind, key)

    def _tell(self, kind: Any, key: str) -> None:
        """What the store has of it now: an older version than it had was passed over."""
        if kind is FEATURES:
            kept = self.get(FEATURES, key)
            self._told({key: None if kept is None else _read(kept.to_json_dict(), self._clock())}, False)


def _read(data: Any, now: float) -> Shown:
    try:
        return Shown(msgspec.convert(data, Config), now)
    except msgspec.ValidationError as error:
        log.error("launchdarkly_flag_unreadable", key=str(data.get("key")), error=str(error))
        return Shown(None, now)
