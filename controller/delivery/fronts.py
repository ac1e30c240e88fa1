"""In front of LaunchDarkly: its flags at our doors, with kills laid over them, and events passed on to it."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

import structlog

from controller import telemetry
from controller.access import key_digest
from controller.delivery.forwarding import Forwarder
from controller.delivery.mirror import Mirror, origin_of
from controller.delivery.upstream import Upstream
from controller.domain.catalogue import SdkKey, SdkKeyKind
from controller.errors import SettingsError
from controller.ports import Clock
from controller.settings import FrontSettings, LaunchDarklyProviderSettings, Settings, secret_file
from controller.snapshot import FlagBoard
from controller.telemetry import Metrics

log = structlog.get_logger()

FOLDER = "front"


class Front:
    """One environment of a LaunchDarkly provider. `environment` is what it is called on the board."""

    def __init__(
        self,
        provider: str,
        environment: str,
        there: LaunchDarklyProviderSettings,
        here: FrontSettings,
        *,
        board: FlagBoard,
        data: Path,
        clock: Clock,
        metrics: Metrics,
        chance: Callable[[], float],
    ) -> None:
        self.environment = board.mirror(provider, environment, self._resync)
        self.keys = _keys(self.environment, there.sdk_key_files[environment], here)
        key = secret_file(there.sdk_key_files[environment])
        stream = f"{there.stream_uri.rstrip('/')}/all"
        path = data / FOLDER / quote(provider, safe="") / f"{quote(environment, safe='')}.json"
        self.forwarder = Forwarder(there.events_uri, partial(metrics.front_events, provider, environment))
        self._mirror = Mirror(
            board,
            self.environment,
            path=path,
            origin=origin_of(stream, key),
            clock=clock,
            changed=lambda: metrics.front_changed(provider, environment, clock.now()),
        )
        self._upstream = Upstream(
            stream,
            key,
            take=self._mirror.take,
            begin=self._mirror.begin,
            present=lambda connected: metrics.front_connected(provider, environment, connected=connected),
            clock=clock,
            chance=chance,
        )
        metrics.front_connected(provider, environment, connected=False)
        self._metrics = metrics
        self._named = (provider, environment)
        metrics.front_overlaid(provider, environment, partial(board.overlaid, self.environment))

    def _resync(self) -> None:
        self._mirror.outdate()
        self._upstream.resync()

    def show_streams(self, count: Callable[[], int]) -> None:
        """`count` says how many streams of SDKs are open here."""
        self._metrics.front_streams(*self._named, count)

    def start(self) -> None:
        """Show what was known last, and follow."""
        self._mirror.start()
        self._upstream.start()
        self.forwarder.start()

    async def save(self) -> None:
        await self._mirror.save()

    async def close(self) -> None:
        await self._upstream.close()
        await self._mirror.close()
        await self.forwarder.close()


def build(
    settings: Settings,
    *,
    board: FlagBoard,
    clock: Clock,
    metrics: Metrics,
    chance: Callable[[], float],
) -> list[Front]:
    """All that the settings name. Raises SettingsError when they lead nowhere."""
    fronts = []
    for provider, environments in settings.delivery.front.items():
        there = settings.providers.get(provider)
        for environment, here in environments.items():
            where = f"delivery.front.{provider}.{environment}"
            if not isinstance(there, LaunchDarklyProviderSettings):
                raise SettingsError(
                    f'{where}: the settings have no provider "{provider}" of the kind launchdarkly'
                )
            if environment not in there.sdk_key_files:
                raise SettingsError(
                    f"{where}: to follow it, providers.{provider}.sdk_key_files needs an SDK key of {environment}"
                )
            fronts.append(
                Front(
                    provider, environment, there, here,
                    board=board, data=settings.data_path, clock=clock, metrics=metrics, chance=chance,
                )
            )  # fmt: skip
    return fronts


def _keys(environment: str, sdk_key_file: str, here: FrontSettings) -> list[SdkKey]:
    """Applications keep the keys that they have. None of them is stored anywhere, nor shown."""
    secrets: list[tuple[SdkKeyKind, str]] = [
        *(("server", secret_file(path)) for path in [sdk_key_file, *here.sdk_key_files]),
        *(("mobile", secret_file(path)) for path in here.mobile_key_files),
    ]
    for _, secret in secrets:
        telemetry.hide(secret)
    public: list[tuple[SdkKeyKind, str]] = [("client", one) for one in here.client_side_ids]
    return [_key(environment, kind, secret) for kind, secret in [*secrets, *public]]


def _key(environment: str, kind: SdkKeyKind, secret: str) -> SdkKey:
    return SdkKey(
        name=f"{environment} {kind}",
        digest=key_digest(kind, secret),
        environment=environment,
        kind=kind,
        client_side_id=secret if kind == "client" else None,
        created_at=datetime(1970, 1, 1, tzinfo=UTC),
        created_by="settings",
    )
