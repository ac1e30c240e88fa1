"""Settings: where things are and how to log in. One frozen tree, decoded once.

Looked up as `--config`, RAMPART_CONFIG, ./rampart.toml, the user's configuration directory, /etc/rampart/;
every key also as RAMPART_SECTION__KEY. Unknown keys are errors; every default is safe on a laptop.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from controller.errors import SettingsError

ENV_PREFIX = "RAMPART_"
# Variables of the command line and of the start-up that are not settings.
NOT_SETTINGS = frozenset(
    {
        "RAMPART_CONFIG",
        "RAMPART_URL",
        "RAMPART_TOKEN",
        "RAMPART_TOKEN_FILE",
        "RAMPART_ADMIN_TOKEN_FILE",
        "RAMPART_FAULT",
    }
)


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ServerSettings(Section, frozen=True):
    """`manifests`: a folder that is loaded at the start and whenever it changes; none when empty.

    `public_url`: how people reach this server, as in `https://rampart.example`; for links in messages.
    """

    bind: str = "127.0.0.1:8400"
    log_level: str = "info"
    allow_unauthenticated_metrics: bool = True
    manifests: str = ""
    public_url: str = ""


class DatabaseSettings(Section, frozen=True):
    """Empty `url`: embedded PostgreSQL in `data_dir`. `bin_dir`: use these PostgreSQL binaries for it.

    `pooled`: `url` leads through a transaction pooler such as PgBouncer. `listen_url`: a direct way to the same
    database, for being told of changes at once; without one a pooled replica asks every two seconds.
    """

    url: str = ""
    url_file: str = ""
    pooled: bool = False
    listen_url: str = ""
    listen_url_file: str = ""
    bin_dir: str = ""
    pool_size: int = 8
    timeout_seconds: float = 5.0

    @property
    def shared(self) -> bool:
        """Other replicas may work on it, too: it is not the embedded one."""
        return bool(self.url or self.url_file)


class EngineSettings(Section, frozen=True):
    """`poll_seconds`: how often due runs are looked for. `lease_seconds`: how long a silent replica keeps them.

    `presence_seconds`: how long after its last check-in a replica counts as there; while one does not, nothing
    rises.
    """

    poll_seconds: float = 0.5
    lease_seconds: float = 15.0
    presence_seconds: float = 5.0
    batch: int = 2000
    measure_timeout_seconds: float = 10.0
    provider_timeout_seconds: float = 10.0
    max_automatic_kills: int = 3
    automatic_kills_window_seconds: float = 600.0


class PeersSettings(Section, frozen=True):
    """The other replicas, told of kills directly. `urls` may name this replica, too; `dns` is `host:port`.

    `secret_file` holds the secret all replicas share; without it a replica neither tells nor listens.
    """

    urls: list[str] = []
    dns: str = ""
    secret_file: str = ""
    timeout_seconds: float = 1.0


class FrontSettings(Section, frozen=True):
    """Applications read this environment of LaunchDarkly's here, with the keys that they have.

    `sdk_key_files` are further SDK keys than the one by which the provider follows the environment.
    """

    sdk_key_files: list[str] = []
    mobile_key_files: list[str] = []
    client_side_ids: list[str] = []


class DeliverySettings(Section, frozen=True):
    """`allowed_origins`: whose web pages may ask the doors for browsers, as in `https://shop.example`.

    "*" is everybody's: a client-side ID is public and opens what everybody may see, and no cookie is looked at.
    `front`: provider → environment of LaunchDarkly's → how applications read it here.
    """

    allowed_origins: list[str] = msgspec.field(default_factory=lambda: ["*"])
    front: dict[str, dict[str, FrontSettings]] = {}


class BuiltinProviderSettings(Section, frozen=True, tag_field="kind", tag="builtin"):
    settle_seconds: float = 5.0


class LaunchDarklyProviderSettings(Section, frozen=True, tag_field="kind", tag="launchdarkly"):
    """`sdk_key_files`: of each environment a file with its SDK key. The addresses may be those of the EU, of the
    federal instance or, `stream_uri`, of a relay.

    `sweep_seconds`: how often all flags are read again beside the stream; `poll_seconds`: how often without it.
    `throttled_seconds` is waited after a 429 that does not say for how long. While fewer than `kill_reserve`
    requests are left of a window, only kills are sent.
    """

    project: str
    api_token_file: str
    sdk_key_files: dict[str, str] = {}
    base_uri: str = "https://app.launchdarkly.com"
    stream_uri: str = "https://stream.launchdarkly.com"
    events_uri: str = "https://events.launchdarkly.com"
    settle_seconds: float = 5.0
    sweep_seconds: float = 600.0
    poll_seconds: float = 10.0
    timeout_seconds: float = 5.0
    throttled_seconds: float = 10.0
    kill_reserve: int = 5


class FlagdProviderSettings(Section, frozen=True, tag_field="kind", tag="flagd"):
    """`files`: of each environment the JSON file with its flags. `sync_bind`: where they are served over gRPC;
    nowhere when empty.
    """

    files: dict[str, str]
    sync_bind: str = ""
    settle_seconds: float = 5.0


class UnleashProviderSettings(Section, frozen=True, tag_field="kind", tag="unleash"):
    """`environments`: what Unleash calls those of ours that it calls otherwise."""

    url: str
    api_token_file: str
    project: str = "default"
    environments: dict[str, str] = {}
    timeout_seconds: float = 4.0
    settle_seconds: float = 5.0


class PrometheusSourceSettings(Section, frozen=True, tag_field="kind", tag="prometheus"):
    url: str
    headers: dict[str, str] = {}
    username: str = ""
    password_file: str = ""
    bearer_token_file: str = ""
    timeout_seconds: float = 10.0
    max_concurrency: int = 8
    flags_per_query: int = 200


class ScrapeSourceSettings(Section, frozen=True, tag_field="kind", tag="scrape"):
    targets: list[str]
    every_seconds: float = 5.0
    timeout_seconds: float = 4.0
    retention_seconds: float = 7200.0
    max_series: int = 50_000
    bearer_token_file: str = ""


class EventsSourceSettings(Section, frozen=True, tag_field="kind", tag="events"):
    """What SDKs are told with `track()`. `retention_seconds` bounds the longest window and baseline."""

    retention_seconds: float = 7200.0


class AwsSettings(Section, frozen=True):
    """Whose keys sign requests to AWS. Without files, those of AWS' own environment variables."""

    region: str
    service: str = "monitoring"
    access_key_file: str = ""
    secret_key_file: str = ""
    session_token_file: str = ""


class JsonAskSettings(Section, frozen=True):
    """How one kind of question is asked, where it differs from the rest. `query`: what `{{query}}` becomes."""

    query: str = ""
    url: str = ""
    params: dict[str, str] = {}
    body: str = ""
    results: str = ""
    value: str = ""
    time: str = ""
    error: str = ""


class HttpJsonSourceSettings(Section, frozen=True, tag_field="kind", tag="http_json"):
    """Any API that answers queries with JSON: how it is asked, and where the numbers stand (docs/http-json.md).

    A request with a `body` is a POST, any other a GET. `results`, `value`, `time` and `error` are JMESPath. Of
    `counter`, `sample`, `quantile` and `raw` each says how that kind of question is asked; `probe` is a query that
    always answers, for `rampart doctor`.
    """

    url: str
    value: str
    headers: dict[str, str] = {}
    header_files: dict[str, str] = {}
    params: dict[str, str] = {}
    param_files: dict[str, str] = {}
    username: str = ""
    password_file: str = ""
    bearer_token_file: str = ""
    aws: AwsSettings | None = None
    body: str = ""
    results: str = ""
    time: str = ""
    time_unit: Literal["seconds", "milliseconds", "rfc3339"] = "seconds"
    error: str = ""
    counter: JsonAskSettings = JsonAskSettings()
    sample: JsonAskSettings | None = None
    quantile: JsonAskSettings | None = None
    raw: JsonAskSettings = JsonAskSettings()
    probe: str = ""
    delay_seconds: float = 0.0
    timeout_seconds: float = 10.0
    max_concurrency: int = 4


class LogChannelSettings(Section, frozen=True, tag_field="kind", tag="log"):
    pass


class WebhookChannelSettings(Section, frozen=True, tag_field="kind", tag="webhook"):
    """Signed as Standard Webhooks say. Every secret signs: name two while one takes the place of the other.

    `url_file` instead of `url` where the address itself is a secret. `allow_private`: the receiver stands in your
    own network.
    """

    secret_files: list[str]
    url: str = ""
    url_file: str = ""
    allow_private: bool = False
    timeout_seconds: float = 10.0


class SlackChannelSettings(Section, frozen=True, tag_field="kind", tag="slack"):
    """`url_file` holds the address of an incoming webhook: whoever knows it can write there."""

    url_file: str
    allow_private: bool = False
    timeout_seconds: float = 10.0


class PagerDutyChannelSettings(Section, frozen=True, tag_field="kind", tag="pagerduty"):
    """`url`: of the region. `approvals`: a rollout that waits for one is an incident, too, of severity info."""

    routing_key_file: str
    url: str = "https://events.pagerduty.com"
    approvals: bool = False
    allow_private: bool = False
    timeout_seconds: float = 10.0


class EmailChannelSettings(Section, frozen=True, tag_field="kind", tag="email"):
    """`security`: starttls, tls (from the first byte) or none; never less than was asked for. `ca_bundle`: the
    authorities to believe instead of the system's.
    """

    host: str
    sender: str
    to: list[str]
    port: int = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_bundle: str = ""
    username: str = ""
    password_file: str = ""
    timeout_seconds: float = 10.0


ProviderSettings = (
    BuiltinProviderSettings | LaunchDarklyProviderSettings | FlagdProviderSettings | UnleashProviderSettings
)
SourceSettings = PrometheusSourceSettings | ScrapeSourceSettings | EventsSourceSettings | HttpJsonSourceSettings
ChannelSettings = (
    LogChannelSettings
    | WebhookChannelSettings
    | SlackChannelSettings
    | PagerDutyChannelSettings
    | EmailChannelSettings
)


class Settings(Section, frozen=True):
    data_dir: str = "./rampart-data"
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    engine: EngineSettings = EngineSettings()
    peers: PeersSettings = PeersSettings()
    delivery: DeliverySettings = DeliverySettings()
    providers: dict[str, ProviderSettings] = msgspec.field(
        default_factory=lambda: {"main": BuiltinProviderSettings()}
    )
    sources: dict[str, SourceSettings] = {}
    channels: dict[str, ChannelSettings] = {}
    groups: dict[str, list[str]] = {}

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser().resolve()

    @property
    def built_in_providers(self) -> list[str]:
        """The names under which Rampart's own flags are known. Flags of every other provider are elsewhere."""
        return [name for name, one in self.providers.items() if isinstance(one, BuiltinProviderSettings)]


def search_path(environ: Mapping[str, str]) -> list[Path]:
    config_home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")) / ".config")
    return [
        Path("rampart.toml"),
        Path(config_home) / "rampart" / "rampart.toml",
        Path("/etc/rampart/rampart.toml"),
    ]


def load(path: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the first settings file found and lay RAMPART_* over it. Raises SettingsError, saying where."""
    named = path or environ.get("RAMPART_CONFIG")
    if named and not Path(named).is_file():
        raise SettingsError(f"settings file {named} does not exist")
    found = Path(named) if named else next((p for p in search_path(environ) if p.is_file()), None)
    tree: dict[str, Any] = {}
    if found:
        try:
            tree = tomllib.loads(found.read_text())
        except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{found}: {error}") from error
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and name not in NOT_SETTINGS:
            _lay_over(tree, name, value)
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{found or 'environment'}: {error}") from error


def _lay_over(tree: dict[str, Any], name: str, value: str) -> None:
    *sections, key = name.removeprefix(ENV_PREFIX).lower().split("__")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{name}: {section} is a value in the settings file, not a section")
    tree[key] = _parsed(value)


def _parsed(value: str) -> object:
    # Lists and tables are written as in TOML; anything else is the text itself.
    if value[:1] in "[{":
        try:
            return tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            return value
    return value


def secret_file(path: str) -> str:
    """The stripped content of a secret's file. Raises SettingsError without ever showing the content."""
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"cannot read the secret file {path}: {error.strerror}") from error
