"""The demo itself: starts everything, follows both rollouts to their end, checks it, and cleans up."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from controller.demo import report, script
from controller.demo.pace import FAST, RELAXED, Pace
from controller.demo.processes import Child, free_port, interrupts_wait
from controller.demo.server_api import ServerApi
from controller.demo.storefront import Storefront
from controller.demo.view import Line, Screen, screen_for
from controller.domain.rollout import ACTIVE_PHASES
from controller.domain.status import RunStatus
from controller.errors import RampartError, Unavailable

SERVER_READY_SECONDS = 60.0
LOOK_SECONDS = 0.25
REMOVE_SECONDS = 10.0
INTERRUPTED = 130
PIPE_WIDTH = 200


def run(*, fast: bool = False, exit: bool = False, keep_data: bool = False) -> int:  # noqa: A002 - named as the option
    """Play the demo on this terminal; 0 only if the good release completed and its policy killed the bad one.

    Without `exit` everything stays up until Ctrl-C. `keep_data` leaves the temporary directory.
    """
    # A pipe or a log has no width; its lines are not cut.
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _workspace(console, keep=keep_data) as directory, ExitStack() as children:
            good = Demo(directory, FAST if fast else RELAXED, children, console).perform(stay=not exit)
            return 0 if good else 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return INTERRUPTED


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _workspace(console: Console, *, keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rampart-demo-"))
    try:
        yield directory
    finally:
        if keep:
            console.print(f"kept: {directory}", soft_wrap=True)
        else:
            _remove(directory)


def _remove(directory: Path) -> None:
    """A PostgreSQL that is still shutting down takes files away under our hands: then once more."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_SECONDS)


class Demo:
    def __init__(self, directory: Path, pace: Pace, children: ExitStack, console: Console) -> None:
        self._directory = directory
        self._pace = pace
        self._children = children
        self._console = console
        self._began = time.monotonic()
        self._port = free_port()
        self._shop_ports = [free_port() for _ in range(script.SHOPS)]
        self._shops: list[Storefront] = []
        self._sequence = 0
        self._faulty = False

    def perform(self, *, stay: bool) -> bool:
        """Whether both rollouts ended as they should. Says everything, also why not."""
        try:
            good = self._play()
            if stay:
                self._stay()
        except RampartError as error:
            self._say(f"\nThe demo failed: {error}", style="red")
            good = False
        if not good:
            self._say(f"\nThe end of the server's log:\n{self._server.tail()}")
        return good

    def _play(self) -> bool:
        with screen_for(self._console) as screen:
            self._open(screen)
            statuses = self._follow(screen)
        records = self._api.audit(0)
        served = [shop.served() for shop in self._shops]
        findings = report.findings(statuses, records, self._api.verify_audit(), served)
        self._console.print(report.summary(findings, records, self._elapsed()))
        return all(finding.ok for finding in findings)

    def _stay(self) -> None:
        """Until Ctrl-C, which is how it should end. Raises Unavailable when the server ends before."""
        # `make demo` leaves the command in a virtual environment that nobody activated.
        command = "rampart" if shutil.which("rampart") else str(Path(sys.executable).with_name("rampart"))
        self._say(report.look_around(command, self._port, self._token_file, self._shop_ports[0]))
        try:
            while True:
                self._server.require_alive()
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            self._say("stopping everything")

    # — opening —

    def _open(self, screen: Screen) -> None:
        self._tell(screen, "starting the server, with a PostgreSQL of its own")
        self._start_server()
        self._server.wait_until_answers(self._port, "/readyz", seconds=SERVER_READY_SECONDS)
        self._api = ServerApi(self._port, self._token_file.read_text().strip())
        self._tell(screen, "applying two flags, two plans, and the shipped policy with shorter durations")
        self._api.apply(script.manifests(self._pace))
        key_file = self._directory / "sdk.key"
        key_file.touch(mode=0o600)
        key_file.write_text(self._api.create_sdk_key("shop", script.ENVIRONMENT))
        self._tell(screen, f"opening {script.SHOPS} shops behind the LaunchDarkly SDK")
        for index in range(script.SHOPS):
            with interrupts_wait():
                self._shops.append(self._children.enter_context(self._shop(index, key_file)))
        # They are left in reverse order, one by one; asked all at once they end together.
        self._children.callback(self._ask_shops_to_end)
        for shop in self._shops:
            shop.wait_until_ready()
        for plan in script.FLAGS:
            self._api.start(plan, "by the demo")

    def _ask_shops_to_end(self) -> None:
        for shop in self._shops:
            shop.signal(signal.SIGTERM)

    def _start_server(self) -> None:
        config = self._directory / "rampart.toml"
        targets = [f"127.0.0.1:{port}" for port in self._shop_ports]
        config.write_text(script.settings_text(self._directory / "data", self._port, targets, self._pace))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RAMPART_")}
        command = [sys.executable, "-m", "controller", "serve", "--config", str(config)]
        with interrupts_wait():
            self._server = Child("server", command, self._directory / "server.log", environ=environ)
            self._children.enter_context(self._server)

    def _shop(self, index: int, key_file: Path) -> Storefront:
        return Storefront(
            index,
            stream_uri=f"http://127.0.0.1:{self._port}",
            sdk_key_file=key_file,
            flags=script.FLAGS,
            log=self._directory / f"shop-{index + 1}.log",
            port=self._shop_ports[index],
            options={
                "service": script.SERVICE,
                "visits-per-second": self._pace.visits_per_second,
                "requests-per-visit": script.REQUESTS_PER_VISIT,
            },
        )

    @property
    def _token_file(self) -> Path:
        return self._directory / "data" / "admin.token"

    # — following —

    def _follow(self, screen: Screen) -> dict[str, RunStatus]:
        """Until neither rollout can move by itself any more. Raises Unavailable when that takes too long."""
        deadline = time.monotonic() + self._pace.patience_seconds
        while True:
            for child in (self._server, *self._shops):
                child.require_alive()
            statuses = {plan: self._api.status(plan) for plan in script.FLAGS}
            screen.show(statuses)
            self._tell_decisions(screen)
            self._break_the_bad_one(screen, statuses[script.BAD])
            if not any(_moves(status) for status in statuses.values()):
                return statuses
            if time.monotonic() > deadline:
                raise Unavailable(_stuck(statuses, self._pace.patience_seconds))
            time.sleep(LOOK_SECONDS)

    def _tell_decisions(self, screen: Screen) -> None:
        for record in self._api.audit(self._sequence):
            self._sequence = record.sequence
            if plan := report.plan_of(record):
                screen.tell(Line(self._elapsed(), plan, record.entry.reason))

    def _break_the_bad_one(self, screen: Screen, bad: RunStatus) -> None:
        if self._faulty or bad.stage < script.FAULT_STAGE or not bad.confirmed:
            return
        self._faulty = True
        for shop in self._shops:
            shop.behave(script.BAD, **script.FAULT)
        self._tell(screen, f"now {script.BAD} turns bad: {script.FAULT_TEXT}")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _tell(self, screen: Screen, text: str) -> None:
        screen.tell(Line(self._elapsed(), "", text))

    def _elapsed(self) -> float:
        return time.monotonic() - self._began


def _moves(status: RunStatus) -> bool:
    """Paused is a matter for a person, and there is none in a demo."""
    return status.phase in ACTIVE_PHASES and status.phase != "paused"


def _stuck(statuses: Mapping[str, RunStatus], seconds: float) -> str:
    where = "; ".join(
        f"{status.id} is {status.phase}: {'; '.join(block.text for block in status.blocks) or status.reason}"
        for status in statuses.values()
    )
    return f"not finished after {seconds:.0f} s: {where}"
