"""A stand-in for LaunchDarkly: the REST API that changes flags, and the stream by which SDKs follow them.

```python
async with FakeLaunchDarkly() as fake:
    fake.create_flag("checkout-v2")
    provider = make(base_uri=fake.base_uri, stream_uri=fake.stream_uri, token=WRITE_TOKEN)
    with fake.faults.fail(503, on="writes"):
        ...
    fake.person("dana").turn_on("checkout-v2")
    assert fake.config("checkout-v2").on and fake.requests.writes == 1
```

It does what LaunchDarkly's documentation says, and each behaviour names the page (`docs/…` of launchdarkly.com);
what the documentation leaves open is marked as chosen where it is. Its answers are decoded by the models of
LaunchDarkly's own API client in tests/providers/test_launchdarkly_fake.py. It was never compared with a live
account.
"""

from tests.support.launchdarkly.account import Environment, Member, Token
from tests.support.launchdarkly.errors import ApiError
from tests.support.launchdarkly.faults import Fault, Hold
from tests.support.launchdarkly.flags import Flag
from tests.support.launchdarkly.person import Person
from tests.support.launchdarkly.requests import Request
from tests.support.launchdarkly.sdk_side import Delivery
from tests.support.launchdarkly.server import (
    BYPASS_TOKEN,
    PRODUCTION,
    PROJECT,
    READ_TOKEN,
    SDK_KEYS,
    STAGING,
    WRITE_TOKEN,
    FakeLaunchDarkly,
    launchdarkly_in_thread,
)

__all__ = [
    "BYPASS_TOKEN",
    "PRODUCTION",
    "PROJECT",
    "READ_TOKEN",
    "SDK_KEYS",
    "STAGING",
    "WRITE_TOKEN",
    "ApiError",
    "Delivery",
    "Environment",
    "FakeLaunchDarkly",
    "Fault",
    "Flag",
    "Hold",
    "Member",
    "Person",
    "Request",
    "Token",
    "launchdarkly_in_thread",
]
