"""Commands that are the server, or ask after it. The server's modules load inside the command that needs them."""

import click
import msgspec
from msgspec.structs import replace

from controller import __version__, settings
from controller.cli.connection import Connection, Unreachable
from controller.cli.exits import Exit
from controller.cli.options import config_option, output_option, server_option
from controller.cli.screens import check_lines
from controller.cli.terminal import say, show, show_json
from controller.domain.status import Check

VERSION_SECONDS = 2.0
HEALTH_SECONDS = 4.0


@click.command()
@config_option
@click.option(
    "--manifests",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False),
    help="Load the manifests of this folder now, and again whenever they change; also server.manifests.",
)
def serve(config: str | None, manifests: str | None) -> int:
    """Run the server.

    Needs no settings: without a database URL it runs its own PostgreSQL in the data directory, and it listens on
    127.0.0.1:8400. Every setting is also a variable, as in RAMPART_SERVER__BIND=127.0.0.1:9000.

    Loading a folder of manifests starts no run and changes none; while they have mistakes, what was loaded last
    stays in force.

    \b
    Example:
      rampart serve --config rampart.toml --manifests rollouts/
    """
    from controller.app import serve as run_server  # noqa: PLC0415 - the server is not loaded for anything else

    loaded = settings.load(config)
    if manifests:
        loaded = replace(loaded, server=replace(loaded.server, manifests=manifests))
    return run_server(loaded)


@click.command()
@config_option
def migrate(config: str | None) -> int:
    """Bring the database to this version.

    serve does the same at its start. What an earlier version would not bear waits until no replica of it is
    registered any more; one of those that run does it then, or this command run once more.

    \b
    Example:
      rampart migrate --config rampart.toml
    """
    from controller.app import migrate as run_migrations  # noqa: PLC0415 - as above

    return run_migrations(settings.load(config))


@click.command()
@click.option("--fast", is_flag=True, help="Shorter stages: about a minute in all.")
@click.option(
    "--exit", "exit_", is_flag=True, help="Stop at the end; exits with 0 only if both went as they should."
)
@click.option("--keep-data", is_flag=True, help="Leave the temporary directory for a look afterwards.")
def demo(fast: bool, exit_: bool, keep_data: bool) -> int:
    """Watch a good release complete, and a bad one be killed.

    Needs nothing else: starts its own PostgreSQL, server and a toy shop gated by a real SDK, all on loopback and
    in a temporary directory.

    \b
    Example:
      rampart demo --fast --exit
    """
    from controller.demo import run  # noqa: PLC0415 - as above

    return run(fast=fast, exit=exit_, keep_data=keep_data)


@click.command()
@click.argument("plans", metavar="[PLAN]...", nargs=-1)
@click.option("--send-test", is_flag=True, help="Also send a test message to every channel.")
@server_option
@output_option
def doctor(plans: tuple[str, ...], send_test: bool, server: Connection, output: str) -> int:
    """Check the server and all it depends on.

    Of plans those that are named, or all. It says what to do about each thing that is wrong: database, disk,
    clocks, replicas, channels, sources, and for every plan its flag, the people to tell, and whether each metric
    is there, fresh and counted once. Changes nothing. Exits with 1 when something cannot work (✖); a risk (!)
    alone is no failure.

    \b
    Examples:
      rampart doctor
      rampart doctor checkout-v2
      rampart doctor --send-test
    """
    checks = server.get("doctor", plans=",".join(plans) or None).decode(list[Check])
    if send_test:
        checks += server.post("doctor", "test-messages", body={}).decode(list[Check])
    if output == "json":
        show_json(msgspec.json.encode(checks))
    else:
        show(check_lines(checks))
    return Exit.FINDING if any(check.state == "fail" for check in checks) else Exit.OK


@click.command()
@click.option("--ready", is_flag=True, help="Also that it can do all its work: database and schema, too.")
@server_option
def healthz(ready: bool, server: Connection) -> int:
    """Whether the server answers; for health checks.

    Needs no token. Exits with 0 when it does, and with 3 when not. With --ready the reasons are told.

    \b
    Example:
      rampart healthz
    """
    server.within(HEALTH_SECONDS).probe("readyz" if ready else "healthz")
    return Exit.OK


class VersionAnswer(msgspec.Struct, frozen=True):
    version: str


@click.command()
@server_option
@output_option
def version(server: Connection, output: str) -> int:
    """Show the versions of this command and of the server.

    \b
    Example:
      rampart version
    """
    try:
        there = server.within(VERSION_SECONDS).get("version").decode(VersionAnswer).version
    except Unreachable as failure:
        there = None
        say(str(failure))
    if output == "json":
        show_json(msgspec.json.encode({"client": __version__, "server": there}))
    else:
        show([f"rampart {__version__}", f"server  {there or 'unreachable'}"])
    return Exit.OK
