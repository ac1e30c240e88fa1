"""Requests signed as AWS asks for it (Signature Version 4), and with whose keys. No library of AWS is needed."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

import yarl
from msgspec import Struct

from controller.errors import SettingsError
from controller.settings import AwsSettings, secret_file

ALGORITHM = "AWS4-HMAC-SHA256"
UNRESERVED = "-_.~"
SIGNED = ("content-type", "host")


class Credentials(Struct, frozen=True):
    access_key: str
    secret_key: str
    session_token: str = ""


def credentials(settings: AwsSettings, environ: Mapping[str, str] = os.environ) -> Credentials:
    """From the files that the settings name, else from AWS' variables. Raises SettingsError without any."""

    def known(path: str, variable: str) -> str:
        return secret_file(path) if path else environ.get(variable, "")

    if settings.access_key_file or settings.secret_key_file:
        found = Credentials(
            known(settings.access_key_file, ""),
            known(settings.secret_key_file, ""),
            known(settings.session_token_file, ""),
        )
    else:
        found = Credentials(
            known("", "AWS_ACCESS_KEY_ID"),
            known("", "AWS_SECRET_ACCESS_KEY"),
            known(settings.session_token_file, "AWS_SESSION_TOKEN"),
        )
    if not (found.access_key and found.secret_key):
        raise SettingsError(
            "no AWS keys: name access_key_file and secret_key_file, or set the variables AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY"
        )
    return found


def signed(
    method: str,
    url: yarl.URL,
    headers: Mapping[str, str],
    body: bytes,
    *,
    keys: Credentials,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """The headers with those that sign the request. `now` is aware; AWS allows it five minutes of error."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "X-Amz-Date": stamp}
    if keys.session_token:
        sent["X-Amz-Security-Token"] = keys.session_token
    names, canonical = _canonical_headers({**sent, "Host": _host(url)})
    request = "\n".join((method, _path(url), _query(url), canonical, names, hashlib.sha256(body).hexdigest()))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    sent["Authorization"] = (
        f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    )
    return sent


def _host(url: yarl.URL) -> str:
    host = url.raw_host or ""
    return host if url.is_default_port() else f"{host}:{url.port}"


def _path(url: yarl.URL) -> str:
    # Every service but S3 wants what is encoded already encoded once more.
    return quote(url.raw_path or "/", safe="/" + UNRESERVED)


def _query(url: yarl.URL) -> str:
    pairs = sorted(
        (quote(name, safe=UNRESERVED), quote(value, safe=UNRESERVED)) for name, value in url.query.items()
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


def _canonical_headers(headers: Mapping[str, str]) -> tuple[str, str]:
    """(names, lines). Only what no proxy changes on the way."""
    kept = {
        name.lower(): " ".join(value.split())
        for name, value in headers.items()
        if name.lower() in SIGNED or name.lower().startswith("x-amz-")
    }
    return ";".join(sorted(kept)), "".join(f"{name}:{kept[name]}\n" for name in sorted(kept))
