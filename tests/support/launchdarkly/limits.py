"""Rate limits as documented (docs/api#rate-limiting): windows of ten seconds, for the account, a route or a token.

The numbers are not published; a test sets its own. A header is there only when its limit is enforced.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_SECONDS = 10.0


@dataclass
class Window:
    starts_at: float = 0.0
    used: int = 0


@dataclass
class Limits:
    """Requests per window; None: not limited. `routes` by name. `window_seconds` may be shorter in a test."""

    now: Callable[[], float]
    account: int | None = None
    routes: dict[str, int] = field(default_factory=dict)
    token: int | None = None
    window_seconds: float = WINDOW_SECONDS
    refused: int = 0
    _windows: dict[str, Window] = field(default_factory=dict)

    def admit(self, route: str, token: str) -> tuple[bool, dict[str, str]]:
        """Whether it may pass, and the headers of the answer. What is refused is counted, too."""
        enforced = [
            ("Global", "X-Ratelimit-Reset", "account", self.account),
            ("Route", "X-Ratelimit-Reset", f"route {route}", self.routes.get(route)),
            ("Auth-Token", "X-Ratelimit-Auth-Token-Reset", f"token {token}", self.token),
        ]
        headers: dict[str, str] = {}
        admitted = True
        for name, reset, key, limit in enforced:
            if limit is None:
                continue
            window = self._window(key)
            window.used += 1
            admitted = admitted and window.used <= limit
            headers[f"X-Ratelimit-{name}-Limit"] = str(limit)
            headers[f"X-Ratelimit-{name}-Remaining"] = str(max(0, limit - window.used))
            headers[reset] = str(math.ceil((window.starts_at + self.window_seconds) * 1000))
        self.refused += not admitted
        return admitted, headers

    @property
    def account_left(self) -> int:
        """Requests that the account may still make in this window."""
        assert self.account is not None
        return max(0, self.account - self._window("account").used)

    def _window(self, key: str) -> Window:
        window = self._windows.setdefault(key, Window(self.now()))
        if self.now() >= window.starts_at + self.window_seconds:
            window.starts_at, window.used = self.now(), 0
        return window
