"""An application with Unleash's own Python SDK in it. It answers questions, one JSON document a line.

Arguments: the server's address, an SDK's token, a directory for the SDK's cache. Times are monotonic seconds.
"""

import json
import sys
import time
from typing import Any

from UnleashClient import UnleashClient

REFRESH_SECONDS = 1
LOOK_EVERY_SECONDS = 0.005


class Application:
    def __init__(self, client: Any, flag: str) -> None:
        self._client = client
        self._flag = flag

    def serves(self, context: dict[str, Any]) -> bool:
        return bool(self._client.is_enabled(self._flag, context))

    def exposed(self, users: int) -> list[int]:
        return [number for number in range(users) if self.serves({"userId": f"user-{number}"})]

    def until(self, context: dict[str, Any], value: bool, seconds: float) -> float | None:
        """The moment at which it first serves this; None when it did not in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.serves(context) is value:
                return time.monotonic()
            time.sleep(LOOK_EVERY_SECONDS)
        return None


def main(url: str, token: str, cache: str) -> None:
    client = UnleashClient(
        url=f"{url}/api",
        app_name="shop",
        custom_headers={"Authorization": token},
        refresh_interval=REFRESH_SECONDS,
        disable_metrics=True,
        cache_directory=cache,
    )
    client.initialize_client()
    sys.stdout.write('"ready"\n')
    sys.stdout.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        question = asked.pop("ask")
        answer = getattr(Application(client, asked.pop("flag")), question)(**asked)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    client.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
