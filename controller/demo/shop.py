r"""A toy shop: a web service whose features are gated by the real LaunchDarkly server SDK, pointed at Rampart.

    python -m controller.demo.shop --port 9001 --stream-uri http://127.0.0.1:8400 --sdk-key-file key \
        --flags checkout,search

It makes its own visitors, shows /metrics to whoever scrapes it, and misbehaves on demand (PUT /behaviour/FLAG).
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
from aiohttp import web
from ldclient import Config, Context, LDClient
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from controller.demo.traffic import Behaviour, Meter, Shopper, Traffic, population, shopper

READY_POLL_SECONDS = 0.05

Counts = dict[str, dict[str, int]]


class ShopOptions(Struct, frozen=True, kw_only=True):
    """What the command line says. `first_user` keeps the visitors of several shops apart."""

    sdk_key: str
    stream_uri: str
    flags: tuple[str, ...]
    rollout_variation: str
    service: str
    environment: str
    users: int
    first_user: int
    visits_per_second: float
    requests_per_visit: int
    seed: int


class Shop:
    def __init__(self, options: ShopOptions, client: LDClient) -> None:
        self._options = options
        self._client = client
        self._meter = Meter(options.service, options.environment)
        self._shoppers = population(options.users, options.first_user)
        self._traffic = Traffic(
            flags=options.flags,
            shoppers=self._shoppers,
            serves=self.serves,
            meter=self._meter,
            rollout_variation=options.rollout_variation,
            requests_per_visit=options.requests_per_visit,
            seed=options.seed,
        )

    def serves(self, flag: str, context: Context) -> str:
        """The name of the variation the SDK serves: `on` and `off` for booleans, else the value itself."""
        value = self._client.variation(flag, context, False)
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)

    async def open_doors(self) -> None:
        """Visitors come as soon as the SDK knows the flags, and until cancelled."""
        # The SDK lives in threads of its own and has no asyncio event to wait for.
        while not self._client.is_initialized():  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_SECONDS)
        await self._traffic.keep_coming(self._options.visits_per_second)

    def count_contexts(self) -> dict[str, Counts]:
        """For each flag and cohort: how many of all contexts get which variation, asked of the SDK now."""
        return {flag: self._count(flag) for flag in self._options.flags}

    def _count(self, flag: str) -> Counts:
        counts: Counts = {"share": {}, "always": {}}
        for visitor in self._shoppers:
            variation = self.serves(flag, visitor.context)
            counts[visitor.cohort][variation] = counts[visitor.cohort].get(variation, 0) + 1
        return counts

    # — the web service —

    def application(self) -> web.Application:
        app = web.Application()
        app.cleanup_ctx.append(self._opened)
        app.add_routes(
            [
                web.get("/ready", self._ready),
                web.get("/metrics", self._metrics),
                web.get("/state", self._state),
                web.put("/behaviour/{flag}", self._behave),
                *(web.get(f"/{flag}", partial(self._feature, flag)) for flag in self._options.flags),
            ]
        )
        return app

    async def _opened(self, _: web.Application) -> AsyncIterator[None]:
        visitors = asyncio.create_task(self.open_doors())
        yield
        visitors.cancel()
        await asyncio.gather(visitors, return_exceptions=True)
        await asyncio.to_thread(self._client.close)

    async def _ready(self, _: web.Request) -> web.Response:
        if self._client.is_initialized():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="the SDK has not received the flags yet\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        text = generate_latest(self._meter.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _state(self, _: web.Request) -> web.Response:
        counts = await asyncio.to_thread(self.count_contexts)
        return web.Response(body=msgspec.json.encode(counts), content_type="application/json")

    async def _behave(self, request: web.Request) -> web.Response:
        flag = request.match_info["flag"]
        if flag not in self._options.flags:
            return web.Response(status=404, text=f"this shop has no flag {flag}\n")
        try:
            self._traffic.behaviours[flag] = msgspec.json.decode(await request.read(), type=Behaviour)
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.Response(status=204)

    async def _feature(self, flag: str, request: web.Request) -> web.Response:
        """A request somebody really makes, as in `curl …/checkout?user=anna&email=anna@acme.example`."""
        visitor: Shopper = shopper(request.query.get("user", "anonymous"), request.query.get("email", ""))
        variation = self.serves(flag, visitor.context)
        code, seconds = self._traffic.request(flag, variation, visitor.cohort)
        await asyncio.sleep(seconds)
        return web.json_response({"flag": flag, "variation": variation, "seconds": seconds}, status=code)


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--stream-uri", required=True, help="where Rampart is")
@click.option("--sdk-key-file", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--flags", required=True, help="flag keys, separated by commas; each is a page of the shop")
@click.option("--rollout-variation", default="on", show_default=True, help="the variation faults belong to")
@click.option("--service", default="shop", show_default=True)
@click.option("--environment", default="production", show_default=True)
@click.option("--users", default=10_000, show_default=True)
@click.option("--first-user", default=0, show_default=True)
@click.option("--visits-per-second", default=100.0, show_default=True)
@click.option("--requests-per-visit", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(port: int, sdk_key_file: Path, flags: str, **options: Any) -> None:
    """Open a toy shop on a loopback port, until it is told to stop."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    shop_options = ShopOptions(sdk_key=sdk_key_file.read_text().strip(), flags=tuple(flags.split(",")), **options)
    # Usage events of thousands of invented people would help nobody.
    uri = shop_options.stream_uri
    config = Config(
        shop_options.sdk_key,
        base_uri=uri,
        stream_uri=uri,
        events_uri=uri,
        send_events=False,
        initial_reconnect_delay=0.2,
    )
    client = LDClient(config, start_wait=0)
    web.run_app(Shop(shop_options, client).application(), host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
