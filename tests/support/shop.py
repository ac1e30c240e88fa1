"""Toy shops for tests: several processes behind the real LaunchDarkly SDK, with one handle on all of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from controller.demo.storefront import Storefront


class Shops:
    """`targets` are what to scrape; `behave` and `served` speak to all shops."""

    def __init__(self, storefronts: Sequence[Storefront]) -> None:
        self.storefronts = tuple(storefronts)

    @property
    def targets(self) -> list[str]:
        return [one.address for one in self.storefronts]

    def wait_until_ready(self) -> None:
        for one in self.storefronts:
            one.wait_until_ready()

    def behave(self, flag: str, **behaviour: float) -> None:
        for one in self.storefronts:
            one.behave(flag, **behaviour)

    def served(self, flag: str) -> dict[str, Counter[str]]:
        """cohort → variation → number of contexts over all shops, as their SDKs evaluate now."""
        total: dict[str, Counter[str]] = {"share": Counter(), "always": Counter()}
        for one in self.storefronts:
            for cohort, counts in one.served()[flag].items():
                total[cohort].update(counts)
        return total


@contextmanager
def running_shops(
    count: int,
    directory: Path,
    *,
    stream_uri: str,
    sdk_key: str,
    flags: Sequence[str],
    ports: Sequence[int] = (),
    options: Mapping[str, str | float] | None = None,
    wait: bool = True,
) -> Iterator[Shops]:
    """Open `count` shops with their logs in `directory`, stopped by their pids at the end.

    `ports` fixes where they listen, for a scraper configured beforehand; `options` are those of
    `python -m controller.demo.shop`, without dashes. `wait=False` returns before their SDKs have any flags.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key_file = directory / "sdk.key"
    key_file.touch(mode=0o600)
    key_file.write_text(sdk_key)
    with ExitStack() as stack:
        shops = Shops(
            [
                stack.enter_context(
                    Storefront(
                        index,
                        stream_uri=stream_uri,
                        sdk_key_file=key_file,
                        flags=flags,
                        log=directory / f"shop-{index + 1}.log",
                        port=ports[index] if ports else None,
                        options=options,
                    )
                )
                for index in range(count)
            ]
        )
        if wait:
            shops.wait_until_ready()
        yield shops
