"""docs/http-json.md with AWS: moto answers and checks signatures, botocore signs what we sign."""

import json
import os
import subprocess
import tomllib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import pytest
import yarl
from msgspec.structs import replace

from controller.domain.binding import Guardrail
from controller.domain.evidence import RatioQuestion
from controller.domain.judge import settle
from controller.settings import Settings
from controller.sources.aws_signature import Credentials, signed
from controller.sources.kinds import Source, build
from tests.support.http_json_page import SETTINGS, guardrail
from tests.support.many_flags import SystemClock
from tests.support.repository import ROOT
from tests.support.server import free_port, wait_until
from tests.support.sources import lent

pytestmark = pytest.mark.timeout(120)

HERE = Path(__file__).parent / "cloudwatch"
PYTHON = ROOT / ".peers" / "python" / "bin" / "python"
REGION = "eu-central-1"


class Aws(NamedTuple):
    url: str
    access_key: str
    secret_key: str


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(PYTHON.parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "4"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: answers(url), what="moto to answer")
        filled = subprocess.run(
            [PYTHON, HERE / "fill.py", url, REGION], capture_output=True, text=True, check=True, timeout=60
        )
        yield Aws(url, *json.loads(filled.stdout))
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/moto-api/", timeout=1):
        return True
    return False


@pytest.fixture
async def source(aws: Aws, tmp_path: Path) -> AsyncIterator[Source]:
    """The one of the page, with its address and the place of its files exchanged; and moto has no percentiles."""
    (tmp_path / "aws-access-key").write_text(aws.access_key)
    (tmp_path / "aws-secret-key").write_text(aws.secret_key)
    text = SETTINGS["cloudwatch"].replace(f"https://monitoring.{REGION}.amazonaws.com", aws.url)
    text = text.replace('"p{{percent}}"', '"Maximum"')
    settings = msgspec.convert(tomllib.loads(text.replace("/run/secrets", str(tmp_path))), Settings)
    found = build("cloudwatch", settings.sources["cloudwatch"], lent(SystemClock()))
    yield found
    await found.close()


@pytest.fixture
def ask() -> Guardrail:
    return guardrail("cloudwatch")


async def test_the_policy_of_the_page_is_answered(source: Source, ask: Guardrail) -> None:
    rate, latency = ask.question("error_rate", "on"), ask.question("latency_p95", "on")
    readings = await source.measure([rate, latency])
    errors, slow = readings[rate], readings[latency]
    assert (errors.failure, slow.failure) == (None, None)
    assert (errors.bad, errors.total) == (9 * 2, 9 * 40)
    assert slow.total == 9 * 10
    assert slow.value == 0.1
    assert errors.age_seconds is not None
    assert 30 <= errors.age_seconds < 120
    assert settle(errors, "ratio", min_sample=200, stale_after=ask.stale_after_seconds).value == 0.05


async def test_a_metric_that_nobody_put_is_silence(source: Source, ask: Guardrail) -> None:
    rate, latency = ask.question("error_rate", "off"), ask.question("latency_p95", "off")
    readings = await source.measure([rate, latency])
    assert (readings[rate].bad, readings[rate].total, readings[rate].failure) == (None, None, None)
    assert (readings[latency].value, readings[latency].total, readings[latency].failure) == (None, None, None)


async def test_a_text_that_is_no_metric_is_refused_in_words(source: Source, ask: Guardrail) -> None:
    question = ask.question("error_rate", "on")
    assert isinstance(question, RatioQuestion)
    broken = replace(question, bad="SELECT SUM(Errors)")
    assert "the policy's text is no JSON" in ((await source.measure([broken]))[broken].failure or "")


async def test_a_wrong_secret_key_is_no_signature(source: Source, ask: Guardrail, tmp_path: Path) -> None:
    (tmp_path / "aws-secret-key").write_text("quite-another-key")
    question = ask.question("error_rate", "on")
    failure = (await source.measure([question]))[question].failure or ""
    assert "answered HTTP 403" in failure
    assert "quite-another-key" not in failure


async def test_keys_that_are_nowhere_are_told(
    source: Source, ask: Guardrail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aws-access-key").write_text("")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    question = ask.question("error_rate", "on")
    assert "no AWS keys" in ((await source.measure([question]))[question].failure or "")
    assert "no AWS keys" in (await source.problems())[0]


REQUESTS: list[tuple[str, str, dict[str, str], str, str]] = [
    (
        "POST",
        "https://monitoring.eu-central-1.amazonaws.com/",
        {"Content-Type": "application/x-amz-json-1.0"},
        "{}",
        "",
    ),
    (
        "POST",
        "https://monitoring.eu-central-1.amazonaws.com/",
        {"X-Amz-Target": "A.B"},
        '{"é": "ü"}',
        "a/session+token=",
    ),
    (
        "GET",
        "https://aps.eu-west-1.amazonaws.com/workspaces/ws-1/api/v1/query?query=sum(a)/b&time=1.5&a=",
        {},
        "",
        "",
    ),
    ("GET", "https://x.amazonaws.com/a%20b/~c/%C3%A9?z=2&a=1&A=%20%2B~*&a=0", {"Accept": "*/*"}, "", ""),
    ("GET", "http://127.0.0.1:9090/q?x={y:1,z}", {"X-Amz-Meta": "  two   words "}, "", ""),
]


def encoded(url: str) -> str:
    """As botocore's callers write it, which takes what it is given for encoded already."""
    read = yarl.URL(url)
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in read.query.items()
    )
    return str(read.with_query(None)) + (f"?{query}" if query else "")


def test_every_signature_is_the_one_of_aws_own_library() -> None:
    at = datetime(2026, 11, 21, 9, 0, 1, tzinfo=UTC)
    ours, asked = [], []
    for method, url, headers, body, token in REQUESTS:
        keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
        found = signed(
            method, yarl.URL(url), headers, body.encode(), keys=keys, region=REGION, service="monitoring", now=at
        )
        ours.append(found.pop("Authorization"))
        # What proxies may change on the way is not signed.
        found.pop("Accept", None)
        asked.append(
            {
                "method": method, "url": encoded(url), "headers": found, "body": body, "region": REGION,
                "service": "monitoring", "access_key": keys.access_key, "secret_key": keys.secret_key,
            }
        )  # fmt: skip
    theirs: list[Any] = json.loads(
        subprocess.run(
            [PYTHON, HERE / "sign.py"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
    )
    assert ours == theirs
