"""Signs requests as AWS' own library does: JSON in, the Authorization of each out."""

import json
import sys

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def authorization(given: dict[str, object]) -> str:
    headers = given["headers"]
    assert isinstance(headers, dict)
    request = AWSRequest(
        method=given["method"], url=given["url"], headers=headers, data=str(given["body"]).encode()
    )
    request.context["timestamp"] = headers["X-Amz-Date"]
    keys = Credentials(given["access_key"], given["secret_key"])
    signer = SigV4Auth(keys, given["service"], given["region"])
    canonical = signer.canonical_request(request)
    text = signer.string_to_sign(request, canonical)
    signed = signer.headers_to_sign(request)
    signature = signer.signature(text, request)
    return (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, "
        f"SignedHeaders={signer.signed_headers(signed)}, Signature={signature}"
    )


sys.stdout.write(json.dumps([authorization(given) for given in json.load(sys.stdin)]))
