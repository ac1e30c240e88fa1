"""Signatures are what botocore 1.44.5 made of the same requests; tests/peers/test_cloudwatch.py asks it again."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yarl

from controller.errors import SettingsError
from controller.settings import AwsSettings
from controller.sources.aws_signature import Credentials, credentials, signed

AT = datetime(2026, 11, 21, 9, 0, 1, tzinfo=UTC)
URL = yarl.URL("https://monitoring.eu-central-1.amazonaws.com/?b=2&a=%20~")
SCOPE = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/eu-central-1/monitoring/aws4_request"
FROM_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "from-env", "AWS_SESSION_TOKEN": "t"}


def sign(body: bytes = b"{}", token: str = "", **headers: str) -> dict[str, str]:
    keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    sent = {"Content-Type": "application/x-amz-json-1.0", **headers}
    return signed("POST", URL, sent, body, keys=keys, region="eu-central-1", service="monitoring", now=AT)


def test_a_request_is_signed_as_aws_own_library_signs_it() -> None:
    found = sign(Accept="*/*")
    assert found["X-Amz-Date"] == "20261121T090001Z"
    assert found["Authorization"] == (
        f"{SCOPE}, SignedHeaders=content-type;host;x-amz-date, "
        "Signature=400ac4a176226eda8fb23818820f8f708bbf432fc38cdd635bcca9d1aae5165d"
    )


def test_a_session_token_is_sent_and_signed() -> None:
    found = sign(token="a/session+token=")
    assert found["X-Amz-Security-Token"] == "a/session+token="
    assert found["Authorization"] == (
        f"{SCOPE}, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, "
        "Signature=5cecac3b0da461a30dad28111d9e8432a20a5432d5ad2f7897f594960a274380"
    )


def test_another_body_or_target_has_another_signature() -> None:
    requests = [sign(), sign(b"{ }"), sign(b"{}", **{"X-Amz-Target": "A.B"})]
    assert len({one["Authorization"] for one in requests}) == 3


def test_keys_come_from_files_and_without_any_from_aws_variables(tmp_path: Path) -> None:
    for name in ("access", "secret", "token"):
        (tmp_path / name).write_text(f"{name}-in-file\n")
    files = AwsSettings(
        region="eu-central-1", access_key_file=str(tmp_path / "access"), secret_key_file=str(tmp_path / "secret")
    )
    assert credentials(files, FROM_ENVIRONMENT) == Credentials("access-in-file", "secret-in-file")
    assert credentials(AwsSettings(region="x"), FROM_ENVIRONMENT) == Credentials("AKIDENV", "from-env", "t")
    temporary = AwsSettings(
        region="x",
        access_key_file=str(tmp_path / "access"),
        secret_key_file=str(tmp_path / "secret"),
        session_token_file=str(tmp_path / "token"),
    )
    assert credentials(temporary, {}).session_token == "token-in-file"


@pytest.mark.parametrize("environ", [{}, {"AWS_ACCESS_KEY_ID": "AKIDENV"}])
def test_half_of_the_keys_or_none_are_told(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no AWS keys"):
        credentials(AwsSettings(region="x"), environ)
    (tmp_path / "access").write_text("access")
    with pytest.raises(SettingsError, match="no AWS keys"):
        # The secret of the environment belongs to another key.
        credentials(AwsSettings(region="x", access_key_file=str(tmp_path / "access")), FROM_ENVIRONMENT)
